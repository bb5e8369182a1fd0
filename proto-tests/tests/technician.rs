//! The commands that a technician types, as real processes: exit codes, what
//! they show, and what they never do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, TOKEN, first_config, site};
use av_proto_tests::namespace::may_ping;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, binary, free_port};
use serde_json::{Value, json};

const PASSWORD: &str = "s3cr3tP";

fn projector() -> Projector {
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.password = Some(PASSWORD.to_owned());
    Projector::start(config).unwrap()
}

fn device(ip: &str, port: u16) -> Value {
    json!({"ip": ip, "name": format!("P {ip}"), "driver": "pjlink", "type": "projector",
           "driver_config": {"pjlink": {"port": port, "password": PASSWORD, "timeout_s": 10}}})
}

fn agent(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(binary("av-agent"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("AGENT_CONFIG")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Both streams.
fn said(output: &Output) -> String {
    out(output) + &String::from_utf8_lossy(&output.stderr)
}

/// Every file below a folder with its content.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(
                path.display().to_string(),
                std::fs::read(&path).unwrap_or_default(),
            );
        }
    }
    all
}

#[test]
fn a_sweep_probes_each_device_once_and_writes_nothing() {
    let projector = projector();
    let closed = free_port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let document = json!({"site_name": "Paris", "devices": [
        device("127.0.0.1", projector.addr().port()),
        device("127.0.0.2", closed),
        {"ip": "nowhere", "name": "Bad", "driver": "ping"},
    ]});
    std::fs::write(&path, document.to_string()).unwrap();
    let before = files(dir.path());
    let path = path.display().to_string();

    let output = agent(&["sweep", &path, "--json"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let swept: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(swept["online"], 1);
    assert_eq!(swept["offline"], 1);
    assert_eq!(swept["devices"][0]["ip"], "127.0.0.1");
    assert_eq!(swept["devices"][0]["metrics"]["pjlink_ok"], true);
    assert_eq!(swept["devices"][1]["status"], "offline");
    assert_eq!(swept["rejected_devices"][0]["name"], "Bad");
    assert!(swept["seconds"].as_f64().unwrap() > 0.0);

    let output = agent(&["sweep", &path], &[]);
    let table = out(&output);
    for line in [
        "online    127.0.0.1",
        "offline   127.0.0.2",
        "rejected  nowhere",
    ] {
        assert!(table.contains(line), "no {line:?} in\n{table}");
    }
    assert!(
        table.contains(": 1 online, 1 offline, 0 unknown, 1 rejected"),
        "{table}"
    );
    assert_eq!(
        out(&agent(&["sweep", &path, "--summary"], &[]))
            .lines()
            .count(),
        1
    );
    assert_eq!(files(dir.path()), before, "a sweep writes nothing");
    assert_eq!(projector.counters().wrong_passwords, 0);

    let none = agent(&["sweep", "/nowhere.json"], &[]);
    assert_eq!(none.status.code(), Some(2));
    assert!(
        said(&none).contains("/nowhere.json: No such file"),
        "{}",
        said(&none)
    );
}

#[test]
fn a_probe_tells_its_status_by_its_exit_code_and_no_secret_on_the_wire() {
    // Otherwise it warns that it cannot.
    if !may_ping("a_probe_tells_its_status_by_its_exit_code_and_no_secret_on_the_wire") {
        return;
    }
    let projector = projector();
    let port = projector.addr().port().to_string();
    let with = |more: &[&str]| {
        let arguments = [
            &[
                "probe",
                "127.0.0.1",
                "--driver",
                "pjlink",
                "--port",
                &port,
                "--timeout",
                "10",
            ],
            more,
        ]
        .concat();
        agent(&arguments, &[("AV_PW", PASSWORD)])
    };
    let good = with(&["--password-env", "AV_PW", "-v"]);
    let text = said(&good);
    assert_eq!(good.status.code(), Some(0), "{text}");
    for part in [
        "→ 127.0.0.1 ",
        "← 127.0.0.1 ",
        "%1POWR",
        "(pjlink): online",
        "pjlink_power_label",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains(PASSWORD), "{text}");
    // The digest in front of the first command would let anybody guess.
    for line in text.lines().filter(|line| line.contains('→')) {
        let words = line.split_whitespace().last().unwrap_or_default();
        assert!(words.len() < 24, "a digest is shown: {line}");
    }
    let quiet = with(&["--password-env", "AV_PW", "--json"]);
    let finding: Value = serde_json::from_slice(&quiet.stdout).unwrap();
    assert_eq!(finding["status"], "online");
    assert_eq!(said(&quiet), out(&quiet), "nothing is logged");

    let warned = with(&["--set", &format!("password={PASSWORD}")]);
    assert!(
        said(&warned).contains("on the command line"),
        "{}",
        said(&warned)
    );
    assert!(!said(&warned).contains(PASSWORD));

    let closed = free_port().to_string();
    let off = agent(
        &["probe", "127.0.0.1", "-d", "pjlink", "--port", &closed],
        &[],
    );
    assert_eq!(off.status.code(), Some(1), "{}", said(&off));
    for (arguments, words) in [
        (
            &["probe", "127.0.0.1", "-d", "carrier-pigeon"][..],
            "no driver \"carrier-pigeon\"",
        ),
        (
            &["probe", "127.0.0.1", "-d", "ping", "--set", "count=99"],
            "driver_config.ping.count",
        ),
        (&["probe", "projector", "-d", "ping"], "invalid"),
    ] {
        let output = agent(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

#[test]
fn status_shows_what_the_running_agent_knows() {
    let projector = projector();
    let closed = free_port();
    let site = site(
        "Paris",
        &[
            device("127.0.0.1", projector.addr().port()),
            device("127.0.0.2", closed),
        ],
    );
    let backend = FakeBackend::start(ConfigAnswer::Site(site));
    let mut running = Agent::new(&first_config(&backend.url()));
    running.start();
    let url = running.url.clone();
    let process = running.process.as_ref().unwrap();
    process.wait_for("both devices are observed", || {
        let status = running.get("/api/status")?.json();
        (status["devices"].as_array()?.len() == 2).then_some(())
    });
    let output = agent(&["status", "--url", &url], &[]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for part in [
        "Paris",
        "sync     ok",
        "reports",
        "VERDICT",
        "127.0.0.1",
        "127.0.0.2",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    // What is not ok comes first.
    assert!(text.find("127.0.0.2") < text.find("127.0.0.1 "), "{text}");
    assert!(
        !text.contains('\u{1b}') && !text.contains(TOKEN),
        "{text:?}"
    );
    let only = out(&agent(&["status", "--url", &url, "--problems"], &[]));
    assert!(!only.contains("P 127.0.0.1"), "{only}");
    let document = agent(&["status", "--url", &url, "--json"], &[]);
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["site_name"], "Paris");

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let output = agent(&["status", "--url", &nobody], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("no agent answers"),
        "{}",
        said(&output)
    );
}

#[test]
fn check_says_what_to_do_and_changes_nothing() {
    let config_of = |backend: &str, token: &str| {
        let mut config = first_config(backend);
        config["site_token"] = json!(token);
        config["devices"] = json!([{"ip": "127.0.0.1", "name": "P", "driver": "pjlink"}]);
        config
    };
    let check = |config: &Value, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let before = files(dir.path());
        let listen = format!("127.0.0.1:{}", free_port());
        let path = path.display().to_string();
        let output = agent(&["check", &path], &[("AV_PAGE_LISTEN", &listen)]);
        assert_eq!(files(dir.path()), before, "check changes nothing");
        assert!(!said(&output).contains(TOKEN), "the token is shown");
        output
    };
    let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[])));
    let good = check(&config_of(&backend.url(), TOKEN), 0o600);
    let text = out(&good);
    for part in [
        "✓ configuration",
        "✓ token",
        "✓ state folder",
        "✓ status page",
        "✓ backend",
        "✓ clock",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_eq!(good.status.code(), Some(0), "{text}");
    assert_eq!(backend.reports().len(), 0);

    let readable = out(&check(&config_of(&backend.url(), TOKEN), 0o644));
    assert!(
        readable.contains("⚠ token") && readable.contains("→ chmod 600"),
        "{readable}"
    );

    backend.answer_config(ConfigAnswer::Status(404));
    let unknown = check(&config_of(&backend.url(), TOKEN), 0o600);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(out(&unknown).contains("✗ backend"), "{}", out(&unknown));
    assert!(out(&unknown).contains("does not know this site's token"));

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let away = check(&config_of(&nobody, TOKEN), 0o600);
    assert_eq!(away.status.code(), Some(1));
    assert!(
        out(&away).contains("nothing listens there"),
        "{}",
        out(&away)
    );

    let mut bad = config_of(&backend.url(), TOKEN);
    bad["devices"][0]["driver_config"] = json!({"pjlink": {"port": 0}});
    let text = out(&check(&bad, 0o600));
    assert!(
        text.contains("✗ devices") && text.contains("driver_config.pjlink.port"),
        "{text}"
    );
    let broken = check(&json!({"site_name": "P"}), 0o600);
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        out(&broken).contains("missing field `site_token`"),
        "{}",
        out(&broken)
    );
}
