#!/bin/bash
# Schemathesis against the API's own description: a private PostgreSQL, the
# backend, and a virtual environment for schemathesis, all gone afterwards.
#
#   proto-tests/schemathesis.sh                 every operation, five minutes or so
#   proto-tests/schemathesis.sh ARGUMENTS       passes them to `st run`:
#                                               --include-operation-id devices
#
# The environment moves what is in the way:
#
#   AV_ST           a schemathesis that is installed, instead of one from PyPI
#   AV_ST_EXAMPLES  25: how much is generated for each operation
#   AV_ST_REPORT    a file to which every request and answer is written
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

version=4.32.5
need_cargo
install_missing "$root" missing_test_packages

cd "$root"
cargo build --quiet --locked -p av-backend
target=$(cargo metadata --format-version 1 --no-deps --locked |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
backend_bin=$target/debug/av-backend

dir=$(mktemp -d "${TMPDIR:-/tmp}/av-schemathesis-XXXXXX")
chmod 711 "$dir"
pids=()
stop() {
    local status=$? i
    trap '' INT TERM
    # The backend first, then its database.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -INT "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    rm -rf "$dir"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

st=${AV_ST:-}
if [ -z "$st" ]; then
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        as_root=()
        [ "$(id -u)" -eq 0 ] || as_root=(sudo)
        "${as_root[@]}" "$root/scripts/install-packages.sh" python3-venv
    fi
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
    st=$dir/venv/bin/st
fi

# -------------------------------------------------------------- PostgreSQL

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
read -r pg_port port <<<"$(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))')"
# This script's end takes the servers with it, however it ends.
(
    cd /
    exec setpriv --pdeathsig INT -- "${as_pg_user[@]}" "$pg_bin/postgres" -D "$dir/pg" -p "$pg_port" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
) </dev/null >"$dir/postgres.log" 2>&1 &
pids+=($!)
sql() { psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$pg_port" -U av -d "${database:-av}" "$@"; }
for ((tries = 0; ; tries++)); do
    database=postgres sql -c 'CREATE DATABASE av' 2>/dev/null && break
    [ "$tries" -lt 300 ] || die "PostgreSQL does not start: $(cat "$dir/postgres.log")"
    sleep 0.2
done
export DATABASE_URL=postgresql://av@127.0.0.1:$pg_port/av
# Not what a unit of this machine has.
export AV_ENV_FILE=

# ------------------------------------------------------- backend and data

"$backend_bin" migrate >/dev/null
# What acts here has an id that is not guessed: it would remove itself.
sql -c 'ALTER TABLE users ALTER id RESTART WITH 987654321;
        ALTER TABLE api_tokens ALTER id RESTART WITH 987654321'
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
"$backend_bin" user add schemathesis --role admin <<<"$password" 2>/dev/null
token=avt_$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
sql -v digest="sha256:$(printf %s "$token" | sha256sum | cut -d' ' -f1)" <<'SQL'
INSERT INTO api_tokens (user_id, name, digest) SELECT id, 'this run', :'digest' FROM users;
ALTER TABLE users ALTER id RESTART WITH 1;
ALTER TABLE api_tokens ALTER id RESTART WITH 1;
SQL
sql <"$here/schemathesis_data.sql"
# No message of an invented channel leaves this machine within the run.
AV_LISTEN=127.0.0.1:$port AV_NOTIFY_EVERY_MS=86400000 setpriv --pdeathsig INT -- \
    "$backend_bin" serve </dev/null >"$dir/backend.log" 2>&1 &
pids+=($!)
base=http://127.0.0.1:$port
for ((tries = 0; ; tries++)); do
    python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' "$base/health" 2>/dev/null && break
    [ "$tries" -lt 300 ] || die "the backend does not start: $(tail -n 20 "$dir/backend.log")"
    sleep 0.2
done

# ---------------------------------------------------------------- the run

report=${AV_ST_REPORT:-$dir/report.ndjson}
status=0
# Not the routes of log-in and enrolment: after some failures they answer 429 and no more.
(
    cd "$dir"
    AV_ST_PASSWORD=$password SCHEMATHESIS_HOOKS=schemathesis_hooks PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 \
        "$st" --config-file "$here/schemathesis.toml" run "$base/openapi.json" \
        -H "Authorization: Bearer $token" --exclude-path-regex '^/(login|logout|setup|enroll)' \
        --max-examples "${AV_ST_EXAMPLES:-25}" --continue-on-failure \
        --report ndjson --report-ndjson-path "$report" "$@"
) || status=$?
python3 "$here/schemathesis_coverage.py" "$report" "$root/backend/src/admin/openapi.json" || status=1
if grep -q -E ' (ERROR|panicked)' "$dir/backend.log"; then
    complain "The backend's log has errors:"
    grep -E ' (ERROR|panicked)' "$dir/backend.log" | tail -n 20 >&2
    status=1
fi
[ "$status" -eq 0 ]
