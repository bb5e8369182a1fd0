# shellcheck shell=bash
# Starts the demonstration's processes, waits for them and stops them. Part of
# demo.sh, which sources it; `dir` is the folder of their logs.
# shellcheck disable=SC2154

# Names and ids of what runs, in the order in which it was started.
names=()
pids=()

# start NAME SIGNAL COMMAND...: SIGNAL ends it when this script dies, however
# it dies. A session of its own keeps Ctrl-C from it: this script stops its
# children one by one, the database last.
start() {
    local name=$1 signal=$2
    shift 2
    (
        cd /
        exec setsid setpriv "${as_user[@]}" --pdeathsig "$signal" -- "$@" \
            </dev/null >>"$dir/$name.log" 2>&1 9>&-
    ) &
    names+=("$name")
    pids+=($!)
    as_user=()
}
as_user=()

alive() { kill -0 "$1" 2>/dev/null; }

# Stops all, the last one first.
stop_processes() {
    local i signal tries
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        signal=TERM
        [ "${names[i]}" != postgres ] || signal=INT
        kill -"$signal" "${pids[i]}" 2>/dev/null || continue
        for ((tries = 0; tries < 200; tries++)); do
            alive "${pids[i]}" || break
            sleep 0.05
        done
        if alive "${pids[i]}"; then
            complain "${names[i]} does not stop: killed"
            kill -KILL "${pids[i]}" 2>/dev/null || true
        fi
        wait "${pids[i]}" 2>/dev/null || true
    done
}

log_tail() {
    local name=$1
    [ -s "$dir/$name.log" ] || return 0
    complain "── the end of $name.log"
    tail -n 15 "$dir/$name.log" >&2
}

# fail WHAT LOG...: ends the script with the ends of these logs.
fail() {
    progress_end
    complain "✗ $1"
    shift
    local name
    for name in "$@"; do log_tail "$name"; done
    exit 1
}

# Ends the script when something that should run does not.
all_alive() {
    local i
    for i in "${!pids[@]}"; do
        alive "${pids[i]}" || fail "${names[i]} has stopped by itself" "${names[i]}"
    done
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local seconds=$1 what=$2 began=$SECONDS said=$SECONDS
    shift 2
    until "$@"; do
        all_alive
        [ $((SECONDS - began)) -lt "$seconds" ] ||
            fail "after $seconds s still not: $what" agent backend postgres
        # shellcheck disable=SC2154  # of progress.sh
        if [ $((SECONDS - said)) -ge "$progress_every" ]; then
            said=$SECONDS
            progress "  waiting until $what: $((SECONDS - began)) s"
        fi
        sleep 0.2
    done
    progress_end
}
