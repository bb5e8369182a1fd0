//! The link with which the first user is made: it has an address that can be
//! reached, and another one can be had.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Backend, backend_command, free_port};

const SAID: &str = "There is no user yet. Make the first one here: ";

/// The link's address and path.
#[track_caller]
fn link(text: &str) -> (String, String) {
    let (_, link) = text.split_once(SAID).expect(text);
    let link = link.lines().next().unwrap();
    let (address, code) = link.split_once("/setup/").expect(link);
    (address.to_owned(), format!("/setup/{code}"))
}

#[test]
fn the_link_has_an_address_that_can_be_reached() {
    let db = Database::create();
    let port = free_port();
    for (listen, public, begins, here_only) in [
        (
            format!("127.0.0.1:{port}"),
            "",
            format!("http://127.0.0.1:{port}"),
            true,
        ),
        (
            format!("127.0.0.1:{port}"),
            "https://av.example.org/",
            "https://av.example.org".to_owned(),
            false,
        ),
        (format!("0.0.0.0:{port}"), "", "http://".to_owned(), false),
    ] {
        let mut backend = Backend::spawn(&db.url(), |command| {
            command
                .env("AV_LISTEN", &listen)
                .env("AV_PUBLIC_URL", public);
        });
        backend.process.wait_for_log(SAID, 1);
        let log = backend.process.log();
        let (address, _) = link(&log);
        assert!(address.starts_with(&begins), "{log}");
        assert!(!address.contains("0.0.0.0"), "{log}");
        if here_only {
            assert!(log.contains("from this machine alone"), "{log}");
        }
        backend.process.terminate();
    }
}

#[test]
fn another_link_is_had_by_a_command_until_there_is_a_user() {
    let db = Database::create();
    let backend = Backend::start(&db.url());
    let run = || {
        backend_command(&db.url())
            .arg("setup-link")
            .env("AV_PUBLIC_URL", &backend.url)
            .output()
            .unwrap()
    };
    let output = run();
    assert!(output.status.success(), "{output:?}");
    let (address, path) = link(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(address, backend.url);
    assert_eq!(backend.get(&path).status, 200);
    let made = backend.request(
        "POST",
        &path,
        &[("Content-Type", "application/json")],
        Some(br#"{"name": "anna", "password": "a-long-password-1"}"#),
    );
    assert!(made.status < 400, "{made:?}");

    let output = run();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is a user already"), "{said}");
    assert_eq!(backend.get(&path).status, 404);
}
