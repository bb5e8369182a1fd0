#!/bin/bash
# The whole system on this machine, on simulated equipment: a private
# PostgreSQL, the backend with one site, an SNMP agent, projectors that speak
# PJLink, and the agent that watches them.
#
#   ./demo.sh            starts it, says what to try, stops all on Ctrl-C
#   ./demo.sh --check    tries it by itself: adds a device in SQL, waits until
#                        agent and backend know its state, removes it again.
#                        It has its own data and ports, and may run beside a
#                        demonstration.
#   ./demo.sh --reset    forgets what earlier runs kept, and starts
#
# On Debian it installs what it lacks, as root or through sudo. Data is kept
# in .demo between runs. The environment moves what is in the way:
#
#   DEMO_BACKEND_PORT    8000    DEMO_PG_PORT       54329
#   DEMO_PAGE_PORT       8080    DEMO_PJLINK_PORT   4352
#   DEMO_DIR             .demo   DEMO_SNMP_PORT     1161
#   DEMO_NET             127.0.0 the simulated equipment's network
#   DEMO_LISTEN          127.0.0.1, where backend and status page listen
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$root/demo.sh"; }

mode=show
case ${1-} in
'') ;;
--check) mode=check ;;
--reset) mode=reset ;;
--help | -h)
    usage
    exit 0
    ;;
*)
    complain "demo.sh: there is no option $1"
    usage >&2
    exit 2
    ;;
esac

site=Demo
password=demo
community=demo

need_cargo
install_missing "$root" missing_demo_build_packages

# ------------------------------------------------------------------ build

cd "$root"
say "Building (this takes a few minutes the first time)"
cargo build --quiet --locked -p av-backend -p av-agent -p av-proto-tests --bins
target=$(cargo metadata --format-version 1 --no-deps --locked |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
bin=$target/debug
pg_bin=$(postgres_bin)

# ----------------------------------------------------- folders and ports

free_ports() {
    # Below the range from which outgoing connections take theirs.
    python3 - "$1" <<'PYTHON'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randint(20000, 32000)))
        held.append(s)
    except OSError:
        s.close()
print(*(s.getsockname()[1] for s in held))
PYTHON
}

listen=${DEMO_LISTEN:-127.0.0.1}
pjlink_port=${DEMO_PJLINK_PORT:-4352}
snmp_port=${DEMO_SNMP_PORT:-1161}
sync_minutes=0.25
if [ "$mode" = check ]; then
    dir=$(mktemp -d "${TMPDIR:-/tmp}/av-demo-check-XXXXXX")
    read -r backend_port page_port pg_port <<<"$(free_ports 3)"
    net=127.$((RANDOM % 200 + 20)).$((RANDOM % 250 + 1))
    listen=127.0.0.1
    sync_minutes=0.05
else
    dir=${DEMO_DIR:-$root/.demo}
    backend_port=${DEMO_BACKEND_PORT:-8000}
    page_port=${DEMO_PAGE_PORT:-8080}
    pg_port=${DEMO_PG_PORT:-54329}
    net=${DEMO_NET:-127.0.0}
fi
umask 077
mkdir -p "$dir"
# PostgreSQL's user must get through to its own folder; files are private.
chmod 711 "$dir"
dir=$(realpath "$dir")

# PostgreSQL refuses to run as root.
pg_user=
if [ "$(id -u)" -eq 0 ]; then
    pg_user=nobody
    if id postgres >/dev/null 2>&1; then pg_user=postgres; fi
fi

as_pg_user() {
    if [ -z "$pg_user" ]; then
        "$@"
    else
        setpriv --reuid="$pg_user" --regid="$(id -g "$pg_user")" --init-groups -- "$@"
    fi
}

