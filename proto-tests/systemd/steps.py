"""What is done with each block of the guides, in the order of a reader who sets
up a backend, a proxy and an agent on one machine."""

from dataclasses import dataclass, field

ADMIN = "docs/administration.md"
TECHNICIAN = "docs/technician.md"
TLS = "docs/tls.md"
TROUBLE = "docs/troubleshooting.md"

PASSWORD = "correct horse battery"

# What a reader puts in place of the guides' words, in every block. Everything
# else is run as it is there.
SUBSTITUTIONS = [
    ("_VERSION_amd64.deb", "_0.0.1_$(dpkg --print-architecture).deb"),
    ("_VERSION_arm64.deb", "_0.0.1_$(dpkg --print-architecture).deb"),
    ("ABCDE-FGHJK", "$CODE"),
]


@dataclass
class Do:
    """Runs the block of a guide in which this text stands, and no other."""

    guide: str
    mark: str
    # What is put in place of what in this block alone, and why it has to be.
    swaps: list = field(default_factory=list)
    # What must be printed.
    shows: list = field(default_factory=list)
    exits: tuple = (0,)
    # Typed on a terminal: answers to questions, and until when it goes on.
    answers: list = field(default_factory=list)
    until: str | None = None
    # Variables that further commands have, out of what is printed.
    keeps: dict = field(default_factory=dict)
    # What the reader does before the last command of a session.
    between: str = ""
    # The block is what a file has, or has at its end.
    into: str | None = None
    onto: str | None = None


@dataclass
class Check:
    """Looks at what came of it, or sees to what the guide leaves to the reader."""

    name: str
    script: str
    shows: list = field(default_factory=list)
    # The name of a variable that further steps have, with what it prints.
    keep: str | None = None
    # Tried until it ends well.
    wait: bool = False
    exits: tuple = (0,)


def api(request, what=""):
    return f"""curl -sS --fail-with-body -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' {what} "$URL{request}" """


SIGN_IN = """
csrf=$(curl -s -c jar -H 'Content-Type: application/json' -d "{\\"name\\": \\"anna\\", \\"password\\": \\"$PASSWORD\\"}" "$URL/login" | jq -er .csrf)
curl -s -b jar -H 'Content-Type: application/json' -H "X-CSRF-Token: $csrf" -d '{"name": "guides"}' "$URL/admin/tokens" | jq -er .token
"""

OFFICE = [
    Do(ADMIN, "createuser av-backend"),
    Do(ADMIN, "apt install ./av-backend", shows=["av-backend"]),
    Do(ADMIN, "#AV_LISTEN=0.0.0.0:8000", into="/etc/av-monitoring/backend.env"),
    Do(ADMIN, "systemctl enable --now av-backend\n", shows=["ok"]),
    Check("the backend runs", "systemctl is-active av-backend; systemctl is-enabled av-backend", shows=["active\nenabled"]),
    Check("the settings are root's", "stat -c '%U %a' /etc/av-monitoring/backend.env", shows=["root 600"]),
    Check("the link of the first user", "journalctl -u av-backend", shows=["There is no user yet. Make the first one here: "]),
]

USERS = [
    Check("a password in a file", 'printf "%s\\n" "$PASSWORD" >file'),
    Do(ADMIN, "av-backend user add paul --generate",
       # The same user is not added twice.
       swaps=[("anna --role admin <file", "berta --role admin <file")],
       answers=[("Password of", PASSWORD), ("The same again", PASSWORD), ("Password of", PASSWORD), ("The same again", PASSWORD)],
       shows=["anna", "berta", "paul"]),
    Check("it listens", "echo http://127.0.0.1:8000", keep="URL"),
    Check("the settings have its password", SIGN_IN, keep="TOKEN"),
    Do(ADMIN, '"nightly export"', swaps=[("tokens/1", "tokens/$EXPORT")], keeps={"EXPORT": r'"id":(\d+)'}, shows=['"name":"nightly export","token":"avt_']),
]

