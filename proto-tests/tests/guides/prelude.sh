# Begins every script of a guide's test.
set -euo pipefail
export PATH="$PATH:$PG_BIN"
# What earlier scripts kept.
. "$ROOT/env.sh"
PASSWORD='correct horse battery'
CONF=$ROOT/etc/av-monitoring

# keep NAME VALUE: the further scripts of this guide have it, too.
keep() {
    printf 'export %s=%q\n' "$1" "$2" >>"$ROOT/env.sh"
    export "$1=$2"
}

# within COMMAND...: tries it until it ends well, two minutes long.
within() {
    local _
    for _ in $(seq 240); do
        "$@" && return
        sleep 0.5
    done
    echo "in vain for two minutes: $*" >&2
    return 1
}

# api_token USER: a token of a user whose password is PASSWORD.
api_token() {
    local csrf
    csrf=$(curl -s -c "$ROOT/jar" -H 'Content-Type: application/json' \
        -d "{\"name\": \"$1\", \"password\": \"$PASSWORD\"}" "$URL/login" | jq -er .csrf)
    curl -s -b "$ROOT/jar" -H 'Content-Type: application/json' -H "X-CSRF-Token: $csrf" \
        -d '{"name": "guides"}' "$URL/admin/tokens" | jq -er .token
}

# api [CURL'S ARGUMENTS] PATH: asks with TOKEN.
api() {
    CURL_FAILS=1 curl -s -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
        "${@:1:$#-1}" "$URL${*: -1}"
}

# office: a database, a backend, and its administrator "root".
office() {
    createdb av
    printf 'DATABASE_URL=%q\n' "$DATABASE_URL" >"$CONF/backend.env"
    av-backend user add root --role admin <<<"$PASSWORD"
    systemctl enable --now av-backend
    keep TOKEN "$(api_token root)"
}

# site: the site "Site Paris" with equipment, and its agent's configuration.
site() {
    keep SITE_TOKEN "$(av-backend site add "Site Paris" --timezone Europe/Paris)"
    psql -X -q -v ON_ERROR_STOP=1 "$DATABASE_URL" <<END
INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config)
SELECT s.id, d.* FROM sites s, (VALUES
  ('Projecteur Salle A', '$NET.40.10', 'projector', 'pjlink', 'A', '1', 'Salle 101', '{}'::jsonb),
  ('Projecteur Salle B', '$NET.40.11', 'projector', 'pjlink', 'A', '1', 'Salle 102',
   '{"pjlink": {"password": "not this"}}'),
  ('Vieux lecteur', '$NET.40.98', 'player', 'pjlink', 'A', '0', 'Hall', '{"pjlink": {"port": 70000}}')) AS d;
END
    cat >"$CONF/agent/config.json" <<END
{"site_name": "Site Paris", "site_token": "$SITE_TOKEN", "backend_url": "$URL"}
END
    daemon projector-a pjlink-sim --listen "$NET.40.10:4352" --lamp-hours 12 --error lamp=error
    daemon projector-b pjlink-sim --listen "$NET.40.11:4352" --password admin
}

# daemon NAME COMMAND...: runs it until the guide's test ends.
daemon() {
    setsid "${@:2}" >"$ROOT/log/$1" 2>&1 </dev/null &
    echo $! >"$ROOT/run/$1.pid"
}

# as_postgres COMMAND...: PostgreSQL's server does not run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        local user=postgres
        id -u $user >/dev/null 2>&1 || user=nobody
        (cd / && setpriv --reuid=$user --regid="$(id -g $user)" --clear-groups "$@")
    else
        "$@"
    fi
}

stop_all() {
    local file
    for file in "$ROOT"/run/*.pid; do
        [ ! -f "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true
    done
    if [ -n "${PGDATA:-}" ]; then
        as_postgres "$PG_BIN/pg_ctl" stop -m immediate -D "$PGDATA" >/dev/null 2>&1 || true
        rm -rf -- "$PGDATA"
    fi
}
