#!/bin/bash
# The web interface in headless Chromium: a private PostgreSQL, the backend,
# an agent and a simulated projector, and the tasks that a person does.
#
#   proto-tests/web/run.sh [--no-install] [FOLDER]
#
# Screenshots of every page go to FOLDER (default: a folder under /tmp, whose
# name it prints). On Debian it installs Chromium and npm where they are
# missing, as root or through sudo; with --no-install it complains instead. It
# ends with "web: N passed, N failed", and leaves nothing running.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

need_cargo
if [ "${1-}" = --no-install ]; then
    shift
    need_installed missing_demo_build_packages missing_web_packages
else
    install_missing "$root" missing_demo_build_packages
    install_missing "$root" missing_web_packages
fi
if ! [ -e "$here/node_modules/playwright-core/package.json" ]; then
    (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund)
fi

cd "$root"
cargo build --quiet --locked -p av-backend -p av-agent -p av-proto-tests --bins
target=$(cargo metadata --format-version 1 --no-deps --locked |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

shots=${1:-}
if [ -z "$shots" ]; then shots=$(mktemp -d "${TMPDIR:-/tmp}/av-web-shots-XXXXXX"); fi
mkdir -p "$shots"
shots=$(realpath "$shots")

dir=$(mktemp -d "${TMPDIR:-/tmp}/av-web-XXXXXX")
chmod 711 "$dir"
postgres=
stop() {
    local status=$?
    trap '' INT TERM
    if [ -n "$postgres" ]; then
        kill -INT "$postgres" 2>/dev/null || true
        wait "$postgres" 2>/dev/null || true
    fi
    rm -rf "$dir"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# PostgreSQL refuses to run as root.
as_pg_user=()
if [ "$(id -u)" -eq 0 ]; then
    pg_user=nobody
    if id postgres >/dev/null 2>&1; then pg_user=postgres; fi
    as_pg_user=(setpriv "--reuid=$pg_user" "--regid=$(id -g "$pg_user")" --init-groups)
fi
pg_bin=$(postgres_bin)
mkdir "$dir/pg"
[ ${#as_pg_user[@]} -eq 0 ] || chown "$pg_user" "$dir/pg"
(cd / && "${as_pg_user[@]}" "$pg_bin/initdb" --no-sync --auth=trust --username=av --encoding=UTF8 \
    --locale=C.UTF-8 -D "$dir/pg") >"$dir/initdb.log" 2>&1 || die "$(cat "$dir/initdb.log")"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# This script's end takes the server with it, however it ends.
(
    cd /
    exec setpriv --pdeathsig INT -- "${as_pg_user[@]}" "$pg_bin/postgres" -D "$dir/pg" -p "$port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
) >"$dir/postgres.log" 2>&1 &
postgres=$!
for ((tries = 0; ; tries++)); do
    psql -X -q -h 127.0.0.1 -p "$port" -U av -d postgres -c 'CREATE DATABASE web' 2>/dev/null && break
    [ "$tries" -lt 300 ] || die "PostgreSQL does not start: $(cat "$dir/postgres.log")"
    sleep 0.2
done

AV_WEB_CHROMIUM=$(command -v chromium) AV_WEB_BIN=$target/debug AV_WEB_DIR=$dir AV_WEB_SHOTS=$shots \
    AV_WEB_DATABASE=postgresql://av@127.0.0.1:$port/web \
    node "$here/tasks.mjs"
say "Screenshots: $shots"
