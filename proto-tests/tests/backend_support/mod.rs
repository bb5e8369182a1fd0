//! What the backend's tests share.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code, of which each test file uses a part"
)]

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend};
use postgres::Client;
use serde_json::{Value, json};

/// The token of [`Bench::site`]'s site.
pub const TOKEN: &str = "paris-token-5f2c";

/// A database with one site, a connection to it, and a backend.
pub struct Bench {
    pub backend: Backend,
    pub sql: Client,
    pub db: Database<'static>,
    pub site: i64,
}

impl Bench {
    /// A new database, a backend on it, and the site "Paris".
    pub fn start() -> Self {
        let db = Database::create();
        let backend = Backend::start(&db.url());
        let mut sql = db.connect();
        let site = add_site(&mut sql, "Paris", TOKEN);
        Self {
            backend,
            sql,
            db,
            site,
        }
    }

    /// `GET /config/{TOKEN}`, which must be 200.
    #[track_caller]
    pub fn config(&self) -> Value {
        let answer = self.backend.get(&format!("/config/{TOKEN}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The names of the configured devices, as the agent gets them.
    #[track_caller]
    pub fn configured(&self) -> Vec<String> {
        self.config()["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["ip"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Adds a device with the columns of the INSERT.
    pub fn add_device(&mut self, ip: &str) {
        self.sql
            .execute(
                "INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config, expectations)
                 VALUES ($1, 'Projecteur', $2, 'projector', 'pjlink', 'A', '1', '101',
                         '{\"pjlink\": {\"port\": 4352}}', '{\"always_on\": true}')",
                &[&self.site, &ip],
            )
            .unwrap();
    }

    /// `POST /ingest`, which must be 200.
    #[track_caller]
    pub fn ingest(&self, report: &Value) -> Value {
        let answer = self.backend.ingest(TOKEN, report);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The one device of `GET /devices` with this address.
    #[track_caller]
    pub fn device(&self, ip: &str) -> Value {
        let devices = self.backend.devices(TOKEN).json();
        devices
            .as_array()
            .unwrap()
            .iter()
            .find(|device| device["ip"] == ip)
            .unwrap_or_else(|| panic!("no {ip} in {devices}"))
            .clone()
    }

    /// The first column of the first row.
    #[track_caller]
    pub fn one<T: for<'a> postgres::types::FromSql<'a>>(&mut self, query: &str) -> T {
        self.sql.query_one(query, &[]).unwrap().get(0)
    }

    /// A sample of `/metrics` by its name and labels as printed.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.backend.get("/metrics").body;
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {sample} in\n{text}"))
    }
}

/// Adds a site by bare SQL; answers its id.
pub fn add_site(sql: &mut Client, name: &str, token: &str) -> i64 {
    sql.query_one(
        "INSERT INTO sites (name, token) VALUES ($1, $2) RETURNING id",
        &[&name, &token],
    )
    .unwrap()
    .get(0)
}

/// A device in a report, as the contract has it.
pub fn reported(ip: &str, status: &str, verdict: &str) -> Value {
    json!({
        "ip": ip, "name": "renamed by the agent", "building": "Z", "floor": "9", "room": "Z9",
        "type": "toaster", "driver": "snmp", "status": status, "detail": null,
        "metrics": {"ts": "2026-01-01T00:00:00Z", "ping_ok": true}, "verdict": verdict,
    })
}

/// The same with a time.
pub fn observed(ip: &str, status: &str, verdict: &str, at: &str) -> Value {
    let mut device = reported(ip, status, verdict);
    device["observed_at"] = json!(at);
    device
}

/// A report of Paris.
pub fn report(devices: &[Value]) -> Value {
    json!({"site_name": "Paris", "devices": devices})
}

/// The same with a place in a spool.
pub fn numbered(devices: &[Value], stream: &str, seq: u64) -> Value {
    let mut report = report(devices);
    report["report"] = json!({"stream": stream, "seq": seq});
    report
}

/// Checks that an answer is a JSON error that says this.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, said: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(said), "{error:?} does not say {said:?}");
}