# The proxy, with an authority of one's own. `av.example.org` is this machine.
PROXY = [
    Check("the name of the proxy", "echo 127.0.0.1 av.example.org backend.example.org >>/etc/hosts"),
    Do(TLS, "-keyout av-ca.key"),
    Do(TLS, "-keyout privkey.pem"),
    Check("the authority is one of this system",
          "cp av-ca.pem /usr/local/share/ca-certificates/av-ca.crt && update-ca-certificates", shows=["1 added"]),
    Do(TLS, "install -d -m 755 /etc/ssl/av"),
    Do(TLS, "AV_LISTEN=127.0.0.1:8000", onto="/etc/av-monitoring/backend.env"),
    Do(TLS, "--retry-connrefused https://av.example.org/health", shows=["syntax is ok"]),
    Check("the backend is reached through the proxy alone",
          "curl -sf --cacert av-ca.pem https://av.example.org/health; "
          "ss -Hltn sport = :8000; curl -s -o /dev/null -w '%{http_code}\n' --cacert av-ca.pem https://av.example.org/metrics",
          shows=["127.0.0.1:8000", "200"]),
    Check("the public address", "echo https://av.example.org", keep="URL"),
    Check("a session's cookie is bound to this host",
          'curl -si -H "Content-Type: application/json" -d "{\\"name\\": \\"anna\\", \\"password\\": \\"$PASSWORD\\"}" "$URL/login"',
          shows=["__Host-av_session"]),
]

# The site's network: projectors, a switch and an uninterruptible supply, in a
# network namespace behind a pair of interfaces.
NETWORK = [
    Check("the rack's network", """
ip netns add rack
ip link add rack type veth peer name eth0 netns rack
ip address add 192.168.40.2/24 dev rack
ip address add 192.168.1.4/24 dev rack
ip link set rack up
ip -n rack link set lo up
ip -n rack link set eth0 up
for address in 192.168.40.10 192.168.40.11 192.168.40.20 192.168.1.10; do
    ip -n rack address add $address/24 dev eth0
done
systemd-run --quiet --unit=projector-a -p NetworkNamespacePath=/run/netns/rack \\
    /root/pjlink-sim --listen 192.168.40.10:4352 --lamp-hours 12 --error lamp=error
systemd-run --quiet --unit=projector-b -p NetworkNamespacePath=/run/netns/rack \\
    /root/pjlink-sim --listen 192.168.40.11:4352 --password admin
systemd-run --quiet --unit=projector-c -p NetworkNamespacePath=/run/netns/rack \\
    /root/pjlink-sim --listen 192.168.1.10:4352 --password new
printf 'agentaddress udp:192.168.40.20:161\\nrocommunity public\\nsysdescr APC Web/SNMP Management Card\\n' >supply.conf
systemd-run --quiet --unit=supply -p NetworkNamespacePath=/run/netns/rack \\
    snmpd -f -Lo -C -c /root/supply.conf
"""),
]

# In SQL.
EQUIPMENT = [
    # Typed, and left again.
    Do(ADMIN, "sudo -u av-backend psql", answers=[("av=>", "\\q")]),
    Do(ADMIN, "token = 'another-long-random-text'", shows=["UPDATE 0"]),
    Do(ADMIN, "'a-long-random-text'", shows=["INSERT 0 1", "UPDATE 1"]),
    Do(ADMIN, "'Projecteur Salle A', '192.168.1.10'", shows=["INSERT 0 1"]),
    Do(ADMIN, "'Commutateur'", shows=["INSERT 0 1\nINSERT 0 1"]),
    Do(ADMIN, "jsonb_set", shows=["UPDATE 1\nUPDATE 1\nDELETE 1"]),
]

RACK = [
    Do(TECHNICIAN, "apt install ./av-agent", shows=["av-agent"]),
    Check("the agent's configuration", """
cat >/etc/av-monitoring/agent/config.json <<'END'
{
  "site_name": "Site Paris",
  "site_token": "a-long-random-text",
  "backend_url": "https://av.example.org"
}
END
"""),
    Do(TECHNICIAN, "chmod 600 /etc/av-monitoring/agent/config.json"),
    Do(TECHNICIAN, "journalctl -u av-agent -f", until="Config updated successfully! 2 devices configured"),
    Check("it is started at each boot", "systemctl is-enabled av-agent; systemctl is-active av-agent", shows=["enabled\nactive"]),
]


