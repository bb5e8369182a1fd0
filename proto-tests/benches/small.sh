#!/bin/sh
# Measures that the agent is small: its program, its memory over a day's worth
# of sweeps, its CPU at rest, its threads, and how often it writes to the disk.
#
#   proto-tests/benches/small.sh [SWEEPS]        default 288: a day of 5 minutes
#
# Runs the release program in a network namespace of its own, with a backend of
# its own: 800 addresses that answer a ping, 200 that vanish. Needs root (or
# user namespaces), python3, strace and iproute2.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
sweeps=${1:-288}
cargo build --quiet --release --locked -p av-agent
agent=${CARGO_TARGET_DIR:-target}/release/av-agent
user=
[ "$(id -u)" = 0 ] || user=--map-root-user
# shellcheck disable=SC2086
exec unshare $user --net sh -ec '
    ip link set lo up
    # A link whose other end nobody listens at.
    ip link add void type veth peer name end
    ip link set void up
    ip link set end up
    ip address add 10.66.255.1/16 dev void
    for last in $(seq 0 199); do
        ip neigh add 10.66.0.$last lladdr 02:00:00:00:00:01 dev void
    done
    exec python3 "$1" "$2" "$3"
' sh "$here/small.py" "$agent" "$sweeps"
