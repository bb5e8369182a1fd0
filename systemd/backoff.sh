#!/bin/sh
# Time between restarts that grows from one failure to the next, also with
# systemd before 254, which has no RestartSteps.
#
#   ExecStartPre=/usr/lib/av-monitoring/backoff wait
#   ExecStopPost=/usr/lib/av-monitoring/backoff note
#
# With RuntimeDirectory= and RuntimeDirectoryPreserve=restart: the count of
# failures in a row is in that folder. An orderly end forgets it, and so does a
# run of ten minutes.
set -u
folder=${RUNTIME_DIRECTORY:?}
count=0
[ ! -r "$folder/failures" ] || read -r count <"$folder/failures"
case $count in '' | *[!0-9]*) count=0 ;; esac

case ${1-} in
wait)
    seconds=0
    if [ "$count" -gt 0 ]; then
        # RestartSec is the first 2 s of each wait: 2, 4, 8, 16, 32, 60, 60, ...
        steps=$((count < 6 ? count : 6))
        seconds=$(((1 << steps) < 60 ? (1 << steps) : 60))
        seconds=$((seconds - 2))
    fi
    [ "$seconds" -eq 0 ] || echo "<5>failed $count time(s) in a row: starts in $seconds s"
    sleep "$seconds"
    date +%s >"$folder/started"
    ;;
note)
    if [ "${SERVICE_RESULT-}" = success ]; then
        rm -f "$folder/failures" "$folder/started"
        exit 0
    fi
    started=0
    [ ! -r "$folder/started" ] || read -r started <"$folder/started"
    case $started in '' | *[!0-9]*) started=0 ;; esac
    if [ "$started" -gt 0 ] && [ $(($(date +%s) - started)) -ge 600 ]; then
        count=0
    fi
    echo $((count + 1)) >"$folder/failures"
    ;;
*)
    echo "usage: backoff wait|note" >&2
    exit 2
    ;;
esac
