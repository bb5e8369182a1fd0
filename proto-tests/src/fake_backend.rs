//! A backend that misbehaves to order: what an agent must survive.
//!
//! It speaks HTTP over plain sockets, because a well-made server library
//! cannot send half a body or hang.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness fails loudly, with what it was doing"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use av_proto::hash::{HashedDevice, HashedSite};
use serde_json::{Value, json};

/// How `GET /config/...` is answered.
#[derive(Debug, Clone)]
pub enum ConfigAnswer {
    /// As the contract says, with ETag and 304.
    Site(Value),
    /// 200 with this body, whatever it is.
    Raw(Vec<u8>),
    /// A status with a JSON error.
    Status(u16),
    /// A redirect to this address.
    Redirect(String),
    /// The head of an answer and half of its body, then the end.
    HalfBody(Value),
    /// Nothing, for as long as the other side waits.
    Hang,
    /// The head, then a byte of the body now and then, for ever.
    Drip,
    /// As [`ConfigAnswer::Site`] without an ETag, every byte alone.
    Slowly(Value),
    /// These bytes, head and body, and the end.
    Bytes(Vec<u8>),
    /// This, and then the other again and again, as long as somebody reads.
    Endless {
        /// What comes first.
        head: &'static str,
        /// What comes then.
        again: &'static str,
    },
}

/// How `POST /ingest` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestAnswer {
    /// 200 and kept.
    Take,
    /// Kept, and the connection closed without an answer: as when the answer
    /// is lost on its way.
    TakeInSilence,
    /// This status with a JSON error, and not kept.
    Status(u16),
    /// 200 with a web page, as a captive portal answers.
    Portal,
    /// 200 with this body.
    Says(&'static str),
    /// 200 with a body that does not end.
    Endless,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and path: `GET /config`.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
struct Shared {
    config: Mutex<ConfigAnswer>,
    ingest: Mutex<IngestAnswer>,
    seen: Mutex<Vec<Seen>>,
    reports: Mutex<Vec<Value>>,
    /// Knows the path with the token in it alone, as earlier backends do.
    older: AtomicBool,
    /// How far its clock is ahead.
    ahead: Mutex<jiff::SignedDuration>,
    /// Its answers do not say the time.
    dateless: AtomicBool,
    stopped: AtomicBool,
}

/// A running fake backend; it stops when dropped.
#[derive(Debug)]
pub struct FakeBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeBackend {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start(config: ConfigAnswer) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), config)
    }

    /// Starts one at an address, such as that of an earlier one.
    ///
    /// # Panics
    /// When the address cannot be had.
    #[must_use]
    pub fn start_at(address: SocketAddr, config: ConfigAnswer) -> Self {
        let listener = TcpListener::bind(address).expect("the fake backend's address");
        let address = listener.local_addr().expect("the fake backend's address");
        let shared = Arc::new(Shared {
            config: Mutex::new(config),
            ingest: Mutex::new(IngestAnswer::Take),
            seen: Mutex::new(Vec::new()),
            reports: Mutex::new(Vec::new()),
            older: AtomicBool::new(false),
            ahead: Mutex::default(),
            dateless: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&for_thread);
                thread::spawn(move || {
                    // The other side going away is its right.
                    let _ = serve(stream, &shared);
                });
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers polls like this from now on.
    pub fn answer_config(&self, answer: ConfigAnswer) {
        *lock(&self.shared.config) = answer;
    }

    /// From now on the backend of an earlier version, which knows the
    /// configuration only at `/config/{token}`, or that of this one.
    pub fn be_older(&self, older: bool) {
        self.shared.older.store(older, Ordering::SeqCst);
    }

    /// Answers reports like this from now on.
    pub fn answer_ingest(&self, answer: IngestAnswer) {
        *lock(&self.shared.ingest) = answer;
    }

    /// Sets its clock so far ahead of this machine's.
    pub fn set_ahead(&self, by: jiff::SignedDuration) {
        *lock(&self.shared.ahead) = by;
    }

    /// From now on without a `Date`, or with one again.
    pub fn set_dateless(&self, dateless: bool) {
        self.shared.dateless.store(dateless, Ordering::SeqCst);
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The polls so far.
    #[must_use]
    pub fn polls(&self) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|request| request.line.starts_with("GET /config"));
        seen
    }

    /// The reports that were kept.
    #[must_use]
    pub fn reports(&self) -> Vec<Value> {
        lock(&self.shared.reports).clone()
    }
}

