//! The connection to the database breaks just when a transaction is committed:
//! between the backend and a real PostgreSQL stands a proxy that hands `COMMIT`
//! on, waits for the answer, and hands on nothing more. What was committed is
//! done once, and its request is answered as if nothing had been. Cut before
//! `COMMIT` arrives, it is not done, and is done again: once, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod admin_support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::spawn;

use admin_support::Office;
use av_proto_tests::process::{Answer, Backend};
use serde_json::{Value, json};

/// Where the next commit is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Before PostgreSQL has it.
    Before = 1,
    /// After PostgreSQL has answered.
    After = 2,
    /// The same; then nobody is let through until the proxy is told to.
    AfterAndClosed = 3,
}

/// Lets nobody through.
const CLOSED: u8 = 9;
/// Marks the transactions of requests: the backend's threads commit, too. Of a
/// report the statements are prepared, and the device's address goes along.
const MARKS: [&[u8]; 2] = [b"av.actor", b"10.9.8.7"];

/// A way to PostgreSQL that cuts commits.
struct Cutter {
    port: u16,
    /// What to do with the next commit: a [`Cut`], [`CLOSED`], or 0.
    next: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cutter = Self {
            port: listener.local_addr().unwrap().port(),
            next: Arc::default(),
            cuts: Arc::default(),
        };
        let (next, cuts) = (cutter.next.clone(), cutter.cuts.clone());
        spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if next.load(Ordering::SeqCst) == CLOSED {
                    continue;
                }
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (next, cuts) = (next.clone(), cuts.clone());
                spawn(move || serve(client, server, &next, &cuts));
            }
        });
        cutter
    }

    fn cut(&self, cut: Cut) {
        self.next.store(cut as u8, Ordering::SeqCst);
    }

    #[track_caller]
    fn has_cut(&self, times: usize) {
        assert_eq!(self.cuts.load(Ordering::SeqCst), times, "commits were cut");
    }
}

