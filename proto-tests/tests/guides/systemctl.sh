#!/bin/bash
# systemd, as far as guides need it: units are those of systemd/, and a start
# ends when the program is ready, as with Type=notify.
set -euo pipefail
verb=$1
shift
now=
for word; do [ "$word" != --now ] || now=1; done

stop() {
    local pid
    [ -f "$ROOT/run/$1.pid" ] || return 0
    pid=$(cat "$ROOT/run/$1.pid")
    kill "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

# start UNIT INSTANCE
start() {
    local conf=$ROOT/etc/av-monitoring listen
    rm -f "$ROOT/run/listen"
    (
        set -a
        case $1 in
        av-backend*)
            AV_LISTEN=127.0.0.1:$PORT
            . "$conf/backend.env"
            [ -z "$2" ] || . "$conf/backend-$2.env"
            listen=$AV_LISTEN
            set -- av-backend serve
            ;;
        *)
            AGENT_CONFIG=$conf/agent/config.json
            AV_STATE_DIR=$ROOT/var/state
            AV_FIRST_SYNC_S=0
            CONFIG_SYNC_INTERVAL_MIN=0.02
            [ ! -f "$conf/agent.env" ] || . "$conf/agent.env"
            listen=$AV_PAGE_LISTEN
            set -- av-agent
            ;;
        esac
        echo "$listen" >"$ROOT/run/listen"
        exec setsid "$@"
    ) >"$ROOT/log/$1" 2>&1 </dev/null &
    echo $! >"$ROOT/run/$1.pid"
    for _ in $(seq 600); do
        if [ -s "$ROOT/run/listen" ]; then
            listen=$(cat "$ROOT/run/listen")
            if CURL_FAILS='' curl -sf -o /dev/null "http://$listen/health"; then
                rm "$ROOT/run/listen"
                return
            fi
        fi
        kill -0 $! 2>/dev/null || break
        sleep 0.2
    done
    echo "$1 did not start:" >&2
    cat "$ROOT/log/$1" >&2
    return 1
}

for word; do
    case $word in
    --*) continue ;;
    *@*) file=${word%@*}@.service instance=${word#*@} ;;
    *) file=$word.service instance= ;;
    esac
    [ -f "$WORKSPACE/systemd/$file" ] || { echo "no unit $word" >&2 && exit 5; }
    case $verb$now in
    enable) ;;
    enable1 | start) start "$word" "$instance" ;;
    restart) stop "$word" && start "$word" "$instance" ;;
    stop) stop "$word" ;;
    *) echo "$verb: not known here" >&2 && exit 1 ;;
    esac
done