impl Drop for FakeBackend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then closes the port.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to whoever asks, with the clock of the answers.
struct Wire<'a> {
    stream: TcpStream,
    shared: &'a Shared,
}

impl Wire<'_> {
    /// The header that says what time it is, where there is one.
    fn date(&self) -> String {
        if self.shared.dateless.load(Ordering::SeqCst) {
            return String::new();
        }
        let now = jiff::Timestamp::now() + *lock(&self.shared.ahead);
        now.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n")
            .to_string()
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = Wire { stream, shared };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || shared.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => break,
            }
        }
        let line: Vec<&str> = line.split_whitespace().collect();
        let seen = Seen {
            line: format!("{} {}", line[0], line.get(1).unwrap_or(&"")),
            headers,
        };
        let length = seen
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        lock(&shared.seen).push(seen.clone());
        let older = shared.older.load(Ordering::SeqCst);
        if (seen.line == "GET /config" && !older) || seen.line.starts_with("GET /config/") {
            let says = if older { "" } else { "X-Site-Auth: bearer\r\n" };
            let answer = lock(&shared.config).clone();
            answer_poll(&mut stream, &seen, says, answer)?;
        } else if seen.line == "POST /ingest" {
            let answer = *lock(&shared.ingest);
            if matches!(answer, IngestAnswer::Take | IngestAnswer::TakeInSilence) {
                lock(&shared.reports)
                    .push(serde_json::from_slice(&body).expect("a report is JSON"));
            }
            match answer {
                IngestAnswer::Take => {
                    respond(&mut stream, "200 OK", "", br#"{"ok":true,"upserted":1}"#)?;
                }
                IngestAnswer::TakeInSilence => return Ok(()),
                IngestAnswer::Status(status) => error(&mut stream, status)?,
                IngestAnswer::Portal => {
                    respond(&mut stream, "200 OK", "", b"<html>Please log in</html>")?;
                }
                IngestAnswer::Says(body) => respond(&mut stream, "200 OK", "", body.as_bytes())?,
                IngestAnswer::Endless => {
                    return endless(&mut stream, "HTTP/1.1 200 OK\r\n\r\n", "{\"ok\":true}");
                }
            }
        } else {
            error(&mut stream, 404)?;
        }
    }
}

fn answer_poll(
    stream: &mut Wire<'_>,
    seen: &Seen,
    says: &str,
    answer: ConfigAnswer,
) -> std::io::Result<()> {
    match answer {
        ConfigAnswer::Site(site) => {
            let etag = format!("\"{}\"", site["config_hash"].as_str().unwrap_or_default());
            let header = format!("ETag: {etag}\r\n{says}");
            if seen.header("if-none-match") == Some(&etag) {
                let date = stream.date();
                return write!(stream, "HTTP/1.1 304 Not Modified\r\n{date}{header}\r\n");
            }
            respond(stream, "200 OK", &header, site.to_string().as_bytes())
        }
        ConfigAnswer::Raw(body) => respond(stream, "200 OK", says, &body),
        ConfigAnswer::Status(status) => error_with(stream, status, says),
        ConfigAnswer::Redirect(to) => {
            let header = format!("Location: {to}\r\n{says}");
            respond(stream, "302 Found", &header, b"")
        }
        ConfigAnswer::HalfBody(site) => {
            let body = site.to_string();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                body.len(),
                &body[..body.len() / 2]
            )?;
            stream.stream.shutdown(std::net::Shutdown::Both)
        }
        ConfigAnswer::Hang => {
            let mut buffer = [0; 1];
            while stream.stream.read(&mut buffer)? > 0 {}
            Ok(())
        }
        ConfigAnswer::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")?;
            loop {
                thread::sleep(Duration::from_millis(200));
                stream.write_all(b" ")?;
            }
        }
        ConfigAnswer::Slowly(site) => {
            stream.stream.set_nodelay(true)?;
            let body = site.to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            for byte in (head + &body).into_bytes() {
                stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
        ConfigAnswer::Bytes(answer) => {
            stream.write_all(&answer)?;
            stream.stream.shutdown(std::net::Shutdown::Both)
        }
        ConfigAnswer::Endless { head, again } => endless(stream, head, again),
    }
}

