//! The main job on real parts: PostgreSQL, backend, agent and a projector.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use av_proto_tests::pg::Database;
use av_proto_tests::pjlink_sim::{Config, Power, Projector};
use av_proto_tests::process::{Agent, Backend};
use serde_json::{Value, json};

const TOKEN: &str = "lyon-token-77aa";
const PASSWORD: &str = "s3same-0uvre";

fn known(backend: &Backend) -> Vec<Value> {
    let answer = backend.devices(TOKEN);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

#[test]
fn a_device_added_in_sql_is_watched_and_its_state_known_and_gone_when_deleted() {
    let db = Database::create();
    let mut backend = Backend::start(&db.url());
    let mut sql = db.connect();
    sql.execute(
        "INSERT INTO sites (name, token) VALUES ('Lyon', $1)",
        &[&TOKEN],
    )
    .unwrap();
    let mut agent = Agent::new(&json!({
        "site_name": "Lyon", "site_token": TOKEN, "api_url": format!("{}/ingest", backend.url),
    }));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config is up-to-date", 1);

    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.password = Some(PASSWORD.to_owned());
    config.state.power = Power::Standby;
    let projector = Projector::start(config).unwrap();
    let driver_config = json!({
        "pjlink": {"password": PASSWORD, "port": projector.addr().port()},
        "note": {"big": 1, "exact": 0.10},
    });
    sql.execute(
        "INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room,
                              driver_config, expectations)
         VALUES ((SELECT id FROM sites WHERE name = 'Lyon'), 'Projecteur é', '127.0.0.1',
                 'projector', 'pjlink', 'A', '1', '101', $1::text::jsonb, '{\"always_on\": true}')",
        &[&driver_config.to_string()],
    )
    .unwrap();

    let device = process.wait_for("the backend knows its state", || {
        let devices = known(&backend);
        (devices.len() == 1 && devices[0]["status"] == "online").then(|| devices[0].clone())
    });
    assert_eq!(device["verdict"], "ok");
    assert_eq!(device["name"], "Projecteur é");
    assert_eq!(device["metrics"]["pjlink_power"], 0, "standby is online");
    assert_eq!(device["metrics"]["pjlink_auth"], true);
    let status = agent.get("/api/status").unwrap().json();
    assert_eq!(status["devices"][0]["verdict"], "ok");
    let config = backend.get(&format!("/config/{TOKEN}")).json();
    assert_eq!(
        status["sync"]["current_hash"], config["config_hash"],
        "a report changes no configuration"
    );

    // The backend away, and back on the same database.
    backend.process.kill();
    process.wait_for("the agent misses it", || {
        let status = agent.get("/api/status")?.json();
        (status["sync"]["last_sync_ok"] == false).then_some(())
    });
    let address = backend.url.trim_start_matches("http://").to_owned();
    backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_LISTEN", &address);
    });
    backend.url = format!("http://{address}");
    backend.wait_until_healthy();

    sql.execute("DELETE FROM devices WHERE ip = '127.0.0.1'", &[])
        .unwrap();
    process.wait_for("it is gone from agent and backend", || {
        let status = agent.get("/api/status")?.json();
        (status["devices"] == json!([]) && known(&backend).is_empty()).then_some(())
    });

    backend
        .process
        .wait_for_log("✅ Config sync endpoint called by site Lyon (hash: ", 1);
    for log in [backend.process.log(), process.log()] {
        for secret in [TOKEN, PASSWORD] {
            assert!(!log.contains(secret), "{secret} in\n{log}");
        }
    }
    let unread = agent.process.as_mut().unwrap().terminate();
    assert!(unread.success(), "an orderly end is a success");
}
