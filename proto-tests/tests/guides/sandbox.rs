//! Where the commands are run: a folder in place of `/`, a PostgreSQL of its
//! own, addresses of the loopback, and our programs on `PATH`. What a test
//! cannot have of a machine is there as a small program in its place:
//! `systemctl` starts a unit's program and waits until it is ready,
//! `journalctl` shows its log; both know the units of `systemd/` alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output, Stdio};

use av_proto_tests::own_program;
use av_proto_tests::pg::Cluster;
use av_proto_tests::process::{binary, free_port, workspace};
use regex_lite::Regex;
use tempfile::TempDir;

use crate::blocks::{Block, Language, commands};
use crate::table::{GENERAL, Steps};

/// Begins every script.
const PRELUDE: &str = include_str!("prelude.sh");
const SYSTEMCTL: &str = include_str!("systemctl.sh");
/// The log, to its end: a test does not wait for what comes.
const JOURNALCTL: &str = r#"#!/bin/bash
set -eu
[ "$1" = -u ] && [ -f "$WORKSPACE/systemd/$2.service" ]
exec cat "$ROOT/log/$2"
"#;
/// There is one user.
const SUDO: &str = "#!/bin/bash\n[ \"$1\" != -u ] || shift 2\nexec \"$@\"\n";

pub struct Sandbox {
    cluster: Cluster,
    dir: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Sandbox {
    pub fn open() -> Self {
        let cluster = Cluster::start();
        let dir = tempfile::Builder::new()
            .prefix("av-guide-")
            .tempdir()
            .unwrap();
        let root = dir.path();
        for folder in ["work", "bin", "log", "run", "etc/av-monitoring/agent"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["usr/bin", "etc/systemd/system", "etc/nginx/conf.d"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for folder in ["usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "var/backups"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for program in ["av-agent", "av-backend"] {
            symlink(binary(program), root.join("bin").join(program)).unwrap();
            symlink(binary(program), root.join("work").join(program)).unwrap();
        }
        let pjlink_sim = own_program!("pjlink-sim");
        symlink(pjlink_sim, root.join("bin/pjlink-sim")).unwrap();
        symlink(workspace().join("systemd"), root.join("work/systemd")).unwrap();
        let curl =
            "#!/bin/bash\nPATH=${PATH#*:}\nexec curl ${CURL_FAILS:+--fail-with-body} \"$@\"\n";
        for (name, text) in [
            ("systemctl", SYSTEMCTL),
            ("journalctl", JOURNALCTL),
            ("sudo", SUDO),
            ("curl", curl),
        ] {
            let path = root.join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(root.join("env.sh"), "").unwrap();
        // Another process of this test has other addresses.
        let net = format!("127.{}", 20 + std::process::id() % 200);
        let port = free_port();
        let day = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
        let variables = vec![
            ("ROOT", root.display().to_string()),
            ("WORKSPACE", workspace().display().to_string()),
            ("NET", net),
            ("PORT", port.to_string()),
            ("URL", format!("http://127.0.0.1:{port}")),
            ("PAGE_PORT", free_port().to_string()),
            ("SECOND_PORT", free_port().to_string()),
            ("THIRD_PORT", free_port().to_string()),
            ("PGPORT", cluster.port().to_string()),
            ("DATABASE_URL", cluster.url("av")),
            ("TOMORROW", day.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ];
        Self {
            cluster,
            dir,
            variables,
        }
    }

    /// Puts the sandbox's own in place of `@NAME@`.
    fn filled(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.variables {
            text = text.replace(&format!("@{name}@"), value);
        }
        text
    }

    /// Runs a block as the table says.
    pub fn run(&self, block: &Block, steps: &Steps) {
        let place = format!("{}:{}", block.guide, block.line);
        let mut text = block.text.clone();
        for (old, new) in steps.swaps {
            assert!(text.contains(old), "{place} has no {old:?}:\n{text}");
            text = text.replace(old, &self.filled(new));
        }
        for (guides, old, new) in GENERAL {
            if guides.contains(&block.guide.as_str()) {
                text = text.replace(old, &self.filled(new));
            }
        }
        let shows: Vec<String> = steps.shows.iter().map(|it| self.filled(it)).collect();
        let before = self.filled(steps.before);
        let after = self.filled(steps.after);
        match block.language {
            Language::Shell => {
                let script = format!("CURL_FAILS=1\nexport CURL_FAILS\n{before}\n{text}{after}\n");
                let output = self.bash(&script);
                check(&place, &script, &output, &[0], &shows);
            }
            Language::Sql => {
                let script = format!(
                    "{before}\npsql -X -v ON_ERROR_STOP=1 \"$DATABASE_URL\" <<'END'\n{text}END\n{after}\n"
                );
                let output = self.bash(&script);
                check(&place, &script, &output, &[0], &shows);
            }
            Language::Python => {
                let script = format!("python3 - <<'END'\n{before}\n{text}{after}\nEND\n");
                let output = self.bash(&script);
                check(&place, &script, &output, &[0], &shows);
            }
            Language::Session => {
                let output = self.bash(&before);
                check(&place, &before, &output, &[0], &[]);
                let mut all = String::new();
                for (command, printed) in commands(&text) {
                    let output = self.bash(&command);
                    let said = check(&place, &command, &output, steps.exits, &[]);
                    if shows.is_empty() {
                        same(&place, &command, &printed, &said);
                    }
                    all += &said;
                    all += &String::from_utf8_lossy(&output.stderr);
                }
                has(&place, &text, &all, &shows);
                let output = self.bash(&after);
                check(&place, &after, &output, &[0], &[]);
            }
        }
    }

    fn bash(&self, script: &str) -> Output {
        let root = self.dir.path();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", root.join("bin").display());
        Command::new("timeout")
            .args(["--kill-after=5", "300", "bash", "-c"])
            .arg(format!("{PRELUDE}\n{script}"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("PATH", path)
            .env("PG_BIN", self.cluster.programs())
            .env("PGHOST", "127.0.0.1")
            .env("PGUSER", "av")
            .env("PGDATABASE", "postgres")
            .env("LC_ALL", "C.UTF-8")
            .env("AV_PAGE_LISTEN", self.filled("127.0.0.1:@PAGE_PORT@"))
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .current_dir(root.join("work"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.bash("stop_all");
    }
}

/// What a script printed; it must have ended as it should, and said this.
fn check(place: &str, script: &str, output: &Output, exits: &[i32], shows: &[String]) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let ended = output.status.code();
    assert!(
        ended.is_some_and(|code| exits.contains(&code)),
        "{place} ended with {ended:?}:\n{script}\nprinted:\n{printed}\nand to standard error:\n{errors}"
    );
    has(place, script, &format!("{printed}{errors}"), shows);
    printed
}

fn has(place: &str, script: &str, printed: &str, shows: &[String]) {
    for part in shows {
        assert!(
            printed.contains(part),
            "{place} did not print {part:?}:\n{script}\nprinted:\n{printed}"
        );
    }
}

/// What differs from run to run has one form: times, digests, large numbers.
fn settled(text: &str) -> String {
    let mut text = text.trim_end().replace('\r', "");
    for (what, form) in [
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (
            r"\b[0-9a-f]{8,}\.\.\.|\b[0-9a-f]{16,}\b|\(64 hex digits\)",
            "DIGEST",
        ),
        (r"\b\d{9,}\b", "NUMBER"),
    ] {
        text = Regex::new(what).unwrap().replace_all(&text, form).into();
    }
    text
}

/// The guide's output is that of the run; `...` in it stands for anything.
fn same(place: &str, command: &str, guide: &str, printed: &str) {
    let (guide, printed) = (settled(guide), settled(printed));
    let pattern = regex_lite::escape(&guide).replace(r"\.\.\.", ".*");
    let pattern = Regex::new(&format!("(?s)^{pattern}$")).unwrap();
    assert!(
        pattern.is_match(&printed),
        "{place}: {command}\nprints\n{printed}\nand in the guide stands\n{guide}"
    );
}

#[test]
fn outputs_are_compared_but_for_what_must_differ() {
    let guide = "{\"id\":1,\"token\":\"avt_4a20...\",\"at\":\"2026-11-24T11:09:41.8Z\"}\n";
    let run = "{\"id\":1,\"token\":\"avt_4a20bb\",\"at\":\"2031-01-02T03:04:05.678901Z\"}\n";
    same("", "", guide, run);
    let other = run.replace(":1,", ":2,");
    assert!(std::panic::catch_unwind(|| same("", "", guide, &other)).is_err());
    let longer = format!("{run}more\n");
    assert!(std::panic::catch_unwind(|| same("", "", guide, &longer)).is_err());
}
