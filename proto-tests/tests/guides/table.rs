//! Which commands are run, with what in place of names and ports; and which
//! are not, and why.

use crate::blocks::{Block, english};

/// What becomes of a block.
pub enum How {
    Run(Steps),
    /// It needs a machine that a test has not: why. It is valid shell, and
    /// its options exist, all the same.
    Machine(&'static str),
}

/// How a block is run.
pub struct Steps {
    /// A script before it; one of the same shell, but before a session.
    pub before: &'static str,
    /// Text of the block, and what stands there in the sandbox.
    pub swaps: &'static [(&'static str, &'static str)],
    /// A script after it, which looks at what came of it.
    pub after: &'static str,
    /// The exit codes that a session's commands may have.
    pub exits: &'static [i32],
    /// What must be printed. A session without it prints what it does in the
    /// guide.
    pub shows: &'static [&'static str],
}

/// A line of the table.
pub struct Entry {
    pub guide: &'static str,
    /// Text that this block alone has in its guide.
    pub mark: &'static str,
    pub how: How,
}

impl Entry {
    pub fn fits(&self, block: &Block) -> bool {
        english(&block.guide) == self.guide && block.text.contains(self.mark)
    }
}

/// The line of a block.
pub fn entry(block: &Block) -> &'static Entry {
    TABLE
        .iter()
        .find(|line| line.fits(block))
        .unwrap_or_else(|| panic!("{}:{} is not in the table", block.guide, block.line))
}

/// What is swapped in every block of these guides, after its own swaps.
pub const GENERAL: &[(&[&str], &str, &str)] = &[
    (ALL, "https://av.example.org", "@URL@"),
    (ALL, "/etc/av-monitoring", "@ROOT@/etc/av-monitoring"),
    (ALL, "192.168.40.", "@NET@.40."),
    (ALL, " /usr/", " @ROOT@/usr/"),
    (ALL, " /etc/systemd/", " @ROOT@/etc/systemd/"),
    (ALL, "/etc/nginx/", "@ROOT@/etc/nginx/"),
    (ALL, "/var/backups/", "@ROOT@/var/backups/"),
];
const ALL: &[&str] = &[
    "administration.md",
    "technician.md",
    "tls.md",
    "troubleshooting.md",
];

const PLAIN: Steps = Steps {
    before: "",
    swaps: &[],
    after: "",
    exits: &[0],
    shows: &[],
};

const fn run(guide: &'static str, mark: &'static str, steps: Steps) -> Entry {
    Entry {
        guide,
        mark,
        how: How::Run(steps),
    }
}

const fn machine(guide: &'static str, mark: &'static str, why: &'static str) -> Entry {
    Entry {
        guide,
        mark,
        how: How::Machine(why),
    }
}

const ADMIN: &str = "administration.md";
const API: &str = "api.md";
const TECHNICIAN: &str = "technician.md";
const TLS: &str = "tls.md";
const TROUBLE: &str = "troubleshooting.md";

const PACKAGE: &str = "installs on the machine; scripts/test-deb.sh does it in a folder";
const BENCH: &str = "a bench: many minutes, optimized builds, other tools to compare with";
/// The units' files are put in place; users and folders of the system are not.
const INSTALL_SWAPS: (&str, &str) = ("systemd-sysusers && systemd-tmpfiles --create", "echo");
/// A block that is a file of settings.
const BACKEND_ENV: &str = "cat >\"$CONF/more.env\" <<'END'";

