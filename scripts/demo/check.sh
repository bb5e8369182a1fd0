# shellcheck shell=bash
# What `demo.sh --check` tries, once all of it runs. Part of demo.sh, which
# sources it.
# shellcheck disable=SC2154

# Said by agent and backend when the path works, after the log's prefix.
agent_says=(
    '🚀 Config sync loop started \(interval: [0-9.]+ min\)'
    "🔄 Fetching config from $backend_url/config/\.\.\."
    '✅ Config is up-to-date \(hash: [0-9a-f]{6}\.\.\.\)'
    '📥 Config changed! Updating from backend\.\.\.'
    '   Old hash: ([0-9a-f]{6}\.\.\.|none)'
    '   New hash: [0-9a-f]{6}\.\.\.'
    '✅ Config updated successfully! [0-9]+ devices configured\.'
    '📢 Config updated, collector will reload on next cycle'
)
backend_says="✅ Config sync endpoint called by site $site \(hash: [0-9a-f]{6}\.\.\.\)"

log_says() { grep -qE "$2\$" "$dir/$1.log"; }

# Whether this user may ping at all, by either kind of socket.
may_ping() {
    python3 - <<'PYTHON'
import socket, sys
for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
        sys.exit(0)
    except OSError:
        pass
sys.exit(1)
PYTHON
}

check_web() {
    say "Logging in to the web interface"
    state refused "$backend_url" "$web_user" || fail "a wrong password opens the web interface" backend
    state log_in "$backend_url" "$web_user" "$dir/web-password" "$dir/cookies" ||
        fail "the log-in as $web_user is refused" backend
    state web "$backend_url" "$dir/cookies" / "$site" || fail "the first page does not show the site $site" backend
    state web "$backend_url" "$dir/cookies" "/sites/$site_id" \
        'Projecteur Amphithéâtre' "$net.11" "/sites/$site_id/devices/new" ||
        fail "the page of the site $site does not show its devices" backend
}

# known IP STATUS WHAT: the agent found the device so, and the backend knows.
known() {
    until_true 120 "the agent has $3" state agent "$page_url" "$1" "$2"
    until_true 60 "the backend has $3" state backend "$backend_url" "$dir/cookies" "$site" "$1" "$2"
}

run_check() {
    local device ip status line log pinged=online
    if ! may_ping; then
        say "This user may not ping: the agent has to say so of the device that is pinged"
        pinged=unknown
    fi
    check_web

    say "Checking the equipment of the first run"
    for device in "$net.11 online" "$net.12 online" "$net.13 online" "$net.20 online" "$net.30 $pinged"; do
        read -r ip status <<<"$device"
        known "$ip" "$status" "$ip $status"
        say "  $ip is $status"
    done

    say "Adding a projector in SQL"
    sql -c "$new_device"
    known "$net.14" online "the new projector"
    until_true 60 "the agent says that its configuration is the backend's" state synced "$page_url"
    for line in "${agent_says[@]}"; do
        until_true 60 "agent.log has: $line" log_says agent "$line"
    done
    until_true 60 "backend.log has: $backend_says" log_says backend "$backend_says"

    say "Removing it"
    sql -c "$no_new_device"
    known "$net.14" absent "forgotten the projector"

    for log in agent backend setup; do
        if grep -qF -e "$token" -e "$(cat "$dir/web-password")" "$dir/$log.log"; then
            fail "the site's token or a password is in $log.log"
        fi
        if grep -qE 'ERROR|panicked' "$dir/$log.log"; then fail "$log.log has errors" "$log"; fi
    done
    all_alive
    say "✓ The demonstration works: the web interface opens, and a device added in SQL is watched, reported and known, and gone when it is removed."
}
