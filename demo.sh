#!/bin/bash
# The whole system on this machine, on simulated equipment: a private
# PostgreSQL, the backend with its web interface and one site, an SNMP agent,
# projectors that speak PJLink, and the agent that watches them.
#
#   ./demo.sh            starts it, says what to open, stops all on Ctrl-C
#   ./demo.sh --check    tries it by itself: logs in, adds a device in SQL,
#                        waits until agent and backend know its state, removes
#                        it again. It has its own data and ports, and may run
#                        beside a demonstration.
#   ./demo.sh --reset    forgets what earlier runs kept, and starts
#   --bin FOLDER         with any of these: runs av-agent and av-backend of that
#                        folder, and builds nothing
#
# It builds with cargo (Rust 1.85 or newer), takes the installed packages where
# there is none, and needs no release build. On Debian it installs what it
# lacks, as root or through sudo; elsewhere it names what is missing. Data is
# kept in .demo between runs. The environment moves what is in the way:
#
#   DEMO_BACKEND_PORT    8000    DEMO_PG_PORT       54329
#   DEMO_PAGE_PORT       8080    DEMO_PJLINK_PORT   4352
#   DEMO_DIR             .demo   DEMO_SNMP_PORT     1161
#   DEMO_NET             127.0.0 the simulated equipment's network
#   DEMO_LISTEN          127.0.0.1, where backend and status page listen
#   CARGO_TARGET_DIR     target, where the build goes
#   DEMO_BUILD_MB        2500    the free disk space that a first build wants
#   DEMO_DATA_MB         300     and that the data wants
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
# shellcheck source=scripts/demo/programs.sh
. "$root/scripts/demo/programs.sh"
# shellcheck source=scripts/demo/processes.sh
. "$root/scripts/demo/processes.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$root/demo.sh"; }

