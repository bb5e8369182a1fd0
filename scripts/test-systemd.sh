#!/bin/bash
# Boots a Debian with its own systemd in namespaces, installs the packages in it
# and does what the guides say, word by word. Takes root; the machine itself is
# left as it is, and no network but the loopback is used after debootstrap.
#
#   scripts/test-systemd.sh                   trixie
#   scripts/test-systemd.sh --suite bookworm  another one
#   scripts/test-systemd.sh --packages FOLDER the packages in this folder, which
#                                             are not built then
#   scripts/test-systemd.sh --only MACHINE    by-hand or packages: not all
#                                             of the guides is asked for then
#   scripts/test-systemd.sh --shell           a shell in it, with the packages
#                                             in /root, in place of the test
#
# The Debian that debootstrap makes is kept for a week in the user's cache
# folder. AV_BUILD_PROFILE=release packs optimized builds in place of quick ones.
# It ends with 77 where it lacks what it needs: root, the Debian, or namespaces
# that take a systemd.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/booted.sh
. "$root/scripts/booted.sh"

suite=trixie
shell=no
built=
only=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
    --suite)
        shift
        suite=${1-}
        ;;
    --packages)
        shift
        built=$(realpath "${1-}")
        ;;
    --only)
        shift
        only=${1-}
        ;;
    --shell) shell=yes ;;
    *) die "test-systemd.sh: there is no option $1" ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || impossible 'debootstrap and namespaces take root.'

work=$(realpath "$(mktemp -d)")
# Its users look through it.
chmod 755 "$work"
finish() {
    local status=$?
    trap '' INT TERM
    halt
    remove_folder "$work" || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
export AV_BUILD_PROFILE="${AV_BUILD_PROFILE:-dev}"
if [ -z "$built" ]; then
    built=$work/debs
    AV_DEB_FOLDER=$built "$root/scripts/build-deb.sh" --version 0.0.1
fi
(cd "$root" && cargo build --quiet --locked -p av-proto-tests --bin pjlink-sim)

make_debian "$work/debian" "$suite" systemd systemd-sysv dbus ca-certificates sudo curl jq openssl iproute2 \
    iputils-ping procps libcap2-bin postgresql snmpd nginx

# A machine that has just booted, with the packages and the sources' files in
# /root. Debian's folder is below each, and stays as it is.
new_machine() {
    local tree
    boot "$work/debian" "$work/$1"
    # Its files, as seen from here.
    tree=/proc/$booted_init/root/root
    cp "$built"/*.deb "$CARGO_TARGET_DIR/debug/pjlink-sim" "$tree/"
    cp -r "$root/systemd" "$root/docs" "$tree/"
    read -ra enter < <(enter_command)
}

if [ "$shell" = yes ]; then
    new_machine shell
    say 'Ctrl-D ends it.'
    inside bash -l || true
    exit 0
fi
for machine in by-hand packages; do
    [ -z "$only" ] || [ "$only" = "$machine" ] || continue
    new_machine "$machine"
    say "$machine: Debian $suite, $(inside systemctl --version | head -n 1)"
    python3 -B "$root/proto-tests/systemd/run.py" "$machine" "$work/done" "${enter[@]}"
    halt
done
if [ -z "$only" ]; then
    python3 -B "$root/proto-tests/systemd/run.py" "$work/done"
    say 'Every command of the guides that can be run is run.'
fi