# The folder of the database, made for the user that runs it. A checkout in
# root's own folder is out of that user's reach: the database is then under
# /var/tmp, in a folder that belongs to this checkout.
pg_home=$dir
if [ -n "$pg_user" ] && ! as_pg_user test -x "$dir"; then
    pg_home=/var/tmp/av-demo-$(id -u)-$(printf '%s' "$dir" | sha256sum | cut -c1-12)
    mkdir -p "$pg_home"
    [ "$(stat -c %u "$pg_home")" = "$(id -u)" ] || die "$pg_home belongs to somebody else. Set DEMO_DIR to another folder."
    chmod 711 "$pg_home"
fi
pg_dir=$pg_home/postgres

exec 9>"$dir/lock"
flock -n 9 || die "A demonstration runs already on $dir."

if [ "$mode" = reset ]; then
    rm -rf "$pg_dir"
    find "$dir" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
fi

# ------------------------------------------------------------- processes

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

stop_all() {
    local status=$? i signal tries
    trap '' INT TERM HUP
    # A terminal that is gone takes no words: that must not end this.
    set +e
    if [ "$mode" != check ] && [ ${#pids[@]} -gt 0 ]; then say "Stopping" 2>/dev/null; fi
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
    if [ "$mode" = check ]; then
        rm -rf "$pg_home" "$dir"
    fi
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

log_tail() {
    local name=$1
    [ -s "$dir/$name.log" ] || return 0
    complain "── the end of $name.log"
    tail -n 15 "$dir/$name.log" >&2
}

fail() {
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
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@"; do
        all_alive
        [ "$SECONDS" -lt "$end" ] || fail "after $seconds s still not: $what" agent backend postgres
        sleep 0.2
    done
}

need_port() {
    local address=$1 port=$2 kind=$3 variable=$4
    python3 - "$address" "$port" "$kind" <<'PYTHON' || die "Port $port of $address is taken. Stop what uses it, or choose another: $variable=$((port + 1)) ./demo.sh"
import socket, sys
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.socket(type=getattr(socket, kind))
if kind == "SOCK_STREAM":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    s.bind((address, port))
except OSError:
    sys.exit(1)
PYTHON
}

need_port "$listen" "$backend_port" SOCK_STREAM DEMO_BACKEND_PORT
need_port "$listen" "$page_port" SOCK_STREAM DEMO_PAGE_PORT
need_port 127.0.0.1 "$pg_port" SOCK_STREAM DEMO_PG_PORT
for host in 11 12 13 14; do
    need_port "$net.$host" "$pjlink_port" SOCK_STREAM DEMO_PJLINK_PORT
done
need_port "$net.20" "$snmp_port" SOCK_DGRAM DEMO_SNMP_PORT

# Each run has its own logs.
rm -f "$dir"/*.log

# ------------------------------------------------------------- PostgreSQL

random_word() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

if ! as_pg_user test -e "$pg_dir/PG_VERSION"; then
    say "Creating the database"
    if ! [ -e "$dir/pg-password" ]; then
        random_word >"$dir/pg-password.new"
        mv "$dir/pg-password.new" "$dir/pg-password"
    fi
    # What an interrupted first run left is no database.
    rm -rf "$pg_dir"
    mkdir "$pg_dir"
    # A copy that PostgreSQL's user can read.
    cat "$dir/pg-password" >"$pg_home/initdb-password"
    [ -z "$pg_user" ] || chown "$pg_user" "$pg_dir" "$pg_home/initdb-password"
    (cd / && as_pg_user "$pg_bin/initdb" --username=av --auth=scram-sha-256 \
        --pwfile="$pg_home/initdb-password" --encoding=UTF8 --locale=C.UTF-8 -D "$pg_dir") \
        >"$dir/initdb.log" 2>&1 || fail "PostgreSQL's initdb failed" initdb
    rm "$pg_home/initdb-password"
fi
printf '127.0.0.1:*:*:av:%s\n' "$(cat "$dir/pg-password")" >"$dir/pgpass"

[ -z "$pg_user" ] || as_user=(--reuid="$pg_user" --regid="$(id -g "$pg_user")" --init-groups)
start postgres INT "$pg_bin/postgres" -D "$pg_dir" -p "$pg_port" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories=

sql() {
    PGPASSFILE=$dir/pgpass psql -X -q -A -t -v ON_ERROR_STOP=1 \
        -h 127.0.0.1 -p "$pg_port" -U av -d "${database:-av}" "$@"
}
database_is_up() { database=postgres sql -c 'SELECT 1' >/dev/null 2>&1; }
until_true 60 "PostgreSQL answers" database_is_up
if [ -z "$(database=postgres sql -c "SELECT 1 FROM pg_database WHERE datname = 'av'")" ]; then
    database=postgres sql -c 'CREATE DATABASE av'
fi
DATABASE_URL=postgresql://av:$(cat "$dir/pg-password")@127.0.0.1:$pg_port/av
export DATABASE_URL

# -------------------------------------------------------------- equipment

cat >"$dir/snmpd.conf" <<CONF
rocommunity $community 127.0.0.0/8
sysName baie-av
sysLocation Local technique, bâtiment A
sysContact exploitation@example.org
sysDescr Commutateur de démonstration (net-snmp)
CONF
export SNMP_PERSISTENT_DIR=$dir/snmp MIBS=
mkdir -p "$SNMP_PERSISTENT_DIR"
start snmpd TERM snmpd -f -r -Lo -C -c "$dir/snmpd.conf" "udp:$net.20:$snmp_port"

start projector-1 TERM "$bin/pjlink-sim" --listen "$net.11:$pjlink_port" --password "$password" \
    --lamp-hours 1234 --name 'Amphithéâtre Ampère' --manufacturer EXEMPLE --product 'PJ-9000'
start projector-2 TERM "$bin/pjlink-sim" --listen "$net.12:$pjlink_port" --power standby \
    --lamp-hours 310 --name 'Salle 101' --manufacturer EXEMPLE --product 'PJ-300' --sleeps-in-standby
start projector-3 TERM "$bin/pjlink-sim" --listen "$net.13:$pjlink_port" --error lamp=error \
    --error filter=warning --lamp-hours 4980 --name 'Salle 204' --manufacturer EXEMPLE --product 'PJ-300'
# Not in the database: it waits for a technician to enter it.
start projector-new TERM "$bin/pjlink-sim" --listen "$net.14:$pjlink_port" \
    --lamp-hours 2 --name 'Salle 305' --manufacturer EXEMPLE --product 'PJ-300'

# ---------------------------------------------------------------- backend

if ! [ -s "$dir/token" ]; then
    say "Creating the site $site"
    "$bin/av-backend" migrate >>"$dir/setup.log" 2>&1 || fail "the migration failed" setup
    # A first run that was interrupted may have made the site and lost its token.
    sql -c "DELETE FROM sites WHERE name = '$site'"
    "$bin/av-backend" site add "$site" --timezone Europe/Paris >"$dir/token.new" 2>>"$dir/setup.log" ||
        fail "site add failed" setup
    sql -v site="$site" -v net="$net" -v port="$pjlink_port" -v snmp_port="$snmp_port" \
        -v password="$password" -v community="$community" <"$root/scripts/demo.sql"
    mv "$dir/token.new" "$dir/token"
fi
token=$(cat "$dir/token")

AV_LISTEN=$listen:$backend_port start backend TERM "$bin/av-backend" serve

health_is_ok() { python3 "$root/scripts/demo_state.py" health "http://$listen:$backend_port"; }
until_true 60 "the backend is healthy" health_is_ok

# ------------------------------------------------------------------ agent

mkdir -p "$dir/agent"
python3 - "$dir/agent/config.json" "$site" "http://$listen:$backend_port" "$dir/token" <<'PYTHON'
import json, os, sys
path, site, url, token_file = sys.argv[1:]
token = open(token_file).read().strip()
try:
    config = json.load(open(path))
except FileNotFoundError:
    config = {
        "site_name": site,
        "timezone": "Europe/Paris",
        "doubt_after_days": 2,
        "reporting": {"ok_interval_s": 60, "ko_interval_s": 15},
        "devices": [],
    }
wanted = {**config, "site_token": token, "backend_url": url}
if wanted != config:
    with open(path + ".new", "w") as file:
        json.dump(wanted, file, ensure_ascii=False, indent=2)
    os.replace(path + ".new", path)
PYTHON

AGENT_CONFIG=$dir/agent/config.json AV_STATE_DIR=$dir/agent/state \
    AV_PAGE_LISTEN=$listen:$page_port AV_FIRST_SYNC_S=2 CONFIG_SYNC_INTERVAL_MIN=$sync_minutes \
    start agent TERM "$bin/av-agent"

backend_url=http://$listen:$backend_port
page_url=http://$listen:$page_port

page_is_up() { python3 "$root/scripts/demo_state.py" page "$page_url"; }
until_true 60 "the agent's page answers" page_is_up

new_device="INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
SELECT id, 'Projecteur Salle 305', '$net.14', 'projector', 'pjlink', 'Bâtiment B', '3', 'Salle 305',
       '{\"pjlink\": {\"port\": $pjlink_port}}', '{\"always_on\": true, \"alert_after_s\": 60}'
  FROM sites WHERE name = '$site';"
no_new_device="DELETE FROM devices WHERE ip = '$net.14';"

# ------------------------------------------------------------------- show

if [ "$mode" != check ]; then
    cat <<TEXT

The demonstration runs. Ctrl-C stops all of it; data stays in ${dir#"$root"/}.

  Status page of the agent   $page_url/
  Backend                    $backend_url/devices?site=$site
                             $backend_url/health
  Logs                       ${dir#"$root"/}/agent.log, ${dir#"$root"/}/backend.log
  Database                   PGPASSFILE=$dir/pgpass psql -h 127.0.0.1 -p $pg_port -U av av

A new projector waits at $net.14. Enter it in the database, and within 15
seconds the agent watches it:

$new_device

And take it out again:

$no_new_device

TEXT
    stopped=
    wait -n -p stopped "${pids[@]}" || true
    for i in "${!pids[@]}"; do
        [ "${pids[i]}" != "$stopped" ] || fail "${names[i]} has stopped by itself" "${names[i]}"
    done
    exit 1
fi

# ------------------------------------------------------------------ check

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

state() { python3 "$root/scripts/demo_state.py" "$@"; }
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
pinged=online
if ! may_ping; then
    say "This user may not ping: the agent has to say so of the device that is pinged"
    pinged=unknown
fi

say "Checking the equipment of the first run"
for device in "$net.11 online" "$net.12 online" "$net.13 online" "$net.20 online" "$net.30 $pinged"; do
    read -r ip status <<<"$device"
    until_true 120 "the agent finds $ip $status" state agent "$page_url" "$ip" "$status"
    until_true 60 "the backend has $ip $status" state backend "$backend_url" "$site" "$ip" "$status"
done

say "Adding a projector in SQL"
sql -c "$new_device"
until_true 120 "the agent reports the new projector" state agent "$page_url" "$net.14" online
until_true 60 "the backend has the new projector's state" state backend "$backend_url" "$site" "$net.14" online
until_true 60 "the agent says that its configuration is the backend's" state synced "$page_url"
for line in "${agent_says[@]}"; do
    until_true 60 "agent.log has: $line" log_says agent "$line"
done
until_true 60 "backend.log has: $backend_says" log_says backend "$backend_says"

say "Removing it"
sql -c "$no_new_device"
until_true 120 "the agent has forgotten the projector" state agent "$page_url" "$net.14" absent
until_true 60 "the backend has forgotten the projector" state backend "$backend_url" "$site" "$net.14" absent

for log in agent backend; do
    if grep -qF -e "$token" "$dir/$log.log"; then fail "the site's token is in $log.log"; fi
    if grep -qE 'ERROR|panicked' "$dir/$log.log"; then fail "$log.log has errors" "$log"; fi
done
all_alive
say "✓ The demonstration works: a device added in SQL is watched, reported and known, and gone when it is removed."
