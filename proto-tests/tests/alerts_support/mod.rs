//! A receiver of webhooks, and a backend with an administrator's token.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code, of which each test file uses a part"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend, PATIENCE};
use av_proto_tests::smtp_sink::take_one;
use postgres::Client;
use serde_json::{Value, json};

/// The token of [`Desk`]'s site.
pub const SITE_TOKEN: &str = "paris-token-5f2c";
/// The API token of the administrator.
const API_TOKEN: &str = "avt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// The API token of the viewer.
const VIEWER_TOKEN: &str = "avt_fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// The session of the viewer's browser.
const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// Everything that the backend does by the clock, within moments.
pub fn quickly(command: &mut Command) {
    command
        .env("AV_ALERTS_EVERY_MS", "50")
        .env("AV_NOTIFY_EVERY_MS", "50")
        .env("AV_NOTIFY_RETRY_MS", "100")
        .env("AV_HISTORY_EVERY_MS", "200");
}

/// A database with the site "Paris", a backend on it, and an administrator.
pub struct Desk {
    pub backend: Backend,
    pub sql: Client,
    pub site: i64,
    pub db: Database<'static>,
}

impl Desk {
    pub fn open(configure: impl FnOnce(&mut Command)) -> Self {
        let db = Database::create();
        let backend = Backend::spawn(&db.url(), |command| {
            quickly(command);
            configure(command);
        });
        backend.wait_until_healthy();
        let mut sql = db.connect();
        let site = sql
            .query_one(
                "INSERT INTO sites (name, token) VALUES ('Paris', $1) RETURNING id",
                &[&SITE_TOKEN],
            )
            .unwrap()
            .get(0);
        for (name, token) in [("admin", API_TOKEN), ("viewer", VIEWER_TOKEN)] {
            sql.execute(
                "WITH u AS (INSERT INTO users (name, password_hash, role) VALUES ($1, 'none', $1)
                            RETURNING id)
                 INSERT INTO api_tokens (user_id, name, digest)
                 SELECT id, 'tests', 'sha256:' || encode(sha256(convert_to($2, 'UTF8')), 'hex') FROM u",
                &[&name, &token],
            )
            .unwrap();
        }
        Self {
            backend,
            sql,
            site,
            db,
        }
    }

    /// Adds a device that is always expected to be on.
    pub fn add_device(&mut self, ip: &str, room: &str) -> i64 {
        self.sql
            .query_one(
                "INSERT INTO devices (site_id, name, ip, building, floor, room, expectations)
                 VALUES ($1, 'Device ' || $2, $2, 'A', '1', $3, '{\"always_on\": true}') RETURNING id",
                &[&self.site, &ip, &room],
            )
            .unwrap()
            .get(0)
    }

    /// Reports devices, each with a verdict.
    #[track_caller]
    pub fn report(&self, devices: &[(&str, &str)]) {
        let devices: Vec<Value> = devices
            .iter()
            .map(|(ip, verdict)| {
                let status = if *verdict == "ok" {
                    "online"
                } else {
                    "offline"
                };
                json!({"ip": ip, "name": "x", "building": "", "floor": "", "room": "",
                       "type": "other", "driver": "ping", "status": status, "detail": null,
                       "metrics": {}, "verdict": verdict})
            })
            .collect();
        let answer = self.backend.ingest(
            SITE_TOKEN,
            &json!({"site_name": "Paris", "devices": devices}),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A request of the administrator.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_as(API_TOKEN, method, path, body)
    }

    /// A request of the viewer.
    #[track_caller]
    pub fn ask_as_viewer(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_as(VIEWER_TOKEN, method, path, body)
    }

    #[track_caller]
    fn ask_as(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let text = body.map(Value::to_string);
        self.backend.request(
            method,
            path,
            &[
                ("Authorization", &bearer),
                ("Content-Type", "application/json"),
            ],
            text.as_deref().map(str::as_bytes),
        )
    }

    /// `GET path` of the administrator, which must be 200.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A page as the viewer's browser gets it, in English; it must be 200.
    #[track_caller]
    pub fn page(&mut self, path: &str) -> String {
        self.sql
            .execute(
                "INSERT INTO sessions (digest, user_id, expires_at, ip)
                 SELECT 'sha256:' || encode(sha256(convert_to($1, 'UTF8')), 'hex'), id,
                        now() + interval '1 day', '127.0.0.1'
                   FROM users WHERE name = 'viewer' ON CONFLICT DO NOTHING",
                &[&SESSION],
            )
            .unwrap();
        let cookie = format!("av_session={SESSION}");
        let answer = self.backend.request(
            "GET",
            path,
            &[("Cookie", &cookie), ("Accept-Language", "en")],
            None,
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// `POST path` of the administrator, which must be 201.
    #[track_caller]
    pub fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", path, Some(body));
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        assert_eq!(
            answer.headers["location"],
            format!("{path}/{}", made["id"]),
            "{answer:?}"
        );
        made
    }

    /// The open alerts as (kind, address) in the order of their ids.
    #[track_caller]
    pub fn open_alerts(&mut self) -> Vec<(String, Option<String>)> {
        self.sql
            .query(
                "SELECT kind, device_ip FROM alerts WHERE closed_at IS NULL ORDER BY id",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    /// Waits until `condition` gives a value.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "waited in vain until {what}\n{}",
                self.backend.process.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until housekeeping has looked at the alerts twice from now on.
    pub fn wait_for_rounds(&mut self) {
        for _ in 0..2 {
            let seen: std::time::SystemTime = self.one("SELECT now()");
            self.wait("the alerts are looked after", |desk| {
                desk.sql
                    .query_opt("SELECT FROM backend_watch WHERE looked_at > $1", &[&seen])
                    .unwrap()
                    .map(|_| ())
            });
        }
    }

    /// The first column of the first row.
    #[track_caller]
    pub fn one<T: for<'a> postgres::types::FromSql<'a>>(&mut self, query: &str) -> T {
        self.sql.query_one(query, &[]).unwrap().get(0)
    }
}

/// A webhook as it arrived.
#[derive(Debug, Clone)]
pub struct Hook {
    pub message: String,
    /// `Idempotency-Key`.
    pub key: String,
    pub timestamp: String,
    pub signature: String,
    pub body: String,
    /// What it was answered with.
    pub status: u16,
}

impl Hook {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// (what, address) of each event, sorted; the address of the agent's is "".
    pub fn events(&self) -> Vec<(String, String)> {
        let mut events: Vec<(String, String)> = self.json()["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                (
                    event["what"].as_str().unwrap().to_owned(),
                    event["alert"]["device"]["ip"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                )
            })
            .collect();
        events.sort();
        events
    }
}

/// An HTTP server that keeps what is posted to it. It lives as long as the
/// test process.
pub struct Receiver {
    pub url: String,
    hooks: Arc<Mutex<Vec<Hook>>>,
    fail: Arc<AtomicU32>,
    delay_ms: Arc<AtomicU64>,
}

impl Receiver {
    /// Fails the first so many with 503; answers each after `delay`.
    pub fn start(fail: u32, delay: Duration) -> Self {
        let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook/secret-path", server.server_addr());
        let hooks = Arc::new(Mutex::new(Vec::new()));
        let fail = Arc::new(AtomicU32::new(fail));
        let delay_ms = Arc::new(AtomicU64::new(0));
        let (kept, failing, slow) = (hooks.clone(), fail.clone(), delay_ms.clone());
        std::thread::spawn(move || {
            for mut request in server.incoming_requests() {
                std::thread::sleep(delay);
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).unwrap();
                let header = |name: &'static str| {
                    request
                        .headers()
                        .iter()
                        .find(|header| header.field.equiv(name))
                        .map(|header| header.value.as_str().to_owned())
                        .unwrap_or_default()
                };
                let status = if take_one(&failing) { 503 } else { 200 };
                kept.lock().unwrap().push(Hook {
                    message: header("X-AV-Message"),
                    key: header("Idempotency-Key"),
                    timestamp: header("X-AV-Timestamp"),
                    signature: header("X-AV-Signature"),
                    body,
                    status,
                });
                let wait = Duration::from_millis(slow.load(Ordering::SeqCst));
                let answer = move || {
                    std::thread::sleep(wait);
                    // The sender may be gone.
                    let _ = request.respond(tiny_http::Response::empty(status));
                };
                if wait.is_zero() {
                    answer();
                } else {
                    std::thread::spawn(answer);
                }
            }
        });
        Self {
            url,
            hooks,
            fail,
            delay_ms,
        }
    }

    /// Fails the next so many with 503.
    pub fn fail_next(&self, posts: u32) {
        self.fail.store(posts, Ordering::SeqCst);
    }

    /// Lets so much time pass from now on between a post that was taken and
    /// the answer that says so.
    pub fn answer_after(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Everything that was posted.
    pub fn hooks(&self) -> Vec<Hook> {
        self.hooks.lock().unwrap().clone()
    }

    /// What was taken.
    pub fn taken(&self) -> Vec<Hook> {
        self.hooks()
            .into_iter()
            .filter(|hook| hook.status == 200)
            .collect()
    }
}

/// HMAC-SHA-256 in hex, by Python: another implementation than the backend's.
pub fn hmac(secret: &str, text: &str) -> String {
    let mut child = Command::new("python3")
        .args([
            "-c",
            "import hashlib, hmac, sys
print(hmac.new(sys.argv[1].encode(), sys.stdin.buffer.read(), hashlib.sha256).hexdigest())",
            secret,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
