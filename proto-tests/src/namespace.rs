//! Tests that run in namespaces of their own: what they mount, or whom they
//! connect, nobody else sees, and it ends with them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness fails loudly, with what it was doing"
)]

use std::env;
use std::process::Command;

use socket2::{Domain, Protocol, Socket, Type};

const INSIDE: &str = "AV_TEST_INSIDE";

/// The options of unshare(1) with which this user may make these namespaces.
/// A user namespace lets everybody make others; where there is none, as in a
/// chroot, root needs none.
///
/// # Errors
/// What unshare said.
pub fn unshare_options<'a>(namespaces: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let own_user = [&["--user", "--map-root-user"], namespaces].concat();
    let mut said = String::new();
    for options in [own_user, namespaces.to_vec()] {
        let made = Command::new("unshare").args(&options).arg("true").output();
        match made {
            Ok(output) if output.status.success() => return Ok(options),
            Ok(output) => said.push_str(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => said.push_str(&error.to_string()),
        }
    }
    Err(said)
}

/// Whether this is the process inside the namespaces, which are options of
/// unshare(1), such as `--mount`. Outside, it starts that one by the test's own
/// name, after `script` as the shell's, and demands that it succeeds; where
/// namespaces are forbidden it says so and goes without. It is root inside,
/// whoever it is outside.
///
/// # Panics
/// When the test inside fails.
#[must_use]
pub fn inside(test: &str, namespaces: &[&str], script: &str) -> bool {
    if env::var(INSIDE).as_deref() == Ok(test) {
        return true;
    }
    match unshare_options(namespaces) {
        Ok(options) => again(test, &options, script),
        Err(said) => skipped(test, &said),
    }
    false
}

/// Whether this process may ping. Where it may not, as a user whom neither a
/// capability nor `net.ipv4.ping_group_range` lets, it runs the test again as
/// [`inside`] does: by the same user, whom PostgreSQL accepts, with a loopback of
/// its own.
///
/// # Panics
/// When the test inside fails.
#[must_use]
pub fn may_ping(test: &str) -> bool {
    const OPTIONS: [&str; 4] = ["--user", "--map-current-user", "--keep-caps", "--net"];
    let allows = |kind| Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4)).is_ok();
    if env::var(INSIDE).as_deref() == Ok(test) || allows(Type::DGRAM) || allows(Type::RAW) {
        return true;
    }
    let made = Command::new("unshare").args(OPTIONS).arg("true").output();
    match made {
        Ok(output) if output.status.success() => again(test, &OPTIONS, "ip link set lo up"),
        Ok(output) => skipped(test, &String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped(test, &error.to_string()),
    }
    false
}

/// Whether this is the process that may mount what no other process sees. Outside, it
/// runs the test again as [`inside`] does, by the same user, whom PostgreSQL
/// accepts.
///
/// # Panics
/// When the test inside fails.
#[must_use]
pub fn may_mount(test: &str) -> bool {
    if env::var(INSIDE).as_deref() == Ok(test) {
        return true;
    }
    let mut said = String::new();
    let by_user = ["--user", "--map-current-user", "--keep-caps", "--mount"];
    for options in [&["--mount"][..], &by_user] {
        let made = Command::new("unshare").args(options).arg("true").output();
        match made {
            Ok(output) if output.status.success() => {
                again(test, options, ":");
                return false;
            }
            Ok(output) => said.push_str(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => said.push_str(&error.to_string()),
        }
    }
    skipped(test, &said);
    false
}

fn skipped(test: &str, said: &str) {
    eprintln!("SKIPPED {test}: no namespace can be made here: {said}");
}

/// Runs this test again, in namespaces, and demands that it succeeds.
fn again(test: &str, unshare: &[&str], script: &str) {
    let script = format!("{script}\nexec \"$0\" --exact {test} --nocapture --test-threads=1");
    let output = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-euc", &script])
        .arg(env::current_exe().expect("the test's own path"))
        .env(INSIDE, test)
        .output()
        .expect("unshare runs");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in namespaces of its own:\n{text}"
    );
    print!("{text}");
}
