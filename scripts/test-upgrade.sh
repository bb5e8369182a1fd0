#!/bin/bash
# Agents and backends of an older revision together with those of this tree:
# old agent with new backend, new agent with old backend, an old backend that
# goes on serving on the schema that a new one has migrated, and an agent whose
# program is changed and changed back.
#
#   scripts/test-upgrade.sh            from the newest tag, where there is one
#   scripts/test-upgrade.sh REVISION   from that revision
#
# The environment moves what is in the way:
#
#   AV_OLD_BIN   a folder with the older av-agent and av-backend, which are not
#                built then
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# Before the first tag: the last revision with schema 5.
FIRST=6d8551c

case ${1:-} in
--help | -h)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
esac
cd "$root"
need_cargo
revision=${1:-$(git describe --tags --abbrev=0 2>/dev/null || echo "$FIRST")}

target=$(cargo metadata --format-version 1 --no-deps --locked |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
tree=''
programs=''
stop() {
    [ -z "$tree" ] || git worktree remove --force "$tree" 2>/dev/null || true
    [ -z "$programs" ] || rm -rf "$programs"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

old_bin=${AV_OLD_BIN:-}
if [ -z "$old_bin" ]; then
    git rev-parse --quiet --verify "$revision^{commit}" >/dev/null ||
        die "There is no revision $revision here: name one, or fetch the whole history (git fetch --unshallow)."
    # Built in this tree's target folder, for the libraries that both have in
    # common, and from the same place each time, so that one build replaces
    # the one before.
    tree=$target/upgrade
    git worktree remove --force "$tree" 2>/dev/null || true
    git worktree add --quiet --force --detach "$tree" "$revision"
    say "building $revision"
    (cd "$tree" && CARGO_TARGET_DIR=$target cargo build --quiet --locked -p av-agent -p av-backend)
    programs=$(mktemp -d "${TMPDIR:-/tmp}/av-upgrade-XXXXXX")
    cp "$target/debug/av-agent" "$target/debug/av-backend" "$programs/"
    old_bin=$programs
fi
# Cargo puts this tree's programs in place again, also where nothing is to be
# built.
cargo build --quiet --locked -p av-agent -p av-backend
cargo build --quiet --locked -p av-proto-tests --bin pjlink-sim
for program in av-agent av-backend; do
    ! cmp -s "$old_bin/$program" "$target/debug/$program" || die "$old_bin has this tree's $program."
done
say "$revision and this tree:"
python3 -B "$root/proto-tests/upgrade.py" "$old_bin" "$target/debug" "$target/debug/pjlink-sim"