pub const TABLE: &[Entry] = &[
    machine(
        "README.md",
        "./demo.sh",
        "the demonstration runs until Ctrl-C; test.sh runs it by --check, and is all tests",
    ),
    machine("benchmarks.md", "--bench history", BENCH),
    machine("benchmarks.md", "benches/icmp.py", BENCH),
    machine("benchmarks.md", "benches/snmp.py", BENCH),
    machine("benchmarks.md", "benches/pjlink.py", BENCH),
    machine("benchmarks.md", "benches/deadline.py", BENCH),
    machine("benchmarks.md", "benches/small.sh", BENCH),
    machine("benchmarks.md", "benches/speed.py", BENCH),
    machine("sizing.md", "benches/agents.py", BENCH),
    machine("reliability.md", "--soak", BENCH),
    machine(
        "reliability.md",
        "cargo fuzz run",
        "ten minutes each, with the compiler's nightly options",
    ),
    // Administration: the commands build on each other.
    run(
        ADMIN,
        "createuser av-backend",
        Steps {
            after: "psql -Atc \"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'av'\"",
            shows: &["av-backend"],
            ..PLAIN
        },
    ),
    machine(ADMIN, "apt install", PACKAGE),
    run(
        ADMIN,
        "systemd/av-backend.service",
        Steps {
            swaps: &[INSTALL_SWAPS],
            after: "cmp av-backend \"$ROOT/usr/bin/av-backend\"; bash -n \"$ROOT/usr/lib/av-monitoring/av-backend-backoff\"",
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "#AV_LISTEN=0.0.0.0:8000",
        Steps {
            before: "cat >\"$CONF/backend.env\" <<'END'",
            swaps: &[("host=/run/postgresql", "host=127.0.0.1 port=@PGPORT@")],
            after: "END\nset -a; . \"$CONF/backend.env\"; psql -Atc 'SELECT current_user' \"$DATABASE_URL\"",
            shows: &["av-backend"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "systemctl enable --now av-backend\n",
        Steps {
            swaps: &[("-f --retry 8 http://localhost:8000", "--retry 8 @URL@")],
            after: "[ \"$(stat -c %a \"$CONF/backend.env\")\" = 600 ]",
            shows: &["ok"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "av-backend@1 av-backend@2",
        Steps {
            before: "echo AV_LISTEN=127.0.0.1:@SECOND_PORT@ >\"$CONF/backend-1.env\"\n\
                 echo AV_LISTEN=127.0.0.1:@THIRD_PORT@ >\"$CONF/backend-2.env\"",
            after: "curl -s http://127.0.0.1:@SECOND_PORT@/health http://127.0.0.1:@THIRD_PORT@/health\n\
                systemctl stop av-backend@1 av-backend@2",
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "token = 'another-long-random-text'",
        Steps {
            shows: &["UPDATE 0"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "av-backend user add paul --generate",
        Steps {
            before: "echo \"$PASSWORD\" >file",
            // A password that is asked for takes a terminal.
            swaps: &[
                (
                    "av-backend user add anna --role admin        #",
                    "av-backend user add root --role admin <file #",
                ),
                (
                    "av-backend user password paul   ",
                    "av-backend user password paul <file",
                ),
            ],
            after: "keep TOKEN \"$(api_token root)\"\nPASSWORD=$PASSWORD api_token anna >/dev/null",
            shows: &["anna", "paul"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "\"nightly export\"",
        Steps {
            swaps: &[(
                "tokens/1",
                "tokens/$(api /admin/tokens | jq '.tokens[] | select(.name == \"nightly export\").id')",
            )],
            shows: &["\"name\":\"nightly export\",\"token\":\"avt_"],
            after: "[ \"$(api /admin/tokens | grep -c 'nightly export')\" = 0 ]",
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "AV_BEHIND_TLS=1",
        Steps {
            before: BACKEND_ENV,
            after: "END\n\
                cp \"$CONF/backend.env\" saved.env; cat \"$CONF/more.env\" >>\"$CONF/backend.env\"\n\
                systemctl restart av-backend\n\
                curl -si -H 'Content-Type: application/json' -d \"{\\\"name\\\": \\\"root\\\", \\\"password\\\": \\\"$PASSWORD\\\"}\" \"$URL/login\" | grep -i set-cookie\n\
                mv saved.env \"$CONF/backend.env\"; systemctl restart av-backend",
            shows: &["__Host-av_session"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "sudo -u av-backend psql",
        Steps {
            swaps: &[(
                "psql \"$DATABASE_URL\"",
                "psql \"$DATABASE_URL\" -Atc 'SELECT current_user'",
            )],
            shows: &["av-backend"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "'a-long-random-text'",
        Steps {
            shows: &["INSERT 0 1", "UPDATE 1"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "'Projecteur Salle A', '192.168.1.10'",
        Steps {
            shows: &["INSERT 0 1"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "'Commutateur'",
        Steps {
            shows: &["INSERT 0 1"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "jsonb_set",
        Steps {
            shows: &["UPDATE 1\nUPDATE 1\nDELETE 1"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "/admin/suggestions/7/accept",
        Steps {
            before: "keep SITE_TOKEN a-long-random-text\n\
                 echo \"{\\\"site_name\\\": \\\"Site Paris\\\", \\\"site_token\\\": \\\"$SITE_TOKEN\\\", \\\"backend_url\\\": \\\"$URL\\\"}\" >\"$CONF/agent/config.json\"\n\
                 AGENT_CONFIG=$CONF/agent/config.json av-agent discover @NET@.5.1/32 --search-wait 0 --suggest\n\
                 BACKEND=$URL\n\
                 FOUND=$(api '/admin/suggestions?site=Site+Paris' | jq -e '.suggestions[0].id')",
            swaps: &[("suggestions/7/", "suggestions/$FOUND/")],
            shows: &["127."],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "-OJ",
        Steps {
            swaps: &[(
                "'If-Match: \"r4\"'",
                "-H \"If-Match: $(curl -s -D - -o /dev/null -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: text/csv' --data-binary @site-1-devices.csv \"$URL/admin/import?site_id=1&dry_run=1\" | tr -d '\\r' | sed -n 's/^etag: //Ip')\" -H 'X-Nothing: 1'",
            )],
            after: "test -s site-1-devices.csv",
            shows: &["\"dry_run\":true", "\"dry_run\":false"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "mode=replace&dry_run=1",
        Steps {
            shows: &["\"removed\":[]"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "/versions/2/diff/3",
        Steps {
            before: "psql -q \"$DATABASE_URL\" -c \"UPDATE devices SET room = 'Salle 103', driver_config = jsonb_set(driver_config, '{pjlink,password}', '\\\"other\\\"') WHERE ip = '192.168.1.10'\"\n\
                 keep NEWEST \"$(api /admin/sites/1/versions | jq -e '.versions[0].revision')\"\n\
                 keep BEFORE \"$(api /admin/sites/1/versions | jq -e '.versions[1].revision')\"",
            swaps: &[("versions/2/diff/3", "versions/$BEFORE/diff/$NEWEST")],
            shows: &[
                "\"origin\":\"sql\"",
                "\"author\":\"root\",\"origin\":\"api\"",
                "\"field\":",
                "\"secret\":false",
            ],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "/versions/2/rollback",
        Steps {
            swaps: &[
                ("'If-Match: \"3\"'", "\"If-Match: \\\"$NEWEST\\\"\""),
                ("versions/2/", "versions/$BEFORE/"),
            ],
            shows: &["{\"revision\":", "\"hash\":", "\"settings_changed\":false}"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "curl -s -H \"Authorization: Bearer $TOKEN\" $URL/admin/sites/1/agent\n",
        Steps {
            shows: &["\"state\":"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "av-agent enroll https://av.example.org",
        Steps {
            before: "rm \"$CONF/agent/config.json\"; keep AGENT_CONFIG \"$CONF/agent/config.json\"",
            swaps: &[
                (
                    "$URL/admin/sites/1/enrolment",
                    "$URL/admin/sites/1/enrolment | tee code.json",
                ),
                ("ABCDE-FGHJK        #", "$(jq -r .code code.json) #"),
            ],
            after: "grep -q 'Site Paris' \"$CONF/agent/config.json\"",
            shows: &["{\"code\":\"", "\"valid_until\":\"", "Site Paris"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "{\"old_valid_until\":\"2026-12-01T11:09:59.497103Z\",\"token\"",
        PLAIN,
    ),
    run(ADMIN, "\"taken_over_at\":null", PLAIN),
    run(
        ADMIN,
        "\"grace_s\": 0",
        Steps {
            after: "[ \"$(curl -so /dev/null -w '%{http_code}' -H \"Authorization: Bearer $SITE_TOKEN\" \"$URL/config\" || true)\" != 200 ]",
            shows: &["\"token\":"],
            ..PLAIN
        },
    ),
    run(ADMIN, "FROM device_current t", PLAIN),
    run(ADMIN, "FROM device_days", PLAIN),
    run(ADMIN, "SET alert_severity = 'warning'", PLAIN),
    run(
        ADMIN,
        "\"reason\": \"new cables\"",
        Steps {
            swaps: &[("2026-12-01T18:00:00Z", "@TOMORROW@")],
            shows: &["new cables"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "\"recipients\": [\"ops@example.org\"]",
        Steps {
            shows: &["Ops"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "AV_SMTP_CA=",
        Steps {
            before: BACKEND_ENV,
            after: "END\n\
                openssl req -x509 -newkey rsa:2048 -nodes -keyout mail.key -out \"$CONF/mail-ca.pem\" -subj /CN=mail -days 2\n\
                cp \"$CONF/backend.env\" saved.env; cat \"$CONF/more.env\" >>\"$CONF/backend.env\"\n\
                echo AV_SMTP_URL=smtps://127.0.0.1:9 >>\"$CONF/backend.env\"; echo AV_MAIL_FROM=av@example.org >>\"$CONF/backend.env\"\n\
                systemctl restart av-backend; echo started; mv saved.env \"$CONF/backend.env\"",
            shows: &["started"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "def is_ours",
        Steps {
            after: "headers = {\"X-AV-Timestamp\": \"1700000000\", \"X-AV-Signature\": \"sha256=5addd6e1974497a6f13107dc1d36ff9e93009bb7a7af041559bc7d90f1aaf271\"}\n\
                print(is_ours(b\"a key of some length\", headers, b'{\"a\":1}', lambda: 1700000100), is_ours(b\"a key of some length\", headers, b'{\"a\":2}', lambda: 1700000100), is_ours(b\"a key of some length\", headers, b'{\"a\":1}'))",
            shows: &["True False False"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "av-backend backup /var/backups",
        Steps {
            before: "createdb empty",
            swaps: &[(
                "$ av-backend restore",
                "$ DATABASE_URL=\"${DATABASE_URL/%av/empty}\" av-backend restore",
            )],
            shows: &[
                "av-2026-11-24.dump: 1 sites, ",
                "restored what was there at ",
                ", as the manifest has them",
            ],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "pg_basebackup --write-recovery-conf",
        Steps {
            before: "PGDATA=$(mktemp -d --tmpdir av-standby-XXXXXX); keep PGDATA \"$PGDATA\"\n\
                 as_postgres true; [ \"$(id -u)\" != 0 ] || chown \"$(as_postgres id -u)\" \"$PGDATA\"",
            swaps: &[
                ("host=PRIMARY", "host=127.0.0.1 port=@PGPORT@"),
                ("pg_basebackup --", "as_postgres pg_basebackup --"),
                (
                    "pg_ctl start -D",
                    "as_postgres \"$PG_BIN/pg_ctl\" start --wait --silent --log=\"$PGDATA/log\" -o \"-p @THIRD_PORT@ -k $PGDATA\" -D",
                ),
            ],
            after: "is_sync() { [ \"$(psql -Atc 'SELECT sync_state FROM pg_stat_replication')\" = sync ]; }; within is_sync\n\
                psql -c \"ALTER SYSTEM RESET synchronous_standby_names\"; psql -c \"SELECT pg_reload_conf()\"\n\
                as_postgres \"$PG_BIN/pg_ctl\" promote --wait -D \"$PGDATA\"\n\
                psql -p @THIRD_PORT@ -Atc \"SELECT 'writable: ' || NOT pg_is_in_recovery()\"\n\
                as_postgres \"$PG_BIN/pg_ctl\" stop --silent -m immediate -D \"$PGDATA\"",
            shows: &["standby_1", "writable: true"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "target_session_attrs=read-write",
        Steps {
            swaps: &[("db1,db2/", "127.0.0.1:@PGPORT@,127.0.0.1:@THIRD_PORT@/")],
            after: "export DATABASE_URL; av-backend site list",
            shows: &["Site Paris"],
            ..PLAIN
        },
    ),
    run(
        ADMIN,
        "AV_PYTHON_DATABASE_URL=",
        Steps {
            before: "createdb avmvp_db; createdb taken\n\
                 psql -q -d avmvp_db -c \"CREATE TABLE sites (id serial, name text, token text); CREATE TABLE devices (id serial, site_id int, name text, ip text, driver text); INSERT INTO sites (name, token) VALUES ('Site Évry', 'old-token'); INSERT INTO devices (site_id, name, ip, driver) VALUES (1, 'P', '10.0.0.1', 'ping')\"\n\
                 cp \"$CONF/backend.env\" saved.env\n\
                 export DATABASE_URL=${DATABASE_URL/%av/taken}; echo \"DATABASE_URL=$DATABASE_URL\" >\"$CONF/backend.env\"",
            swaps: &[
                (
                    "avmvp_user:PASSWORD@localhost:5432",
                    "av@127.0.0.1:@PGPORT@",
                ),
                ("systemctl stop avmonitoring-backend", ":"),
                ("systemctl disable avmonitoring-backend", ":"),
                (
                    "systemctl enable --now av-backend.service",
                    "systemctl restart av-backend",
                ),
            ],
            after: "curl -s \"$URL/config/old-token\"\n\
                mv saved.env \"$CONF/backend.env\"; systemctl restart av-backend",
            shows: &[
                "Would be taken over from avmvp_db ",
                "Taken over from avmvp_db ",
                "\"site_name\":\"Site Évry\"",
            ],
            ..PLAIN
        },
    ),
    // The API: a session against an empty database.
    run(
        API,
        "av-backend user password anna",
        Steps {
            before: "office; keep B \"$URL\"; keep T \"$TOKEN\"; echo \"$PASSWORD\" >file",
            swaps: &[
                ("admin       #", "admin <file #"),
                ("password anna               #", "password anna <file #"),
            ],
            ..PLAIN
        },
    ),
    run(
        API,
        "$B/admin/me",
        Steps {
            swaps: &[("\"id\":987654321", "\"id\":...")],
            ..PLAIN
        },
    ),
    run(API, "'{\"name\": \"Site Paris\"", PLAIN),
    run(
        API,
        ">   \"site_id\": 1, \"ip\": \"192.168.1.10\"",
        Steps {
            after: "keep ETAG \"$(api -i /admin/devices/1 | tr -d '\\r' | sed -n 's/^etag: //Ip')\"",
            ..PLAIN
        },
    ),
    run(API, "192.168.1.999", PLAIN),
    run(
        API,
        "\"port\": 4353}}}'",
        Steps {
            swaps: &[("'If-Match: \"1-1795511896509361\"'", "\"If-Match: $ETAG\"")],
            ..PLAIN
        },
    ),
    run(
        API,
        "\"Salle 103\"",
        Steps {
            swaps: &[("'If-Match: \"1-1795511896509361\"'", "\"If-Match: $ETAG\"")],
            ..PLAIN
        },
    ),
    run(API, "reveal=1", PLAIN),
    run(API, "audit?limit=3", PLAIN),
    run(API, "q=batiment", PLAIN),
    run(
        API,
        "$ cat devices.csv",
        Steps {
            before: "printf '%s\\n' 'ip;name;room;driver;driver_config.pjlink.password' \
                 '192.168.1.10;Projecteur Salle A;Salle 104;pjlink;***' \
                 '192.168.1.11;Projecteur Salle B;Salle 105;pjlink;secret' \
                 '192.168.1.12;;Salle 106;ping;' >devices.csv",
            ..PLAIN
        },
    ),
    run(API, "\"error\":\"row 4, name: is empty\"", PLAIN),
    run(
        API,
        "\"warnings\": []",
        Steps {
            before: "sed -i 's/^192.168.1.12;;/192.168.1.12;Lecteur;/' devices.csv",
            ..PLAIN
        },
    ),
    run(API, "[false,2,1,0]", PLAIN),
    run(API, "export?site_id=1&format=csv", PLAIN),
    run(API, "/versions | jq", PLAIN),
    run(API, "/versions/2/rollback", PLAIN),
    machine(
        API,
        "schemathesis.sh",
        "takes schemathesis from PyPI; ./test.sh --schemathesis",
    ),
    // The rack.
    machine(TECHNICIAN, "apt install", PACKAGE),
    run(
        TECHNICIAN,
        "systemd/av-agent.service",
        Steps {
            swaps: &[INSTALL_SWAPS],
            after: "cmp av-agent \"$ROOT/usr/bin/av-agent\"; bash -n \"$ROOT/usr/lib/av-monitoring/av-agent-backoff\"",
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "chmod 600 /etc/av-monitoring/agent/config.json",
        Steps {
            before: "office; site",
            swaps: &[("chown -R av-agent:", "chown -R \"$(id -un)\":")],
            after: "[ \"$(stat -c %a \"$CONF/agent/config.json\")\" = 600 ]",
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "journalctl -u av-agent -f",
        Steps {
            after: "synced() { journalctl -u av-agent | grep -q 'Config updated successfully! 2 devices configured.'; }; within synced\n\
                swept() { local s; s=$(av-agent status --url \"http://127.0.0.1:$PAGE_PORT\"); [[ $s == *' on, lamp error'* && $s == *ERRA* ]]; }; within swept",
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "$ av-agent status",
        Steps {
            swaps: &[(
                "$ av-agent status",
                "$ av-agent status --url http://127.0.0.1:@PAGE_PORT@",
            )],
            exits: &[0, 1],
            shows: &[
                "Site Paris av-agent ",
                "\u{26a0} Vieux lecteur (",
                ") is not watched: driver_config.pjlink.port: 70000 is not a port (1 to 65535)",
                "VERDICT  NAME ",
                " on, lamp error\n",
                "authentication failed (ERRA): check the password",
            ],
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "av-agent check",
        Steps {
            swaps: &[(
                "sudo av-agent",
                "AGENT_CONFIG=$CONF/agent/config.json av-agent",
            )],
            exits: &[1],
            shows: &[
                "✓ configuration  ",
                "agent/config.json: Site Paris, 2 devices",
                "✗ devices        Vieux lecteur (",
                "→ put it right in the backend: until then it is not watched",
                "✓ token          ",
                "config.json is for its owner only",
                "✓ status page    the agent is running on ",
                "✓ time zone      Europe/Paris: it is ",
                " to put right, ",
            ],
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "AV_PW=admin av-agent probe",
        Steps {
            exits: &[0, 1],
            shows: &[
                " → @NET@.40.11 (digest)%1POWR ?",
                " ← @NET@.40.11 %1POWR=1",
                "@NET@.40.11 (pjlink): online, on, lamp 0 h",
                "pjlink_errors        {\"cover\":\"ok\"",
                "@NET@.40.99 (pjlink): offline, ",
                "pjlink_ok     false",
            ],
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "$ av-agent sweep site.json",
        Steps {
            before: "curl -s -H \"Authorization: Bearer $SITE_TOKEN\" \"$URL/config\" >site.json",
            shows: &[
                "STATUS    IP ",
                "Projecteur Salle A",
                "  on, lamp error\n",
                "rejected  @NET@.40.98",
                "2 devices in ",
                " 2 online, 0 offline, 0 unknown, 1 rejected",
            ],
            ..PLAIN
        },
    ),
    run(
        TECHNICIAN,
        "$ av-agent discover",
        Steps {
            swaps: &[("192.168.40.0/24", "@NET@.40.8/29")],
            shows: &[
                " DRIVER  ACCESS           VENDOR ",
                "@NET@.40.10  pjlink                   SIMULATED  PJ-1 ",
                "@NET@.40.11  pjlink  password wanted",
                " found at 6 addresses",
            ],
            ..PLAIN
        },
    ),
    machine(
        TECHNICIAN,
        "sysctl --system",
        "a setting of the machine's kernel, for all its programs",
    ),
    machine(
        TECHNICIAN,
        "setcap",
        "gives a file a capability, and starts an agent until Ctrl-C",
    ),
    run(
        TECHNICIAN,
        "--bin pjlink-sim --",
        Steps {
            before: "set -m; {",
            swaps: &[
                (
                    "cargo run -p av-proto-tests --bin pjlink-sim --",
                    "pjlink-sim",
                ),
                ("127.0.0.11:", "@NET@.0.11:"),
            ],
            after: "} & simulator=$!\n\
                answers() { AV_PW=admin av-agent probe @NET@.0.11 --driver pjlink --password-env AV_PW; }\n\
                within answers; kill -- -$simulator",
            shows: &["online, on, lamp error", "pjlink_lamp_hours    1234"],
            ..PLAIN
        },
    ),
    // TLS: one folder for an authority's files.
    run(
        TLS,
        "AV_LISTEN=127.0.0.1:8000",
        Steps {
            before: "office; cat >>\"$CONF/backend.env\" <<'END'",
            swaps: &[("127.0.0.1:8000", "127.0.0.1:@PORT@")],
            after: "END\nsystemctl restart av-backend\ncurl -s \"$URL/health\"",
            ..PLAIN
        },
    ),
    machine(
        TLS,
        "install -d -m 755 /etc/ssl/av",
        "files of a proxy of the system; scripts/test-systemd.sh puts them in place",
    ),
    machine(
        TLS,
        "--retry-connrefused https://av.example.org/health",
        "a proxy of the system; scripts/test-systemd.sh reloads it",
    ),
    run(TLS, "-keyout av-ca.key", PLAIN),
    run(
        TLS,
        "-keyout privkey.pem",
        Steps {
            after: "openssl verify -CAfile av-ca.pem -verify_hostname av.example.org fullchain.pem",
            shows: &["fullchain.pem: OK"],
            ..PLAIN
        },
    ),
    run(TLS, "-keyout agents-ca.key", PLAIN),
    run(
        TLS,
        "-keyout paris.key",
        Steps {
            after: "openssl verify -CAfile agents-ca.pem paris.pem; openssl x509 -noout -subject -nameopt RFC2253 -in paris.pem",
            shows: &["paris.pem: OK", "subject=CN=Site Paris"],
            ..PLAIN
        },
    ),
    run(
        TLS,
        "install -o av-agent",
        Steps {
            swaps: &[("-o av-agent ", "")],
            after: "[ \"$(stat -c %a \"$CONF/agent/paris.key\")\" = 600 ]",
            ..PLAIN
        },
    ),
    run(
        TLS,
        "AV_CLIENT_CERT=",
        Steps {
            before: "site; cat >\"$CONF/agent.env\" <<'END'",
            after: "END\nsystemctl enable --now av-agent\n\
                synced() { journalctl -u av-agent | grep 'Config updated successfully'; }; within synced\n\
                if journalctl -u av-agent | grep AV_CLIENT; then exit 1; fi",
            shows: &["2 devices configured"],
            ..PLAIN
        },
    ),
    run(
        TLS,
        "systemctl restart av-agent\n",
        Steps {
            after: "synced() { journalctl -u av-agent | grep 'Config'; }; within synced",
            ..PLAIN
        },
    ),
    run(
        TLS,
        "agents.crlnumber",
        Steps {
            after: "openssl crl -noout -CAfile agents-ca.pem -in agents-crl.pem",
            shows: &["verify OK"],
            ..PLAIN
        },
    ),
    run(
        TLS,
        "sed -i 's/^#cert#//'",
        Steps {
            before: "cp \"$WORKSPACE/docs/proxy/nginx.conf\" \"$ROOT/etc/nginx/conf.d/av.conf\"\n\
                nginx() { true; }; systemctl() { true; }",
            swaps: &[("/etc/ssl/av/", "@ROOT@/")],
            after: "grep -q '^    ssl_verify_client' \"$ROOT/etc/nginx/conf.d/av.conf\"",
            ..PLAIN
        },
    ),
    run(
        TLS,
        "-revoke paris.pem",
        Steps {
            before: "systemctl() { true; }",
            swaps: &[("/etc/ssl/av/", "@ROOT@/")],
            after: "openssl verify -crl_check -CAfile <(cat agents-ca.pem agents-crl.pem) paris.pem 2>&1 || echo \"ended with $?\"",
            shows: &["certificate revoked", "ended with 2"],
            ..PLAIN
        },
    ),
    run(
        TLS,
        "AV_CLIENT_CERT_HEADER=",
        Steps {
            before: "cat >>\"$CONF/backend.env\" <<'END'",
            after: "END\nsystemctl restart av-backend\n\
                    ask() { curl -s -o /dev/null -w '%{http_code}\\n' \"$@\" -H \"Authorization: Bearer $SITE_TOKEN\" \"$URL/config\" || true; }\n\
                    ask -H 'X-Client-Certificate-Subject: CN=Site Paris'\n\
                    ask -H 'X-Client-Certificate-Subject: CN=Site Lyon'\n\
                    ask",
            shows: &["200\n403\n403\n"],
            ..PLAIN
        },
    ),
    run(
        TLS,
        "systemctl restart 'av-backend*'",
        Steps {
            swaps: &[("'av-backend*'", "av-backend")],
            ..PLAIN
        },
    ),
    // By symptom.
    run(
        TROUBLE,
        "av-agent status --problems",
        Steps {
            before: "office; site; systemctl enable --now av-agent\n\
                 synced() { journalctl -u av-agent | grep -q 'Config updated successfully'; }; within synced",
            swaps: &[
                (
                    "sudo av-agent check\n",
                    "AGENT_CONFIG=$CONF/agent/config.json av-agent check || [ $? = 1 ]\n",
                ),
                (
                    "status --problems",
                    "status --problems --url http://127.0.0.1:@PAGE_PORT@ || [ $? = 1 ]",
                ),
            ],
            shows: &["→ put it right in the backend", "Vieux lecteur"],
            ..PLAIN
        },
    ),
    run(
        TROUBLE,
        "--from-config -v",
        Steps {
            before: "export AGENT_CONFIG=$CONF/agent/config.json",
            swaps: &[("192.168.1.10", "@NET@.40.10")],
            shows: &[
                "%1POWR ?",
                "online, on, lamp error",
                "pjlink_lamp_hours    12",
            ],
            ..PLAIN
        },
    ),
    run(
        TROUBLE,
        "sudo av-agent enroll",
        Steps {
            before: "export AGENT_CONFIG=$CONF/agent/config.json; rm \"$AGENT_CONFIG\"\n\
                 CODE=$(api -X POST /admin/sites/1/enrolment | jq -er .code)",
            swaps: &[("ABCDE-FGHJK", "$CODE")],
            after: "keep SITE_TOKEN \"$(jq -er .site_token \"$AGENT_CONFIG\")\"",
            shows: &["Site Paris"],
            ..PLAIN
        },
    ),
    run(
        TROUBLE,
        "/admin/sites/1/agent",
        Steps {
            shows: &[
                "\"state\":",
                "Config sync endpoint called by site Site Paris",
            ],
            ..PLAIN
        },
    ),
    run(
        TROUBLE,
        "av-backend check-config",
        Steps {
            swaps: &[("/tmp/", "@ROOT@/")],
            before: "psql -q \"$DATABASE_URL\" -c \"DELETE FROM devices WHERE name = 'Vieux lecteur'\"",
            ..PLAIN
        },
    ),
    run(
        TROUBLE,
        "FROM enrolment_attempts",
        Steps {
            before: "curl -s -o /dev/null -H 'Content-Type: application/json' -d '{\"name\": \"root\", \"password\": \"wrong\"}' \"$URL/login\" || true",
            shows: &["127.0.0.1 |     1"],
            ..PLAIN
        },
    ),
    run(
        TROUBLE,
        "FROM audit ORDER BY id",
        Steps {
            shows: &["site.create", "command line"],
            ..PLAIN
        },
    ),
];