/// Hands on what comes, both ways, until a commit is to be cut.
fn serve(mut client: TcpStream, mut server: TcpStream, next: &AtomicU8, cuts: &AtomicUsize) {
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let silent = Arc::new(AtomicU8::new(0));
    let mute = silent.clone();
    let answers = spawn(move || {
        let mut block = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut block) {
            if mute.load(Ordering::SeqCst) == 1 {
                break;
            }
            if to.write_all(&block[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut block = [0; 64 * 1024];
    let mut marked = false;
    while let Ok(count @ 1..) = client.read(&mut block) {
        let has = |text: &[u8]| block[..count].windows(text.len()).any(|word| word == text);
        marked |= MARKS.into_iter().any(has);
        let cut = match has(b"COMMIT\0") && std::mem::take(&mut marked) {
            true => next.load(Ordering::SeqCst),
            false => 0,
        };
        if (1..CLOSED).contains(&cut) {
            cuts.fetch_add(1, Ordering::SeqCst);
            let after = match cut == Cut::AfterAndClosed as u8 {
                true => CLOSED,
                false => 0,
            };
            next.store(after, Ordering::SeqCst);
            silent.store(1, Ordering::SeqCst);
            if cut != Cut::Before as u8 {
                server.write_all(&block[..count]).unwrap();
                // It ends when the answer has come.
                answers.join().unwrap();
            }
            break;
        }
        if server.write_all(&block[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// An office, and a second backend whose connections to the same database lead
/// through the proxy.
struct Scene {
    office: Office,
    cutter: Cutter,
    backend: Backend,
}

impl Scene {
    fn start() -> Self {
        let office = Office::open();
        let url = office.db.url();
        let (head, tail) = url.rsplit_once(':').unwrap();
        let (port, database) = tail.split_once('/').unwrap();
        let cutter = Cutter::start(port.parse().unwrap());
        let backend = Backend::start(&format!("{head}:{}/{database}", cutter.port));
        // So that the connection of what follows is one that was used before.
        assert_eq!(backend.get("/health").status, 200);
        Self {
            office,
            cutter,
            backend,
        }
    }

    fn edit(&self, method: &str, path: &str, more: &[(&str, &str)], body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.office.editor);
        let mut headers = vec![
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        headers.extend_from_slice(more);
        let body = body.to_string();
        self.backend
            .request(method, path, &headers, Some(body.as_bytes()))
    }
}

#[test]
fn an_edit_whose_commit_had_no_answer_is_done_once_and_is_no_conflict() {
    let scene = Scene::start();
    let (site, _) = scene.office.site("Paris");
    let path = format!("/admin/sites/{site}");
    for (times, cut) in [Cut::After, Cut::Before, Cut::After]
        .into_iter()
        .enumerate()
    {
        let bearer = format!("Bearer {}", scene.office.editor);
        let read = scene
            .backend
            .request("GET", &path, &[("Authorization", &bearer)], None);
        let etag = read.headers["etag"].clone();
        let versions = "SELECT count(*) FROM config_versions";
        let before: i64 = scene.office.one(versions);
        let audited = "SELECT count(*) FROM audit";
        let noted: i64 = scene.office.one(audited);
        scene.cutter.cut(cut);
        let days = i64::try_from(times).unwrap() + 11;
        let answer = scene.edit(
            "PATCH",
            &path,
            &[("If-Match", &etag)],
            &json!({"doubt_after_days": days}),
        );
        assert_eq!(answer.status, 200, "{cut:?}: {answer:?}");
        assert_eq!(answer.json()["doubt_after_days"], days);
        scene.cutter.has_cut(times + 1);
        assert_eq!(scene.office.one::<i64>(versions), before + 1, "{cut:?}");
        assert_eq!(scene.office.one::<i64>(audited), noted + 1, "{cut:?}");
        // The answer's ETag is that of what stands.
        let again = scene.edit(
            "PATCH",
            &path,
            &[("If-Match", &answer.headers["etag"])],
            &json!({"doubt_after_days": days}),
        );
        assert_eq!(again.status, 200, "{again:?}");
    }
}

#[test]
fn what_is_added_is_added_once() {
    let scene = Scene::start();
    let (site, _) = scene.office.site("Paris");
    for (times, cut) in [Cut::After, Cut::Before].into_iter().enumerate() {
        scene.cutter.cut(cut);
        let answer = scene.edit(
            "POST",
            "/admin/devices",
            &[],
            &json!({"site_id": site, "name": "Projecteur", "ip": format!("10.0.0.{}", times + 1),
                    "type": "projector", "driver": "ping"}),
        );
        assert_eq!(answer.status, 201, "{cut:?}: {answer:?}");
        scene.cutter.has_cut(times + 1);
        let count = i64::try_from(times).unwrap() + 1;
        assert_eq!(
            scene.office.one::<i64>("SELECT count(*) FROM devices"),
            count
        );
    }
}

#[test]
fn a_report_whose_commit_had_no_answer_is_taken_once_with_a_number_and_without() {
    let scene = Scene::start();
    let (_, token) = scene.office.site("Paris");
    scene
        .office
        .db
        .execute("INSERT INTO devices (site_id, name, ip, device_type, driver) SELECT id, 'P', '10.9.8.7', 'projector', 'ping' FROM sites");
    let mut cuts = 0;
    for numbered in [false, true] {
        for cut in [Cut::After, Cut::Before] {
            cuts += 1;
            // Each is another observation: were it taken twice, the history
            // without times of the agent's would have two.
            let status = if cuts % 2 == 0 { "online" } else { "offline" };
            let mut report = json!({"site_name": "Paris", "devices": [{
                "ip": "10.9.8.7", "name": "P", "building": "", "floor": "", "room": "",
                "type": "projector", "driver": "ping", "status": status, "detail": cuts.to_string(),
                "metrics": {}, "verdict": "unknown",
            }]});
            if numbered {
                report["report"] = json!({"stream": "s", "seq": cuts});
            }
            let before: i64 = scene.office.one("SELECT count(*) FROM observations");
            scene.cutter.cut(cut);
            let answer = scene.backend.ingest(&token, &report);
            assert_eq!(answer.status, 200, "{cut:?} {numbered}: {answer:?}");
            scene.cutter.has_cut(cuts);
            let count: i64 = scene.office.one("SELECT count(*) FROM observations");
            assert_eq!(count, before + 1, "{cut:?} {numbered}");
            let detail: String = scene.office.one("SELECT detail FROM device_states");
            assert_eq!(detail, cuts.to_string());
        }
    }
}

#[test]
fn where_nobody_can_say_it_the_answer_does_not_pretend() {
    let scene = Scene::start();
    let (site, _) = scene.office.site("Paris");
    let path = format!("/admin/sites/{site}");
    let bearer = format!("Bearer {}", scene.office.editor);
    let read = scene
        .backend
        .request("GET", &path, &[("Authorization", &bearer)], None);
    scene.cutter.cut(Cut::AfterAndClosed);
    let answer = scene.edit(
        "PATCH",
        &path,
        &[("If-Match", &read.headers["etag"])],
        &json!({"doubt_after_days": 5}),
    );
    admin_support::assert_error(&answer, 503, "it is not known whether the change was made");
    scene.cutter.has_cut(1);
    // It was; and everything goes on when the database can be reached again.
    scene.cutter.next.store(0, Ordering::SeqCst);
    scene.backend.wait_until_healthy();
    let again = scene
        .backend
        .request("GET", &path, &[("Authorization", &bearer)], None);
    assert_eq!(again.json()["doubt_after_days"], 5, "{again:?}");
}