# The devices of the technician's examples.
AT_THE_RACK = [
    Check("the devices of the rack", """
. /etc/av-monitoring/backend.env
sudo -u av-backend psql "$DATABASE_URL" -X -q -v ON_ERROR_STOP=1 <<'END'
INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config)
SELECT s.id, d.* FROM sites s, (VALUES
  ('Projecteur Salle A', '192.168.40.10', 'projector', 'pjlink', 'A', '1', 'Salle 101', '{}'::jsonb),
  ('Projecteur Salle B', '192.168.40.11', 'projector', 'pjlink', 'A', '1', 'Salle 102', '{"pjlink": {"password": "not this"}}'),
  ('Onduleur baie', '192.168.40.20', 'ups', 'snmp', 'A', '0', 'Baie', '{}'),
  ('Ecran Hall', '192.168.40.99', 'display', 'ping', 'A', '0', 'Hall', '{}'),
  ('Vieux lecteur', '192.168.40.98', 'player', 'pjlink', 'A', '0', 'Hall', '{"pjlink": {"port": 70000}}')) AS d;
END
curl -s -X POST http://127.0.0.1:8080/api/sync || true
systemctl restart av-agent
"""),
    Check("the agent has asked all of them",
          "av-agent status | tee status.txt; grep -q ERRA status.txt && grep -q 'Onduleur baie' status.txt && "
          "grep -q '192.168.40.99 .*ping  *[0-9]' status.txt", wait=True),
    Do(TECHNICIAN, "$ av-agent status", exits=(0, 1), shows=[
        "Site Paris av-agent ", "⚠ Vieux lecteur (192.168.40.98) is not watched: driver_config.pjlink.port: 70000 is not a port (1 to 65535)",
        "VERDICT  NAME ", "on, lamp error", "authentication failed (ERRA): check the password",
        "Ecran Hall "]),
    Do(TECHNICIAN, "sudo av-agent check", exits=(1,), shows=[
        "judged is what the user av-agent may", "over a raw socket: the unit grants CAP_NET_RAW",
        "✓ configuration  /etc/av-monitoring/agent/config.json: Site Paris, ",
        "✗ devices        Vieux lecteur (192.168.40.98): driver_config.pjlink.port: 70000 is not a port (1 to 65535)",
        "→ put it right in the backend: until then it is not watched", "is for its owner only",
        "✓ status page    the agent is running on 0.0.0.0:8080", "✓ time zone      Europe/Paris: it is ", " to put right, "]),
    Do(TECHNICIAN, "AV_PW=admin av-agent probe", exits=(0, 1), shows=[
        "→ 192.168.40.11 (digest)%1POWR ?", "192.168.40.11 (pjlink): online, on, lamp 0 h",
        "192.168.40.99 (pjlink): offline, "]),
    Check("a configuration to sweep", 'curl -s -H "Authorization: Bearer a-long-random-text" "$URL/config" >site.json'),
    Do(TECHNICIAN, "$ av-agent sweep site.json", shows=[
        "STATUS    IP ", "Projecteur Salle A", "rejected  192.168.40.98", " 1 rejected"]),
    Do(TECHNICIAN, "$ av-agent discover", shows=[
        "IP             DRIVER  ACCESS ", "192.168.40.10  pjlink ", "SIMULATED  PJ-1", "192.168.40.20  snmp", "4 found at 254 addresses"]),
]


SUGGESTED = [
    Check("equipment is found", "av-agent discover 192.168.40.0/28 --search-wait 0 --suggest"),
    Check("the number of what was found", api("/admin/suggestions?site=Site+Paris") + " | jq -er '.suggestions[0].id'", keep="FOUND"),
    Check("the address of the backend", "echo $URL", keep="BACKEND"),
    Do(ADMIN, "/admin/suggestions/7/accept", swaps=[("suggestions/7/", "suggestions/$FOUND/")]),
]

