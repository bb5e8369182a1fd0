#!/bin/bash
# Checks the systemd units: how exposed they are, what they promise, and the
# growing time between restarts. No systemd need run.
#
#   scripts/test-units.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

if [ "${1-}" = --help ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi
most=1.5
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
status=0
wrong() {
    complain "✗ $*"
    status=1
}

# An instance for the template: without one it is no unit.
cp "$root/systemd/av-agent.service" "$root/systemd/av-backend.service" "$folder/"
cp "$root/systemd/av-backend@.service" "$folder/av-backend@1.service"

for unit in "$folder"/*.service; do
    name=${unit##*/}
    if command -v systemd-analyze >/dev/null; then
        level=$(systemd-analyze security --offline=yes --no-pager "$unit" 2>/dev/null |
            sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
        awk -v is="${level:-10}" -v most="$most" 'BEGIN { exit !(is <= most) }' ||
            wrong "$name: exposure ${level:-unknown}, more than $most"
        say "$name: exposure $level"
        # That the program is not installed here is no fault of the unit.
        if systemd-analyze verify "$unit" 2>&1 | grep -F "$name" | grep -v 'is not executable'; then
            wrong "$name: systemd-analyze verify complains"
        fi
    fi
    for setting in Type=notify WatchdogSec=60 Restart=always MemoryMax= TasksMax= \
        After=network-online.target Wants=network-online.target NoNewPrivileges=yes; do
        grep -q "^$setting" "$unit" || wrong "$name has no $setting"
    done
done
[ "$(grep '^AmbientCapabilities=' "$root/systemd/av-agent.service")" = AmbientCapabilities=CAP_NET_RAW ] ||
    wrong 'the agent has another capability than CAP_NET_RAW'

# The waits after each failure, with a sleep that only says how long.
mkdir "$folder/bin" "$folder/run"
cat >"$folder/bin/sleep" <<SLEEP
#!/bin/sh
echo "\$1" >>"$folder/slept"
SLEEP
chmod 755 "$folder/bin/sleep"
backoff() { RUNTIME_DIRECTORY=$folder/run PATH=$folder/bin:$PATH "$root/systemd/backoff.sh" "$@" >/dev/null; }
backoff wait
for _ in 1 2 3 4 5 6 7; do
    SERVICE_RESULT=watchdog backoff note
    backoff wait
done
# A run of ten minutes, then one that ended in order.
echo $(($(date +%s) - 601)) >"$folder/run/started"
SERVICE_RESULT=exit-code backoff note
backoff wait
SERVICE_RESULT=success backoff note
backoff wait
slept=$(tr '\n' ' ' <"$folder/slept")
[ "$slept" = '0 0 2 6 14 30 58 58 0 0 ' ] || wrong "the waits are $slept"
[ "$status" -ne 0 ] || say 'The units are as they should be.'
exit "$status"
