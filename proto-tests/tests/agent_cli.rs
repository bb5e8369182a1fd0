//! The agent's commands where something is not as it should be: misspelt
//! settings, a wrong password, a backend that is gone, Ctrl-C. Real programs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails on the spot"
)]

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, first_config, site};
use av_proto_tests::namespace::may_ping;
use av_proto_tests::pg::Database;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, Backend, binary, free_port, signal, wait_for};
use serde_json::{Value, json};

const PASSWORD: &str = "s3cr3tP";

fn agent(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(arguments, environment).output().unwrap()
}

fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary("av-agent"));
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("AGENT_CONFIG")
        .envs(environment.iter().copied());
    command
}

/// Both streams.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn projector_at(listen: SocketAddr, password: Option<&str>) -> Projector {
    let mut config = Config::new(listen);
    config.password = password.map(str::to_owned);
    config.state.product = "EB-L730U".to_owned();
    Projector::start(config).unwrap()
}

fn projector(password: Option<&str>) -> Projector {
    projector_at(([127, 0, 0, 1], 0).into(), password)
}

#[test]
fn a_password_that_is_wrong_or_wanted_is_seen_in_the_exit_code_of_a_probe() {
    let projector = projector(Some(PASSWORD));
    let port = projector.addr().port().to_string();
    let probe = |more: &[&str]| {
        let fixed = [
            "probe",
            "127.0.0.1",
            "-d",
            "pjlink",
            "--port",
            &port,
            "--timeout",
            "10",
        ];
        agent(
            &[&fixed[..], more].concat(),
            &[("AV_PW", "another"), ("AV_RIGHT", PASSWORD)],
        )
    };
    let wrong = probe(&["--password-env", "AV_PW"]);
    let text = said(&wrong);
    assert_eq!(wrong.status.code(), Some(1), "{text}");
    assert!(
        text.contains("(pjlink): online") && text.contains("✗ wrong password: "),
        "{text}"
    );
    let wanted = probe(&[]);
    let text = said(&wanted);
    assert_eq!(wanted.status.code(), Some(1), "{text}");
    assert!(text.contains("✗ password wanted: "), "{text}");
    let document = probe(&["--password-env", "AV_PW", "--json"]);
    assert_eq!(document.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["refusal"], "wrong_password");
    let right = probe(&["--password-env", "AV_RIGHT", "--json"]);
    assert_eq!(right.status.code(), Some(0), "{}", said(&right));
    let document: Value = serde_json::from_slice(&right.stdout).unwrap();
    assert_eq!(document["refusal"], Value::Null);
}