IN_AND_OUT = [
    # The tag of what a dry run showed, which the guide has as "r4".
    Check("what is exported, tried", """
curl -s -H "Authorization: Bearer $TOKEN" -o tried.csv "$URL/admin/export?site_id=1&format=csv"
curl -s -D - -o /dev/null -H "Authorization: Bearer $TOKEN" -H 'Content-Type: text/csv' \\
    --data-binary @tried.csv "$URL/admin/import?site_id=1&dry_run=1" | tr -d '\\r' | sed -n 's/^etag: //Ip'
""", keep="SEEN"),
    Do(ADMIN, "-OJ", swaps=[("-H 'If-Match: \"r4\"'", '-H "If-Match: $SEEN"')], shows=['"dry_run":true', '"dry_run":false']),
    Do(ADMIN, "mode=replace&dry_run=1", shows=['"removed":[]']),
    Check("a change in SQL", """
. /etc/av-monitoring/backend.env
sudo -u av-backend psql "$DATABASE_URL" -X -c "UPDATE devices SET room = 'Salle 103' WHERE ip = '192.168.1.10'"
""", shows=["UPDATE 1"]),
    Check("the newest version", api("/admin/sites/1/versions") + " | jq -e '.versions[0].revision'", keep="NEWEST"),
    Check("the version before it", api("/admin/sites/1/versions") + " | jq -e '.versions[1].revision'", keep="BEFORE"),
    Do(ADMIN, "/versions/2/diff/3", swaps=[("versions/2/diff/3", "versions/$BEFORE/diff/$NEWEST")],
       shows=['"origin":"sql"', '"field":"room","before":"Salle 102","after":"Salle 103"']),
    Do(ADMIN, "/versions/2/rollback", swaps=[("'If-Match: \"3\"'", '"If-Match: \\"$NEWEST\\""'), ("versions/2/", "versions/$BEFORE/")],
       shows=['{"revision":', '"changed":1']),
    Do(ADMIN, 'curl -s -H "Authorization: Bearer $TOKEN" $URL/admin/sites/1/agent\n', shows=['"state":']),
]

# An agent that has nothing: a new memory card.
EMPTY_CARD = Check("a memory card without a configuration",
                   "systemctl disable --now av-agent; rm -f /etc/av-monitoring/agent/config.json*")
# What it has logged since its last start.
LOGGED = 'journalctl -u av-agent "_SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID av-agent)" | grep '
RUNS = [
    Check("the agent starts", "systemctl restart av-agent"),
    Check("its token is taken", LOGGED + "'Config is up-to-date\\|Config updated'", wait=True),
]

TOKENS = [
    EMPTY_CARD,
    Do(ADMIN, "av-agent enroll https://av.example.org", keeps={"CODE": '"code":"([A-Z0-9-]+)"'}, shows=['"valid_until":"', "Site Paris"]),
    Check("the token is the agent's alone", "stat -c '%U %a' /etc/av-monitoring/agent/config.json", shows=["av-agent 600"]),
    *RUNS,
    EMPTY_CARD,
    Check("another code", api("/admin/sites/1/enrolment", "-X POST") + " | jq -er .code", keep="CODE"),
    Do(TROUBLE, "sudo av-agent enroll", shows=["Site Paris"]),
    *RUNS,
    Do(ADMIN, '{"old_valid_until":"2026-12-01T11:09:59.497103Z","token"', shows=['"old_valid_until":', '"token":"']),
    Do(ADMIN, '"taken_over_at":null', shows=['"old_valid_until":']),
    Do(ADMIN, '"grace_s": 0', keeps={"SITE_TOKEN": '"token":"([^"]+)"'}),
    Check("the agent starts with its old token", "systemctl restart av-agent"),
    Check("that has ended", LOGGED + "'404\\|401'", wait=True),
    Check("the new one is brought to the agent", """
systemctl stop av-agent
config=/etc/av-monitoring/agent/config.json
jq --arg token "$SITE_TOKEN" '.site_token = $token' $config >new.json && cat new.json >$config
"""),
    *RUNS,
]

MESSAGES = [
    Do(ADMIN, '"reason": "new cables"', swaps=[("2026-12-01T18:00:00Z", "'$(date -u -d tomorrow +%FT%TZ)'")], shows=["new cables"]),
    Do(ADMIN, '"recipients": ["ops@example.org"]', shows=["Ops"]),
    Check("an authority of the mail server", "cp av-ca.pem /etc/av-monitoring/mail-ca.pem"),
    Do(ADMIN, "AV_SMTP_CA=", onto="/etc/av-monitoring/backend.env"),
    Do(ADMIN, "AV_BEHIND_TLS=1", onto="/etc/av-monitoring/backend.env"),
    Check("the backend takes both", "systemctl restart av-backend; curl -sf --retry 8 $URL/health"),
]

OBSERVED = [
    Do(ADMIN, "FROM device_current t"),
    Do(ADMIN, "FROM device_days"),
    Do(ADMIN, "SET alert_severity = 'warning'", shows=["UPDATE"]),
]

