//! The agent's commands beside the installed service, in a mount namespace with
//! an `/etc` of its own: they find the service's configuration and variables,
//! and `check` judges the service and not the shell. Real programs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails on the spot"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use av_proto_tests::fake_backend::{ConfigAnswer, FakeBackend, first_config, site};
use av_proto_tests::namespace::inside;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Agent, binary, free_port, workspace};
use serde_json::json;

const FOLDER: &str = "/etc/av-monitoring/agent";
const STATE: &str = "/var/lib/av-monitoring/agent";

/// Both streams and the exit code.
fn said(output: &Output) -> (String, Option<i32>) {
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into();
    (text, output.status.code())
}

/// A command as it is typed: nothing in its environment says where the
/// configuration is.
fn typed(command: &mut Command) -> &mut Command {
    for name in ["AGENT_CONFIG", "AV_STATE_DIR", "AV_PAGE_LISTEN", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

fn agent(arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(binary("av-agent"));
    said(&typed(&mut command).args(arguments).output().unwrap())
}

/// By a user without any right of root's.
fn without_rights(arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(binary("av-agent"));
    said(&typed(&mut command).args(arguments).output().unwrap())
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn commands_work_as_they_are_documented_and_check_judges_the_service() {
    // A user's cp cannot keep the owner of /etc, and then leaves it closed.
    const SCRIPT: &str = "mount -t tmpfs none /mnt\n\
                          cp -a /etc/. /mnt/ 2>/dev/null || true\n\
                          chmod 755 /mnt\n\
                          mount --bind /mnt /etc\n\
                          mount -t tmpfs none /var/lib";
    let name = "commands_work_as_they_are_documented_and_check_judges_the_service";
    if !inside(name, &["--mount"], SCRIPT) {
        return;
    }
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.password = Some("admin".to_owned());
    let projector = Projector::start(config).unwrap();
    let device = json!({"ip": "127.0.0.1", "name": "P", "driver": "pjlink", "type": "projector",
        "driver_config": {"pjlink": {"port": projector.addr().port(), "password": "admin",
                                     "timeout_s": 10}}});
    let pinged = json!({"ip": "127.0.0.2", "name": "Q", "driver": "ping"});
    let site = site("Paris", &[device.clone(), pinged.clone()]);
    let backend = FakeBackend::start(ConfigAnswer::Site(site));
    let mut running = Agent::new(&first_config(&backend.url()));
    running.start();
    running
        .process
        .as_ref()
        .unwrap()
        .wait_for("the agent watches", || {
            let status = running.get("/api/status")?.json();
            let synced = status["sync"]["last_sync_ok"] == true;
            (synced && status["devices"].as_array()?.len() == 2).then_some(())
        });

    // What the package installs; the service's user is not this one.
    for folder in [FOLDER, STATE, "/etc/systemd/system/av-agent.service.d"] {
        fs::create_dir_all(folder).unwrap();
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let others = passwd.lines().filter(|line| !line.starts_with("av-agent:"));
    let others: Vec<&str> = others.collect();
    let passwd = format!(
        "{}\nav-agent:x:990:990::/:/usr/sbin/nologin\n",
        others.join("\n")
    );
    fs::write("/etc/passwd", passwd).unwrap();
    let unit = workspace().join("systemd/av-agent.service");
    fs::copy(unit, "/etc/systemd/system/av-agent.service").unwrap();
    let file = format!("{FOLDER}/config.json");
    let mut config = first_config(&backend.url());
    config["devices"] = json!([device, pinged]);
    fs::write(&file, config.to_string()).unwrap();
    mode(&file, 0o600);
    let listen = running.url.replace("http://", "");
    let variables = format!("# where it listens\nAV_PAGE_LISTEN=\"{listen}\"\n");
    fs::write("/etc/av-monitoring/agent.env", variables).unwrap();

    // Each as the guide has it.
    let (text, code) = agent(&["status"]);
    assert_eq!(code, Some(0), "{text}");
    has(&text, &["Paris", "sync     ok"]);
    let (text, code) = agent(&["probe", "127.0.0.1", "--from-config"]);
    assert_eq!(code, Some(0), "{text}");
    let (text, code) = agent(&["sweep"]);
    assert_eq!(code, Some(0), "{text}");
    has(&text, &["127.0.0.1", "2 devices in "]);

    // The service's user cannot read what is root's.
    let (text, code) = agent(&["check"]);
    assert_eq!(code, Some(1), "{text}");
    has(
        &text,
        &[
            "✓ service        /etc/systemd/system/av-agent.service: judged is what the user av-agent may",
            "✗ user           /etc/av-monitoring/agent/config.json cannot be read by the service",
            "→ give it to the agent's user: chown av-agent: /etc/av-monitoring/agent/config.json",
            "✗ config folder",
            "✗ state folder",
        ],
    );
    for folder in ["/etc/av-monitoring", FOLDER, STATE] {
        mode(folder, 0o777);
    }
    mode(&file, 0o644);
    for check in [
        &["check"][..],
        &["check", "/etc/av-monitoring/agent/config.json"],
    ] {
        for (text, code) in [agent(check), without_rights(check)] {
            assert_eq!(code, Some(0), "{text}");
            has(
                &text,
                &[
                    "✓ config folder  /etc/av-monitoring/agent can be written",
                    "✓ state folder   /var/lib/av-monitoring/agent can be written",
                    "✓ ping IPv4      over a raw socket: the unit grants CAP_NET_RAW",
                    "✓ ping IPv6      over a raw socket: the unit grants CAP_NET_RAW",
                    &format!("✓ status page    the agent is running on {listen}"),
                    "knows the token: Paris",
                ],
            );
        }
    }
    let (text, _) = agent(&["discover", "127.0.0.1", "--search-wait", "0", "--suggest"]);
    assert!(!text.contains("No such file"), "{text}");

    // What is laid over the unit counts.
    let laid_over = "/etc/systemd/system/av-agent.service.d/local.conf";
    fs::write(
        laid_over,
        "[Service]\nAmbientCapabilities=\nEnvironment=AV_STATE_DIR=/srv\n\
         EnvironmentFile=\nEnvironment=AV_PAGE_LISTEN=127.0.0.1:80\n",
    )
    .unwrap();
    let (text, code) = agent(&["check", "--offline"]);
    assert_eq!(code, Some(1), "{text}");
    has(
        &text,
        &[
            "✗ state folder   /srv cannot be written: the unit's ProtectSystem and ReadWritePaths",
            "✗ status page    127.0.0.1:80: the service may not take a port below",
        ],
    );
    assert!(!text.contains("the unit grants"), "{text}");
    fs::remove_file(laid_over).unwrap();

    // Another configuration is not the service's.
    let other = running.config_file().display().to_string();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary("av-agent"));
    let command = typed(&mut command)
        .args(["check", "--offline"])
        .env("AGENT_CONFIG", &other)
        .env("AV_PAGE_LISTEN", &listen);
    let (text, _) = said(&command.output().unwrap());
    has(&text, &[&other, &format!("{listen} is free")]);
    assert!(!text.contains("judged is what"), "{text}");

    // Without a unit the package's own is assumed.
    fs::remove_file("/etc/systemd/system/av-agent.service").unwrap();
    let (text, code) = agent(&["status"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn who_may_not_read_the_configuration_is_told_to_use_sudo() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("av-agent");
    fs::copy(binary("av-agent"), &program).unwrap();
    let folder = dir.path().join("agent");
    let path = folder.join("config.json").display().to_string();
    fs::create_dir(&folder).unwrap();
    fs::write(&path, first_config("http://127.0.0.1:9").to_string()).unwrap();
    // Root reads all, so that another user must be had.
    let is_root = fs::metadata("/proc/self").is_ok_and(|it| {
        use std::os::unix::fs::MetadataExt;
        it.uid() == 0
    });
    mode(&dir.path().display().to_string(), 0o755);
    mode(
        &folder.display().to_string(),
        if is_root { 0o700 } else { 0o000 },
    );
    let plain = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        typed(&mut command)
            .current_dir(Path::new("/"))
            .args(arguments);
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        said(&command.output().unwrap())
    };
    for arguments in [
        &["sweep", &path][..],
        &["probe", "127.0.0.1", "--from-config", &path],
        &["enroll", "http://127.0.0.1:9", "CODE", "--config", &path],
    ] {
        let (text, code) = plain(arguments);
        assert_eq!(code, Some(2), "{text}");
        has(&text, &[&path, "Permission denied", "use sudo"]);
    }
    let (text, code) = plain(&["check", &path, "--offline"]);
    assert_eq!(code, Some(1), "{text}");
    has(&text, &["Permission denied", "sudo av-agent check"]);
    mode(&folder.display().to_string(), 0o700);
}