#[test]
fn misspelt_settings_are_named_wherever_a_technician_looks() {
    let projector = projector(None);
    let port = projector.addr().port();
    let device = |ip: &str| {
        json!({"ip": ip, "name": "Beamer", "driver": "pjlink", "type": "projector",
            "driver_config": {"pjlink": {"port": port, "pasword": "geheim", "timeout_s": 10},
                              "snmp": {"comunity": "x"}},
            "expectations": {"allways_on": true}})
    };
    const LINES: [&str; 2] = [
        "driver_config.pjlink.pasword: is not a known setting; the nearest is \"password\"",
        "expectations.allways_on: is not a known setting; the nearest is \"always_on\"",
    ];
    let check_text = |text: &str, lines: &[&str]| {
        for line in lines {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
        // Another driver's section, and a secret.
        assert!(
            !text.contains("comunity") && !text.contains("geheim"),
            "{text}"
        );
    };

    let backend = FakeBackend::start(ConfigAnswer::Site(site("Paris", &[device("127.0.0.1")])));
    let mut running = Agent::new(&first_config(&backend.url()));
    running.start();
    let process = running.process.as_ref().unwrap();
    let status = process.wait_for("the device is observed", || {
        let status = running.get("/api/status")?.json();
        (status["devices"].as_array()?.len() == 1).then_some(status)
    });
    let unknown = &status["devices"][0]["unknown_settings"];
    assert_eq!(unknown[0]["name"], "pasword");
    assert_eq!(unknown[0]["nearest"], "password");
    assert_eq!(unknown[1]["path"], "expectations.allways_on");
    let page = running.get("/").unwrap().body;
    check_text(&page.replace("&#34;", "\""), &LINES);
    let output = agent(&["status", "--url", &running.url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    check_text(&said(&output), &LINES);
    process.wait_for_log(LINES[0], 1);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let mut config = first_config(&backend.url());
    config["devices"] = json!([device("127.0.0.1")]);
    std::fs::write(&path, config.to_string()).unwrap();
    let path = path.display().to_string();
    let swept = agent(&["sweep", &path], &[]);
    assert_eq!(swept.status.code(), Some(0), "{}", said(&swept));
    check_text(&said(&swept), &LINES);
    let swept = agent(&["sweep", &path, "--json"], &[]);
    let swept: Value = serde_json::from_slice(&swept.stdout).unwrap();
    assert_eq!(
        swept["devices"][0]["unknown_settings"][0]["nearest"],
        "password"
    );
    let listen = format!("127.0.0.1:{}", free_port());
    let checked = agent(&["check", &path], &[("AV_PAGE_LISTEN", &listen)]);
    let text = said(&checked);
    check_text(&text, &LINES);
    assert!(
        text.contains("⚠ devices") && !text.contains("✗ devices"),
        "{text}"
    );
    let port = port.to_string();
    let probed = agent(
        &[
            "probe",
            "127.0.0.1",
            "-d",
            "pjlink",
            "--port",
            &port,
            "--set",
            "pasword=geheim",
            "--timeout",
            "10",
        ],
        &[],
    );
    assert_eq!(probed.status.code(), Some(0), "{}", said(&probed));
    check_text(&said(&probed), &LINES[..1]);
    // One that is missing because it is misspelt.
    let probed = agent(
        &["probe", "127.0.0.1", "-d", "tcp", "--set", "prot=23"],
        &[],
    );
    assert_eq!(probed.status.code(), Some(2));
    let text = said(&probed);
    assert!(
        text.contains("driver_config.tcp.port: is missing"),
        "{text}"
    );
    assert!(
        text.contains("tcp.prot: is not a known setting; the nearest is \"port\""),
        "{text}"
    );
}

#[test]
fn status_ends_with_1_while_the_backend_is_away() {
    let db = Database::create();
    let mut backend = Backend::start(&db.url());
    db.execute("INSERT INTO sites (name, token) VALUES ('Paris', 'token-of-paris')");
    let mut config = first_config(&backend.url);
    config["site_token"] = json!("token-of-paris");
    let mut running = Agent::new(&config);
    running.start();
    let synced = |wanted: bool| {
        running
            .process
            .as_ref()
            .unwrap()
            .wait_for("the sync is so", || {
                let status = running.get("/api/status")?.json();
                (status["sync"]["last_sync_ok"] == wanted).then_some(())
            });
    };
    synced(true);
    let status = || agent(&["status", "--url", &running.url], &[]);
    let good = status();
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(said(&good).contains("sync     ok"), "{}", said(&good));

    assert!(backend.process.terminate().success());
    synced(false);
    let bad = status();
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    let text = said(&bad);
    assert!(
        text.contains("sync     failed")
            && text.contains("✗ sync fails: a change in the backend does not reach this agent"),
        "{text}"
    );
    let json = agent(&["status", "--json", "--url", &running.url], &[]);
    assert_eq!(json.status.code(), Some(1));
}

/// `127.X.Y.0/29`, another for each test of each process.
fn network(test: u8, host: u8) -> String {
    format!("127.{}.{test}.{host}", 1 + (std::process::id() % 62) as u8)
}

#[test]
fn a_refused_password_is_a_word_in_the_table_of_discover() {
    if !may_ping("a_refused_password_is_a_word_in_the_table_of_discover") {
        return;
    }
    let listen = |host| format!("{}:4352", network(200, host)).parse().unwrap();
    let _open = projector_at(listen(1), None);
    let _right = projector_at(listen(2), Some(PASSWORD));
    let other = projector_at(listen(3), Some("other"));
    let range = format!("{}-3", network(200, 1));
    let discover = |more: &[&str]| {
        let fixed = ["discover", &range, "--rate", "1000", "--search-wait", "0"];
        let output = agent(
            &[&fixed[..], more].concat(),
            &[("AV_PW", PASSWORD), ("AV_BAD", "é")],
        );
        (output.status.code(), said(&output))
    };
    let row = |text: &str, host: u8| {
        let ip = network(200, host);
        let row = text.lines().find(|line| line.starts_with(&ip));
        row.unwrap_or_else(|| panic!("no {ip} in\n{text}"))
            .to_owned()
    };
    let (code, text) = discover(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(row(&text, 2).contains("password wanted") && row(&text, 3).contains("password wanted"));
    assert!(!row(&text, 1).contains("password"), "{text}");

    let (code, text) = discover(&["--password-env", "AV_PW"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(row(&text, 2).contains("EB-L730U"), "{text}");
    assert!(row(&text, 3).contains("wrong password"), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
    let tries = other.counters().wrong_passwords;
    assert!(
        (1..=2).contains(&tries),
        "{tries} tries may lock a projector"
    );
    let (_, text) = discover(&["--password-env", "AV_PW", "--json"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["found"][2]["refusal"], "wrong_password");
    assert_eq!(
        (&document["asked"], &document["cut_short"]),
        (&json!(3), &json!(false))
    );
    assert!(!text.contains(PASSWORD), "{text}");

    let (code, text) = discover(&["--password-env", "AV_BAD"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("is not 1 to 32 printable ASCII characters"),
        "{text}"
    );
}

/// A command that is under way, its two streams in files.
fn begin(arguments: &[&str], dir: &Path) -> Child {
    command(arguments, &[])
        .stdin(Stdio::null())
        .stdout(File::create(dir.join("out")).unwrap())
        .stderr(File::create(dir.join("err")).unwrap())
        .spawn()
        .unwrap()
}

/// Whether the first line of progress says that something is found.
fn has_found(err: &str) -> Option<()> {
    let line = err.lines().find(|line| line.ends_with(" found so far"))?;
    let counts: Vec<&str> = line.split(' ').collect();
    assert!(line.contains(" of 30 addresses asked, "), "{line}");
    (counts[counts.len() - 4] != "0").then_some(())
}

#[test]
fn ctrl_c_ends_discover_with_what_it_found() {
    if !may_ping("ctrl_c_ends_discover_with_what_it_found") {
        return;
    }
    for (test, arguments) in [(201, &[][..]), (202, &["--json"])] {
        let network = |host| network(test, host);
        let _projector = projector_at(format!("{}:4352", network(1)).parse().unwrap(), None);
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let range = format!("{}-30", network(1));
        let fixed = ["discover", &range, "--rate", "2", "--search-wait", "0"];
        let mut child = begin(&[&fixed[..], arguments].concat(), dir.path());
        // The progress is in lines where it is no terminal.
        wait_for(
            "something is found",
            || read("err"),
            || has_found(&read("err")),
        );
        assert_eq!(read("out"), "", "the answer comes at the end");
        assert!(signal("INT", child.id()));
        wait_for("it ends", || read("err"), || child.try_wait().unwrap());
        let status = child.wait().unwrap();
        let (out, err) = (read("out"), read("err"));
        assert_eq!(status.code(), Some(130), "{out}{err}");
        assert!(
            err.contains("cut short: ") && err.contains(" of 30 addresses were asked"),
            "{err}"
        );
        if arguments.is_empty() {
            assert!(
                out.lines().any(|line| line.starts_with(&network(1))),
                "{out}"
            );
            assert!(out.contains(" found at "), "{out}");
        } else {
            let document: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(document["cut_short"], true);
            assert_eq!(document["found"][0]["ip"], network(1));
        }
    }
}