SYMPTOMS = [
    Do(TROUBLE, "av-agent status --problems", exits=(0, 1), shows=["→ put it right in the backend", "Vieux lecteur"]),
    Do(TROUBLE, "--from-config -v", shows=["%1POWR ?", "192.168.1.10 (pjlink): online, on"]),
    Do(TROUBLE, "/admin/sites/1/agent", shows=['"state":', "Config sync endpoint called by site Site Paris"]),
    Check("the invalid device is gone", """
. /etc/av-monitoring/backend.env
sudo -u av-backend psql "$DATABASE_URL" -X -c "DELETE FROM devices WHERE name = 'Vieux lecteur'"
"""),
    Do(TROUBLE, "av-backend check-config"),
    Check("a wrong password", """
curl -s -o /dev/null -H 'Content-Type: application/json' -d '{"name": "anna", "password": "wrong"}' "$URL/login"
"""),
    Do(TROUBLE, "FROM enrolment_attempts", shows=["127.0.0.1 "]),
    Do(TROUBLE, "FROM audit ORDER BY id", shows=["command line"]),
]

# A certificate for the site, and its end.
CERTIFICATES = [
    Do(TLS, "-keyout agents-ca.key"),
    Do(TLS, "-keyout paris.key"),
    Do(TLS, "install -o av-agent"),
    Do(TLS, "AV_CLIENT_CERT=", onto="/etc/av-monitoring/agent.env"),
    Do(TLS, "systemctl restart av-agent\n"),
    Do(TLS, "agents.crlnumber"),
    Do(TLS, "sed -i 's/^#cert#//'", shows=["test is successful"]),
    Do(TLS, "AV_CLIENT_CERT_HEADER=", onto="/etc/av-monitoring/backend.env"),
    Do(TLS, "systemctl restart 'av-backend*'"),
    Check("who has no certificate is refused",
          'curl -s -w "%{http_code}" -H "Authorization: Bearer $SITE_TOKEN" "$URL/config"',
          shows=["a valid client certificate is demanded of agents", "403"]),
    *RUNS,
    Do(TLS, "-revoke paris.pem"),
    Check("the revoked agent is refused at its next request", "curl -s -X POST http://127.0.0.1:8080/api/sync >/dev/null; "
          "av-agent status | grep 'a valid client certificate is demanded of agents'", wait=True),
    Check("another certificate", """
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout paris.key -out paris.csr -subj "/CN=Site Paris"
openssl x509 -req -in paris.csr -CA agents-ca.pem -CAkey agents-ca.key -CAcreateserial -extfile paris.ext -days 730 -out paris.pem
install -o av-agent -m 600 paris.pem paris.key /etc/av-monitoring/agent/
"""),
    *RUNS,
]

DATABASE = [
    Do(ADMIN, "av-backend backup /var/backups", between="""
systemctl stop av-backend
sudo -u postgres dropdb av
sudo -u postgres createdb --owner av-backend av
""", shows=["av-2026-11-24.dump: 1 sites, ", "restored what was there at ", ", as the manifest has them"]),
    Check("the backend serves what was restored", "systemctl start av-backend; curl -sf --retry 8 $URL/health && av-backend site list",
          shows=["Site Paris"]),
    # Two names of one server, which the backends tell apart by themselves.
    Check("the database over the network", """
echo 127.0.0.1 db1 db2 >>/etc/hosts
sudo -u postgres psql -c "ALTER ROLE \\"av-backend\\" PASSWORD 'PASSWORD'"
cp /etc/av-monitoring/backend.env backend.env
"""),
    Do(ADMIN, "target_session_attrs=read-write", onto="/etc/av-monitoring/backend.env"),
    Check("the backend takes the database over the network", "systemctl restart av-backend; curl -sf --retry 8 $URL/health"),
    Check("each command takes it, too", "av-backend site list; av-backend user list; av-backend backup network.dump",
          shows=["Site Paris", "anna", "network.dump: 1 sites, "]),
    Check("the database's certificate", """
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout db.key -out db.csr -subj "/CN=db1"
printf 'subjectAltName=DNS:db1\\n' >db.ext
openssl x509 -req -in db.csr -CA av-ca.pem -CAkey av-ca.key -CAcreateserial -extfile db.ext -days 825 -out db.pem
data=$(sudo -u postgres psql -Atc 'SHOW data_directory')
install -o postgres -m 600 db.key db.pem "$data/"
sudo -u postgres psql -c "ALTER SYSTEM SET ssl = on" -c "ALTER SYSTEM SET ssl_cert_file = 'db.pem'" \\
    -c "ALTER SYSTEM SET ssl_key_file = 'db.key'" -c "SELECT pg_reload_conf()"
cp av-ca.pem /etc/av-monitoring/db-ca.pem
cp backend.env /etc/av-monitoring/backend.env
echo 'DATABASE_URL="postgres://av-backend:PASSWORD@db1/av?sslmode=verify-full&sslrootcert=/etc/av-monitoring/db-ca.pem"' \\
    >>/etc/av-monitoring/backend.env
"""),
    Check("the backend speaks TLS to it", """
systemctl restart av-backend; curl -sf --retry 8 $URL/health &&
sudo -u postgres psql -Atc "SELECT 'with ' || version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'av-backend' LIMIT 1" | grep with
""", shows=["with TLS"], wait=True),
    Check("each command speaks it, too", "av-backend site list; av-backend backup tls.dump; cp backend.env /etc/av-monitoring/backend.env",
          shows=["Site Paris", "tls.dump: 1 sites, "]),
]

