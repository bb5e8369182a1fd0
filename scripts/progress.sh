# shellcheck shell=bash
# Words while something takes its time, so that a person sees that it goes on.
# At a terminal it is one line, drawn again; elsewhere a line every few
# seconds. Part of scripts/lib.sh, which sources it.

# Seconds between two words. A step that ends just before its next word is
# followed by one that says nothing yet: the silence is at most twice as long.
progress_every=4

say() { printf '%s\n' "$*"; }

at_terminal() { [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; }

# Says how far it is; at a terminal in place of what it said before.
progress() {
    if at_terminal; then
        printf '\r%.*s\033[K' "$((${COLUMNS:-80} - 1))" "$*"
    else
        say "$*"
    fi
}

progress_end() { if at_terminal; then printf '\r\033[K'; fi; }

# ticking WHAT FUNCTION COMMAND...: runs the command and says meanwhile, every
# few seconds, how long that takes and what the function prints.
ticking() {
    local what=$1 detail=$2 status=0 ticker
    shift 2
    # The words are in the background, so that Ctrl-C reaches the command.
    tick "$what" "$detail" $$ &
    ticker=$!
    "$@" || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    progress_end
    return "$status"
}

tick() {
    local what=$1 detail=$2 parent=$3 began=$SECONDS said=$SECONDS
    # The script's own traps are for the script.
    trap - EXIT INT TERM HUP
    while sleep 1 && kill -0 "$parent" 2>/dev/null; do
        if [ $((SECONDS - said)) -ge "$progress_every" ]; then
            said=$SECONDS
            progress "  $what: $((SECONDS - began)) s$("$detail" | tail -n 1 | sed 's/^/, /')"
        fi
    done
}