mode=show
programs=
while [ $# -gt 0 ]; do
    case $1 in
    --check) mode=check ;;
    --reset) mode=reset ;;
    --bin)
        [ $# -gt 1 ] || die "demo.sh: --bin takes a folder"
        shift
        programs=$1
        ;;
    --bin=*) programs=${1#--bin=} ;;
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
    shift
done

site=Demo
web_user='admin'
password=demo
community=demo

# --------------------------------------- what can be wrong, before the build

say "Looking at what is needed: programs, ports and disk space"
need_linux
find_programs "$programs"
if [ "$build" = yes ]; then
    install_missing "$root" missing_demo_build_packages
else
    install_missing "$root" missing_demo_packages
fi
cd "$root"
pg_bin=$(postgres_bin)

listen=${DEMO_LISTEN:-127.0.0.1}
pjlink_port=${DEMO_PJLINK_PORT:-4352}
snmp_port=${DEMO_SNMP_PORT:-1161}
sync_minutes=0.25
if [ "$mode" = check ]; then
    dir=$(mktemp -d "${TMPDIR:-/tmp}/av-demo-check-XXXXXX")
    ports=$(python3 scripts/demo/ports.py free 3) || die "python3 does not run here: $(python3 --version 2>&1)"
    read -r backend_port page_port pg_port <<<"$ports"
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
build_umask=$(umask)
umask 077
{ mkdir -p "$dir" && [ -w "$dir" ]; } || die "The data cannot be written to $dir. Set DEMO_DIR to a folder of yours."
# PostgreSQL's user must get through to its own folder; files are private.
chmod 711 "$dir"
dir=$(realpath "$dir")
pg_home=$dir

stop_all() {
    local status=$?
    trap '' INT TERM HUP
    # A terminal that is gone takes no words: that must not end this.
    set +e
    if [ "$mode" != check ] && [ ${#pids[@]} -gt 0 ]; then say "Stopping" 2>/dev/null; fi
    stop_processes
    if [ "$mode" = check ]; then
        rm -rf "$pg_home" "$dir"
    fi
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

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

# The folder of the database, for the user that runs it. A checkout in
# root's own folder is out of that user's reach: the database is then under
# /var/tmp, in a folder that belongs to this checkout.
if [ -n "$pg_user" ] && ! as_pg_user test -x "$dir"; then
    pg_home=/var/tmp/av-demo-$(id -u)-$(printf '%s' "$dir" | sha256sum | cut -c1-12)
fi
pg_dir=$pg_home/postgres

# What runs already has the ports too: said first.
exec 9>"$dir/lock"
flock -n 9 || die "A demonstration runs already on $dir."

if [ "$mode" = reset ]; then
    rm -rf "$pg_dir"
    find "$dir" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
fi

# An address that a browser can open.
case $listen in
0.0.0.0) reach=127.0.0.1 listens=0.0.0.0 ;;
*:*) reach="[$listen]" listens="[$listen]" ;;
*) reach=$listen listens=$listen ;;
esac
[ "$listen" != :: ] || reach='[::1]'
backend_url=http://$reach:$backend_port
page_url=http://$reach:$page_port

wanted_ports=("$listen:$backend_port:tcp:DEMO_BACKEND_PORT" "$listen:$page_port:tcp:DEMO_PAGE_PORT"
    "127.0.0.1:$pg_port:tcp:DEMO_PG_PORT" "$net.20:$snmp_port:udp:DEMO_SNMP_PORT")
for host in 11 12 13 14; do
    wanted_ports+=("$net.$host:$pjlink_port:tcp:DEMO_PJLINK_PORT")
done
python3 scripts/demo/ports.py check "${wanted_ports[@]}" || exit 1

if [ "$build" = yes ]; then
    target=$(target_folder)
    [ -w "$(existing "$target")" ] || die "The build cannot be written to $target. Set CARGO_TARGET_DIR to a folder of yours."
    check_disk "$pg_home" "$target"
else
    check_disk "$pg_home"
fi

# ------------------------------------------------------------------ build

if [ "$build" = yes ]; then
    say "Building the agent and the backend (some minutes the first time)"
    (umask "$build_umask" && exec python3 scripts/cargo_progress.py \
        cargo build --locked -p av-backend -p av-agent --bins)
    agent_bin=$target/debug/av-agent
    backend_bin=$target/debug/av-backend
fi

# What is set for other agents and backends of this machine is not for these.
unset "${!AV_@}" DATABASE_URL AGENT_CONFIG CONFIG_SYNC_INTERVAL_MIN
# Nor is what an installed unit sets, nor its user.
export AV_ENV_FILE=
# Each run has its own logs.
rm -f "$dir"/*.log

# ------------------------------------------------------------- PostgreSQL

# Under /var/tmp another user may have made it.
mkdir -p "$pg_home"
[ "$(stat -c %u "$pg_home")" = "$(id -u)" ] || die "$pg_home belongs to another user. Set DEMO_DIR to another folder."
chmod 711 "$pg_home"

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
    make_database() {
        (cd / && as_pg_user "$pg_bin/initdb" --username=av --auth=scram-sha-256 \
            --pwfile="$pg_home/initdb-password" --encoding=UTF8 --locale=C.UTF-8 -D "$pg_dir") \
            >"$dir/initdb.log" 2>&1
    }
    ticking initdb true make_database || fail "PostgreSQL's initdb failed" initdb
    rm "$pg_home/initdb-password"
fi
printf '127.0.0.1:*:*:av:%s\n' "$(cat "$dir/pg-password")" >"$dir/pgpass"

shared_memory=()
if ! as_pg_user test -w /dev/shm; then
    say "PostgreSQL cannot write to /dev/shm here, as in a bare chroot: it keeps what its processes share in files."
    shared_memory=(-c dynamic_shared_memory_type=mmap)
fi
[ -z "$pg_user" ] || as_user=(--reuid="$pg_user" --regid="$(id -g "$pg_user")" --init-groups)
start postgres INT "$pg_bin/postgres" -D "$pg_dir" -p "$pg_port" "${shared_memory[@]}" \
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

start projectors TERM python3 "$root/scripts/demo/projectors.py" "$net" "$pjlink_port" "$password"

# ---------------------------------------------------------------- backend

# A database on a machine that is busy may not answer in time at first.
again() {
    local try
    for try in 1 2 3 4 5; do
        if "$@"; then return 0; fi
        sleep "$try"
    done
    return 1
}
migrate() { "$backend_bin" migrate >>"$dir/setup.log" 2>&1; }
ticking "the schema" true again migrate || fail "the migration failed" setup
if ! [ -s "$dir/token" ]; then
    say "Creating the site $site"
    # A first run that was interrupted may have made the site and lost its token.
    add_site() {
        sql -c "DELETE FROM sites WHERE name = '$site'" &&
            "$backend_bin" site add "$site" --timezone Europe/Paris >"$dir/token.new" 2>>"$dir/setup.log"
    }
    ticking "the site" true again add_site || fail "site add failed" setup
    sql -v site="$site" -v net="$net" -v port="$pjlink_port" -v snmp_port="$snmp_port" \
        -v password="$password" -v community="$community" <"$root/scripts/demo/equipment.sql"
    mv "$dir/token.new" "$dir/token"
fi
token=$(cat "$dir/token")
site_id=$(sql -v site="$site" <<<"SELECT id FROM sites WHERE name = :'site'")

new_password=no
if ! [ -s "$dir/web-password" ]; then
    random_word | sed 's/^\(....\)\(....\)\(....\).*/\1-\2-\3/' >"$dir/web-password.new"
    give_password() {
        "$backend_bin" user "$@" "$web_user" --password-stdin <"$dir/web-password.new" >>"$dir/setup.log" 2>&1
    }
    # A first run that was interrupted may have made the user already.
    make_user() { give_password add --role admin || give_password password; }
    ticking "the user $web_user" true again make_user || fail "user add failed" setup
    mv "$dir/web-password.new" "$dir/web-password"
    new_password=yes
fi

AV_LISTEN=$listens:$backend_port start backend TERM "$backend_bin" serve

state() { python3 "$root/scripts/demo/state.py" "$@"; }
until_true 60 "the backend is healthy" state health "$backend_url"

# ------------------------------------------------------------------ agent

mkdir -p "$dir/agent"
python3 - "$dir/agent/config.json" "$site" "$backend_url" "$dir/token" <<'PYTHON'
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
    AV_PAGE_LISTEN=$listens:$page_port AV_FIRST_SYNC_S=2 CONFIG_SYNC_INTERVAL_MIN=$sync_minutes \
    start agent TERM "$agent_bin"

until_true 60 "the agent's page answers" state page "$page_url"

new_device="INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
SELECT id, 'Projecteur Salle 305', '$net.14', 'projector', 'pjlink', 'Bâtiment B', '3', 'Salle 305',
       '{\"pjlink\": {\"port\": $pjlink_port}}', '{\"always_on\": true, \"alert_after_s\": 60}'
  FROM sites WHERE name = '$site';"
no_new_device="DELETE FROM devices WHERE ip = '$net.14';"

# ---------------------------------------------------------- show or check

if [ "$mode" = check ]; then
    # shellcheck source=scripts/demo/check.sh
    . "$root/scripts/demo/check.sh"
    run_check
else
    # shellcheck source=scripts/demo/show.sh
    . "$root/scripts/demo/show.sh"
    show_demo
    wait_for_the_end
fi