DATABASE_DOWN = [
    Check("without its database it is started within seconds", """
systemctl stop av-backend postgresql
timeout 20 systemctl start av-backend && systemctl is-active av-backend
""", shows=["active"]),
    Check("it says why it serves nothing", """
systemctl status --no-pager av-backend | grep -i 'status: .*database' &&
journalctl -u av-backend -p warning -n 20 | grep -i database
""", wait=True),
    Check("it finds the database again", "systemctl start postgresql; curl -sf $URL/health", wait=True),
]

INSTANCES = [
    Check("an address for each", """
echo AV_LISTEN=127.0.0.1:8001 >/etc/av-monitoring/backend-1.env
echo AV_LISTEN=127.0.0.1:8002 >/etc/av-monitoring/backend-2.env
systemctl disable --now av-backend
"""),
    Do(ADMIN, "av-backend@1 av-backend@2"),
    Check("both serve", "curl -sf http://127.0.0.1:8001/health && curl -sf http://127.0.0.1:8002/health", wait=True),
    Check("and end", "systemctl disable --now av-backend@1 av-backend@2; systemctl is-active av-backend@1", exits=(3,)),
]

PACKAGES = (OFFICE + USERS + PROXY + NETWORK + EQUIPMENT + IN_AND_OUT + RACK + AT_THE_RACK + SUGGESTED + TOKENS
            + MESSAGES + OBSERVED + SYMPTOMS + CERTIFICATES + DATABASE + DATABASE_DOWN
            + INSTANCES)

# Another machine, and no package.
BY_HAND = [
    Do(ADMIN, "createuser av-backend"),
    Check("the programs of the packages", """
for package in av-agent_*.deb av-backend_*.deb; do dpkg-deb --extract $package unpacked; done
cp unpacked/usr/bin/av-agent unpacked/usr/bin/av-backend .
"""),
    Do(ADMIN, "systemd/av-backend.service"),
    Do(ADMIN, "#AV_LISTEN=0.0.0.0:8000", into="/etc/av-monitoring/backend.env"),
    Do(ADMIN, "systemctl enable --now av-backend\n", shows=["ok"]),
    Do(TECHNICIAN, "systemd/av-agent.service"),
    Check("the agent's configuration", """
echo 127.0.0.1 backend.example.org >>/etc/hosts
token=$(av-backend site add "Site Paris")
echo "{\\"site_name\\": \\"Site Paris\\", \\"site_token\\": \\"$token\\", \\"backend_url\\": \\"http://backend.example.org:8000\\"}" \\
    >/etc/av-monitoring/agent/config.json
"""),
    Do(TECHNICIAN, "chmod 600 /etc/av-monitoring/agent/config.json"),
    Do(TECHNICIAN, "journalctl -u av-agent -f", until="Config updated successfully! 0 devices configured"),
    Check("it is stopped", "systemctl stop av-agent"),
    Do(TECHNICIAN, "sysctl --system", shows=["ping_group_range = 0 2147483647"]),
    Check("the configuration of a program without a unit",
          "mkdir -p /agent/config && cp /etc/av-monitoring/agent/config.json /agent/config/"),
    Do(TECHNICIAN, "setcap", until="Config is up-to-date|Config updated"),
]

MACHINES = {"packages": PACKAGES, "by-hand": BY_HAND}
