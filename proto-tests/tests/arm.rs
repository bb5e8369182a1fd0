//! The agent of another architecture, under an emulator, with the backend of
//! this one: the whole main job. `scripts/test-arm.sh` names the agent in
//! `AV_TEST_AGENT`; without it, it is the agent of this architecture.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use av_proto_tests::namespace::may_ping;
use av_proto_tests::pg::Database;
use av_proto_tests::pjlink_sim::{Config, Power, Projector};
use av_proto_tests::process::{Agent, Backend, LIMIT};
use serde_json::{Value, json};

const TOKEN: &str = "arm-token-5d1e";
const PASSWORD: &str = "s3same-0uvre";
const COMMUNITY: &str = "kept-2b9f";

/// A private snmpd, ended with the test.
struct Snmpd {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Snmpd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Nobody else's: UDP ports are not in the harness's list.
        let port = UdpSocket::bind("127.0.0.2:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let file = dir.path().join("snmpd.conf");
        std::fs::write(
            &file,
            format!(
                "agentaddress udp:127.0.0.2:{port}\nrocommunity {COMMUNITY}\nsysDescr rack amplifier\n"
            ),
        )
        .unwrap();
        // It is there, and not on a normal user's PATH.
        let snmpd = ["/usr/sbin/snmpd", "/usr/local/sbin/snmpd"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap();
        let child = Command::new(snmpd)
            .args(["-f", "-C", "-Lo", "-I", "-smux", "-c"])
            .arg(&file)
            .env("SNMP_PERSISTENT_DIR", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            _dir: dir,
        }
    }
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_main_job_of_an_agent_of_any_architecture() {
    if !may_ping("the_main_job_of_an_agent_of_any_architecture") {
        return;
    }
    let db = Database::create();
    let backend = Backend::start(&db.url());
    let mut sql = db.connect();
    sql.execute(
        "INSERT INTO sites (name, token, ok_interval_s, ko_interval_s) VALUES ('Rack', $1, 5, 5)",
        &[&TOKEN],
    )
    .unwrap();
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.password = Some(PASSWORD.to_owned());
    config.state.power = Power::Standby;
    let projector = Projector::start(config).unwrap();
    let snmpd = Snmpd::start();
    for (name, ip, kind, driver, settings) in [
        (
            "projector",
            "127.0.0.1",
            "projector",
            "pjlink",
            json!({"pjlink": {"password": PASSWORD, "port": projector.addr().port()}}),
        ),
        (
            "amplifier",
            "127.0.0.2",
            "audio",
            "snmp",
            json!({"snmp": {"community": COMMUNITY, "port": snmpd.port}}),
        ),
        ("panel", "127.0.0.3", "panel", "ping", json!({})),
    ] {
        sql.execute(
            "INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room,
                                  driver_config)
             VALUES ((SELECT id FROM sites WHERE name = 'Rack'), $1, $2, $3, $4,
                     'A', '1', '101', $5::text::jsonb)",
            &[&name, &ip, &kind, &driver, &settings.to_string()],
        )
        .unwrap();
    }

    let mut agent = Agent::new(&json!({
        "site_name": "Rack", "site_token": TOKEN, "api_url": format!("{}/ingest", backend.url),
    }));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    let known = || -> Option<Vec<Value>> {
        let answer = backend.devices(TOKEN);
        let devices = answer.json().as_array()?.clone();
        let all = devices.len() == 3 && devices.iter().all(|device| device["status"] == "online");
        all.then_some(devices)
    };
    let devices = process.wait_for("the backend knows three devices online", known);
    let of = |name: &str| -> &Value {
        devices
            .iter()
            .find(|device| device["name"] == name)
            .unwrap_or(&Value::Null)
    };
    assert_eq!(of("projector")["metrics"]["pjlink_power"], 0, "{devices:?}");
    assert_eq!(of("projector")["metrics"]["pjlink_auth"], true);
    assert_eq!(
        of("amplifier")["metrics"]["sys_descr"],
        "rack amplifier",
        "{devices:?}"
    );
    assert!(
        of("panel")["metrics"]["ping_rtt_avg_ms"].is_number(),
        "{devices:?}"
    );
    let status = agent.get("/api/status").unwrap().json();
    assert_eq!(status["sync"]["last_sync_ok"], true);
    assert_eq!(status["devices"].as_array().unwrap().len(), 3);

    // What the backend changes reaches it.
    sql.execute("DELETE FROM devices WHERE ip <> '127.0.0.1'", &[])
        .unwrap();
    process.wait_for("two devices are gone", || {
        let status = agent.get("/api/status")?.json();
        (status["devices"].as_array()?.len() == 1).then_some(())
    });
    let ended = agent.process.as_mut().unwrap().terminate();
    assert!(ended.success(), "an orderly end within {LIMIT:?}");
}
