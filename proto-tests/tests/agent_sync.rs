//! The agent's sync with backends that behave and backends that do not.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;
use std::time::SystemTime;

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, TOKEN, first_config, site};
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, http};
use serde_json::{Value, json};

/// A projector that answers and the device that stands for it.
fn projector(name: &str) -> (Projector, Value) {
    let simulated = Projector::start(Config::new(([127, 0, 0, 1], 0).into())).unwrap();
    let address = simulated.addr();
    let device = json!({
        "ip": address.ip().to_string(), "name": name, "driver": "pjlink", "type": "projector",
        "driver_config": {"pjlink": {"port": address.port()}},
    });
    (simulated, device)
}

fn start(backend: &FakeBackend) -> Agent {
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.start();
    agent
}

/// Waits until the agent's status is as wanted.
#[track_caller]
fn wait_status(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    agent.process.as_ref().unwrap().wait_for(what, || {
        Some(agent.get("/api/status")?.json()).filter(&wanted)
    })
}

#[track_caller]
fn wait_synced(agent: &Agent, site: &Value) -> Value {
    wait_status(agent, "the site is applied", |status| {
        status["sync"]["last_sync_ok"] == true
            && status["sync"]["current_hash"] == site["config_hash"]
    })
}

fn modified(agent: &Agent) -> Vec<(String, SystemTime)> {
    let dir = agent.config_file().parent().unwrap().to_owned();
    let mut files: Vec<(String, SystemTime)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.metadata().unwrap().modified().unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_change_is_applied_once_and_then_nothing_is_touched() {
    let (_projector, device) = projector("Projecteur Salle A");
    let empty = site("Paris", &[]);
    let backend = FakeBackend::start(ConfigAnswer::Site(empty.clone()));
    let agent = start(&backend);
    let process = agent.process.as_ref().unwrap();
    wait_synced(&agent, &empty);

    let one = site("Paris", &[device]);
    let hash = one["config_hash"].as_str().unwrap();
    backend.answer_config(ConfigAnswer::Site(one.clone()));
    wait_synced(&agent, &one);
    wait_status(
        &agent,
        "the projector is watched without a restart",
        |status| status["devices"][0]["verdict"] == "ok",
    );
    // The very next poll is up to date, and the ones after it.
    let up_to_date = format!("✅ Config is up-to-date (hash: {}...)", &hash[..6]);
    process.wait_for_log(&up_to_date, 1);
    let files = modified(&agent);
    process.wait_for_log(&up_to_date, 3);
    assert_eq!(modified(&agent), files, "an equal hash touches no file");

    let log = process.log();
    let old = &empty["config_hash"].as_str().unwrap()[..6];
    let lines = [
        "🚀 Config sync loop started (interval: 0.0166667 min)".to_owned(),
        format!("🔄 Fetching config from {}/config/...", backend.url()),
        "📥 Config changed! Updating from backend...".to_owned(),
        format!("   Old hash: {old}..."),
        format!("   New hash: {}...", &hash[..6]),
        "✅ Config updated successfully! 1 devices configured.".to_owned(),
        "📢 Config updated, collector will reload on next cycle".to_owned(),
        up_to_date,
    ];
    for line in &lines {
        assert!(
            log.lines()
                .any(|logged| logged.ends_with(&format!("] {line}"))),
            "no line {line:?} in\n{log}"
        );
    }
    assert_eq!(log.matches("📥 Config changed!").count(), 2, "{log}");
    let last = backend.polls().pop().unwrap();
    let etag = format!("\"{hash}\"");
    assert_eq!(last.header("if-none-match"), Some(etag.as_str()));
    assert!(!log.contains(TOKEN), "the token is in the log");
}

#[test]
fn the_token_goes_in_a_header_and_in_the_path_for_an_older_backend_alone() {
    let good = site("Paris", &[]);
    let backend = FakeBackend::start(ConfigAnswer::Site(good.clone()));
    let agent = start(&backend);
    let process = agent.process.as_ref().unwrap();
    wait_synced(&agent, &good);
    let bearer = format!("Bearer {TOKEN}");
    let by_path = format!("GET /config/{TOKEN}");
    let lines = || -> Vec<String> { backend.polls().into_iter().map(|s| s.line).collect() };
    let more = |times: usize| {
        let known = process.log().matches("✅ Config is up-to-date").count();
        process.wait_for_log("✅ Config is up-to-date", known + times);
    };
    more(2);
    for poll in backend.polls() {
        assert_eq!(poll.line, "GET /config");
        assert_eq!(poll.header("authorization"), Some(bearer.as_str()));
    }

    // Rolled back: the poll that finds it out works, and those after it go to
    // the path at once.
    backend.be_older(true);
    let before = lines().len();
    more(4);
    backend.be_older(false);
    let older = lines().split_off(before);
    assert!(older.contains(&by_path), "{older:?}");
    let first = older.iter().position(|line| *line == by_path).unwrap();
    let by_header = older[first..].iter().filter(|line| **line != by_path);
    // The last ones may be of the newer backend again.
    assert!(by_header.count() <= 1, "{older:?}");

    // Upgraded: within a poll the path has no token any more.
    more(2);
    let before = lines().len();
    more(3);
    let newer = lines().split_off(before);
    assert!(newer.iter().all(|line| line == "GET /config"), "{newer:?}");

    // A token that is not known is not tried in the path.
    let before = lines().len();
    backend.answer_config(ConfigAnswer::Status(404));
    process.wait_for_log("does not know this site's token (404)", 2);
    let refused = lines().split_off(before);
    assert!(
        refused.iter().all(|line| line == "GET /config"),
        "{refused:?}"
    );
    let log = process.log();
    assert_eq!(log.matches("❌ Config sync failed").count(), 2, "{log}");
    assert!(!log.contains(TOKEN), "the token is in the log");
}

#[test]
fn a_bad_backend_changes_nothing_and_is_said() {
    let (_projector, device) = projector("Projecteur");
    let good = site("Paris", &[device]);
    let backend = FakeBackend::start(ConfigAnswer::Site(good.clone()));
    let agent = start(&backend);
    wait_synced(&agent, &good);
    let file = fs::read(agent.config_file()).unwrap();

    let other = site(
        "Lyon",
        &[json!({"ip": "127.0.0.1", "name": "x", "driver": "ping"})],
    );
    let raw = |change: &dyn Fn(&mut Value)| {
        let mut body = other.clone();
        change(&mut body);
        ConfigAnswer::Raw(body.to_string().into_bytes())
    };
    let elsewhere = FakeBackend::start(ConfigAnswer::Site(other.clone()));
    for (answer, said) in [
        (ConfigAnswer::Status(404), "does not know this site's token"),
        (
            ConfigAnswer::Status(500),
            "the backend answered 500: status 500 to order",
        ),
        (
            ConfigAnswer::HalfBody(other.clone()),
            "backend not reachable",
        ),
        (
            ConfigAnswer::Raw(b"<html>hello</html>".to_vec()),
            "not a configuration: document: is not JSON",
        ),
        (ConfigAnswer::Raw(vec![b' '; 40 << 20]), "larger than"),
        (
            raw(&|body| body["doubt_after_days"] = json!("two")),
            "doubt_after_days: is a text, not a whole number",
        ),
        (
            raw(&|body| {
                // Without driver_config the hash is trusted, so that it is
                // validation which finds this.
                body["devices"] = json!([]);
                body["site_name"] = json!("");
            }),
            "configuration refused: site_name: is empty",
        ),
        (
            raw(&|body| body["config_hash"] = json!("0123456789abcdef0123456789abcdef")),
            "config_hash: is 0123456789abcdef0123456789abcdef, but the configuration received hashes to",
        ),
        (
            ConfigAnswer::Redirect(format!("{}/config/{TOKEN}", elsewhere.url())),
            "the backend answered 302",
        ),
    ] {
        backend.answer_config(answer);
        let status = wait_status(&agent, said, |status| {
            let error = status["sync"]["last_sync_error"].as_str();
            error.is_some_and(|error| error.contains(said))
        });
        assert_eq!(status["sync"]["last_sync_ok"], false);
        assert_eq!(status["sync"]["current_hash"], good["config_hash"]);
        assert_eq!(status["site_name"], "Paris");
        assert_eq!(fs::read(agent.config_file()).unwrap(), file, "{said}");
    }
    assert_eq!(
        elsewhere.seen().len(),
        0,
        "a redirect carried the token away"
    );
    let page = agent.get("/").unwrap().body;
    assert!(page.contains("❌ the backend answered 302"), "{page}");

    // And back, without a restart.
    backend.answer_config(ConfigAnswer::Site(good.clone()));
    let status = wait_synced(&agent, &good);
    assert_eq!(status["sync"]["refused"], Value::Null);
    let log = agent.process.as_ref().unwrap().log();
    assert!(log.contains("❌ Config sync failed: "), "{log}");
    assert!(log.contains("❌ Config refused: "), "{log}");
    assert!(!log.contains(TOKEN), "the token is in the log");
}

#[test]
fn a_hanging_backend_and_one_that_is_gone_are_survived() {
    let (_projector, device) = projector("Projecteur");
    let good = site("Paris", &[device]);
    let backend = FakeBackend::start(ConfigAnswer::Site(good.clone()));
    let mut agent = start(&backend);
    wait_synced(&agent, &good);

    let polls = backend.polls().len();
    backend.answer_config(ConfigAnswer::Drip);
    let process = agent.process.as_ref().unwrap();
    process.wait_for("a poll hangs", || {
        (backend.polls().len() > polls).then_some(())
    });
    // The page answers meanwhile.
    assert_eq!(agent.get("/").unwrap().status, 200);
    let status = wait_status(&agent, "the hang ends with an error", |status| {
        status["sync"]["last_sync_ok"] == false
    });
    let error = status["sync"]["last_sync_error"].as_str().unwrap();
    assert!(error.contains("no whole answer in time"), "{error}");

    // Gone altogether, also across a restart of the agent.
    let address = backend.address();
    drop(backend);
    agent.start();
    let status = wait_status(&agent, "the backend is missed", |status| {
        status["sync"]["last_sync_ok"] == false && !status["devices"][0].is_null()
    });
    assert_eq!(status["devices"][0]["name"], "Projecteur");
    assert_eq!(status["sync"]["current_hash"], good["config_hash"]);
    assert!(!status["sync"]["config_updated_at"].is_null());

    let _backend = FakeBackend::start_at(address, ConfigAnswer::Site(good.clone()));
    wait_synced(&agent, &good);
}

#[test]
fn a_file_edited_by_hand_is_brought_back_and_a_broken_one_replaced() {
    let (_projector, device) = projector("Projecteur");
    let good = site("Paris", &[device]);
    let backend = FakeBackend::start(ConfigAnswer::Site(good.clone()));
    let mut agent = start(&backend);
    wait_synced(&agent, &good);
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config is up-to-date", 1);
    let file = fs::read_to_string(agent.config_file()).unwrap();

    fs::write(
        agent.config_file(),
        file.replace("Projecteur", "Meddled with"),
    )
    .unwrap();
    process.wait_for("the file is brought back", || {
        (fs::read_to_string(agent.config_file()).unwrap() == file).then_some(())
    });

    // Half a file at the next start: the backup serves, then the backend.
    fs::write(agent.config_file(), &file[..file.len() / 2]).unwrap();
    agent.start();
    wait_synced(&agent, &good);
    let process = agent.process.as_ref().unwrap();
    process.wait_for("the file is whole again", || {
        (fs::read_to_string(agent.config_file()).ok()? == file).then_some(())
    });
    process.wait_for_log("the backup serves", 1);
}

#[test]
fn a_bad_device_is_shown_and_reported_while_the_good_ones_run() {
    let (_projector, device) = projector("Bon");
    let bad = json!({
        "ip": "192.0.2.300", "name": "<b>Mauvais</b>", "driver": "pjlink",
        "driver_config": {"pjlink": {"port": 0, "password": "hunter2"}},
    });
    let both = site("Paris", &[device, bad]);
    let backend = FakeBackend::start(ConfigAnswer::Site(both.clone()));
    let agent = start(&backend);
    wait_synced(&agent, &both);
    let status = wait_status(&agent, "the good one runs", |status| {
        status["devices"][0]["verdict"] == "ok"
    });
    let rejected = &status["rejected_devices"][0];
    assert_eq!(rejected["ip"], "192.0.2.300");
    assert_eq!(rejected["errors"][0]["field"], "ip");
    assert_eq!(rejected["errors"][1]["field"], "driver_config.pjlink.port");
    let page = agent.get("/").unwrap().body;
    assert!(page.contains("is not watched: ip: "), "{page}");
    assert!(!page.contains("<b>Mauvais"), "{page}");
    let process = agent.process.as_ref().unwrap();
    process.wait_for("the backend is told", || {
        backend
            .reports()
            .iter()
            .any(|report| report["agent"]["rejected_devices"][0]["ip"] == "192.0.2.300")
            .then_some(())
    });
    for text in [page, status.to_string(), process.log()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn sync_now_is_for_this_page_only_and_nothing_shows_a_secret() {
    let (_projector, mut device) = projector("Projecteur");
    device["driver_config"]["pjlink"]["password"] = json!("hunter2");
    let good = site("Paris", &[device]);
    let backend = FakeBackend::start(ConfigAnswer::Site(good.clone()));
    let mut agent = Agent::new(&first_config(&backend.url()));
    agent.set("CONFIG_SYNC_INTERVAL_MIN", "60");
    agent.start();
    wait_synced(&agent, &good);
    let process = agent.process.as_ref().unwrap();
    let polls = backend.polls().len();

    let sync = format!("{}/sync", agent.url);
    let post = |headers: &[(&str, &str)]| http("POST", &sync, headers, Some(b"")).unwrap();
    assert_eq!(post(&[("Origin", "http://evil.example")]).status, 403);
    assert_eq!(post(&[("Sec-Fetch-Site", "cross-site")]).status, 403);
    assert_eq!(http("GET", &sync, &[], None).unwrap().status, 405);
    assert_eq!(backend.polls().len(), polls);

    let answer = post(&[("Origin", &agent.url), ("Accept", "text/html")]);
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers["location"], "/");
    process.wait_for("the page's button polls", || {
        (backend.polls().len() == polls + 1).then_some(())
    });
    assert_eq!(post(&[]).status, 202);
    process.wait_for("a tool polls", || {
        (backend.polls().len() == polls + 2).then_some(())
    });

    let status = wait_status(&agent, "the sweep is shown", |status| {
        !status["devices"][0].is_null() && status["sync"]["last_sync_ok"] == true
    });
    for field in [
        "last_sync_at",
        "last_sync_ok",
        "last_sync_error",
        "current_hash",
        "backend_hash",
        "config_updated_at",
    ] {
        assert!(
            status["sync"].get(field).is_some(),
            "no {field} in {status}"
        );
    }
    for (path, code) in [
        ("/", 200),
        ("/api/status", 200),
        ("/metrics", 200),
        ("/style.css", 200),
        ("/health", 200),
        ("/nothing", 404),
    ] {
        let answer = agent.get(path).unwrap();
        assert_eq!(answer.status, code, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        for secret in [TOKEN, "hunter2"] {
            assert!(!answer.body.contains(secret), "{path}: {}", answer.body);
        }
    }
    let page = agent.get("/").unwrap();
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
    for text in [
        "🔄 Sync Backend",
        "✅ OK",
        "Last sync",
        "Config date",
        "Next sweep",
        good["config_hash"].as_str().unwrap(),
    ] {
        assert!(page.body.contains(text), "no {text} in {}", page.body);
    }
    for secret in [TOKEN, "hunter2"] {
        assert!(!process.log().contains(secret));
    }
}