fn endless(stream: &mut Wire<'_>, head: &str, again: &str) -> std::io::Result<()> {
    stream.write_all(head.as_bytes())?;
    let much = again.repeat(64 * 1024 / again.len().max(1));
    while !stream.shared.stopped.load(Ordering::SeqCst) {
        stream.write_all(much.as_bytes())?;
    }
    Ok(())
}

fn error(stream: &mut Wire<'_>, status: u16) -> std::io::Result<()> {
    error_with(stream, status, "")
}

fn error_with(stream: &mut Wire<'_>, status: u16, headers: &str) -> std::io::Result<()> {
    let body = json!({ "error": format!("status {status} to order") }).to_string();
    let status = format!("{status} To Order");
    respond(stream, &status, headers, body.as_bytes())
}

fn respond(stream: &mut Wire<'_>, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let date = stream.date();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{}Content-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        date,
        body.len()
    )?;
    stream.write_all(body)
}

/// The body of `GET /config/...` for a site with these devices, its hash as
/// the contract says. A device needs `ip`, `name` and `driver`; the other
/// fields are filled in.
///
/// # Panics
/// When a device is not an object.
#[must_use]
pub fn site(name: &str, devices: &[Value]) -> Value {
    let devices: Vec<Value> = devices
        .iter()
        .map(|given| {
            let mut device = json!({
                "building": "", "floor": "", "room": "", "type": "other",
                "snmp": {}, "pjlink": {}, "expectations": {}, "driver_config": {},
            });
            for (key, value) in given.as_object().expect("a device is an object") {
                device[key] = value.clone();
            }
            for section in ["snmp", "pjlink"] {
                if let Some(settings) = device["driver_config"].get(section) {
                    device[section] = settings.clone();
                }
            }
            device
        })
        .collect();
    let text = |device: &Value, key: &str| device[key].as_str().expect("a text").to_owned();
    let owned: Vec<[String; 9]> = devices
        .iter()
        .map(|device| {
            [
                text(device, "ip"),
                text(device, "name"),
                text(device, "building"),
                text(device, "floor"),
                text(device, "room"),
                text(device, "type"),
                text(device, "driver"),
                device["driver_config"].to_string(),
                device["expectations"].to_string(),
            ]
        })
        .collect();
    let hash = HashedSite {
        site_name: name,
        timezone: "Europe/Paris",
        doubt_after_days: 2,
        ok_interval_s: 60,
        ko_interval_s: 15,
        devices: owned
            .iter()
            .map(
                |[
                    ip,
                    name,
                    building,
                    floor,
                    room,
                    device_type,
                    driver,
                    config,
                    expectations,
                ]| {
                    HashedDevice {
                        ip,
                        name,
                        building,
                        floor,
                        room,
                        device_type,
                        driver,
                        driver_config: Some(config),
                        expectations: Some(expectations),
                    }
                },
            )
            .collect(),
    }
    .hash()
    .expect("devices of ours hash");
    json!({
        "config_hash": hash.as_str(), "site_name": name, "timezone": "Europe/Paris",
        "doubt_after_days": 2, "reporting": {"ok_interval_s": 60, "ko_interval_s": 15},
        "devices": devices,
    })
}

/// A `config.json` as a technician writes it on the first day.
#[must_use]
pub fn first_config(backend_url: &str) -> Value {
    json!({ "site_name": "Paris", "site_token": TOKEN, "backend_url": backend_url })
}

/// The token of [`first_config`], to look for where it must not be.
pub const TOKEN: &str = "s3cret-site-token";
