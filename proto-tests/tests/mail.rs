//! Mail over TLS with a password, and what is told where it does not arrive:
//! against a real mail server with a certificate of an authority of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod alerts_support;

use std::fs;
use std::time::Duration;

use alerts_support::{Desk, Receiver, quickly};
use av_proto_tests::authority::Authority;
use av_proto_tests::process::Backend;
use av_proto_tests::smtp_sink::{Encryption, Settings, SmtpSink, User};
use serde_json::json;
use tempfile::TempDir;

const PASSWORD: &str = "p@ss: wörd";
/// As it stands in a URL.
const PASSWORD_IN_URL: &str = "p%40ss%3A%20w%C3%B6rd";
/// As AUTH LOGIN and AUTH PLAIN (user "av") send it.
const PASSWORD_ON_THE_WIRE: [&str; 2] = ["cEBzczogd8O2cmQ=", "AGF2AHBAc3M6IHfDtnJk"];

fn user(mechanism: &'static str) -> User {
    User {
        name: "av",
        password: PASSWORD,
        mechanism,
    }
}

/// A file with the authority's certificate.
fn file(authority: &Authority, dir: &TempDir) -> String {
    let path = dir.path().join("ca.pem");
    fs::write(&path, authority.pem()).unwrap();
    path.display().to_string()
}

fn mail_to_ops() -> serde_json::Value {
    json!({"name": "ops", "kind": "mail", "recipients": ["ops@example.org"], "collect_s": 0})
}

/// A desk whose backend sends mail by this URL, with the channel "ops".
fn desk(url: &str, authority: Option<&str>) -> (Desk, String) {
    let desk = Desk::open(|command| {
        command
            .env("AV_SMTP_URL", url)
            .env("AV_MAIL_FROM", "av@example.org");
        if let Some(file) = authority {
            command.env("AV_SMTP_CA", file);
        }
    });
    let channel = desk.create("/admin/channels", &mail_to_ops());
    (desk, format!("/admin/channels/{}", channel["id"]))
}

/// Waits until the channel says why nothing arrives, and answers that. Neither
/// log, channel nor message says the password in any of its forms.
fn error_of(desk: &mut Desk, channel: &str, part: &str) -> String {
    desk.add_device("10.0.0.1", "101");
    desk.report(&[("10.0.0.1", "fault")]);
    let error = desk.wait("the channel says why", |desk| {
        let error = desk.get(channel)["last_error"].as_str()?.to_owned();
        error.contains(part).then_some(error)
    });
    let messages = desk.get(&format!("{channel}/messages"));
    assert_eq!(messages["messages"][0]["state"], "waiting", "{messages}");
    assert_eq!(messages["messages"][0]["last_error"], error.as_str());
    let log = desk.backend.process.log();
    assert!(log.contains(part), "{log}");
    let table: String =
        desk.one("SELECT string_agg(m::text || c::text, ' ') FROM messages m, channels c");
    for said in [&log, &messages.to_string(), &table, &error] {
        for secret in [PASSWORD, PASSWORD_IN_URL]
            .iter()
            .chain(&PASSWORD_ON_THE_WIRE)
        {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
    error
}

#[test]
fn mail_goes_over_tls_with_a_password() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    let file = file(&authority, &dir);
    let config = authority.server(&["127.0.0.1"]);
    for (tls, mechanism) in [
        (Encryption::StartTls(config.clone()), "PLAIN"),
        (Encryption::StartTls(config.clone()), "LOGIN"),
        (Encryption::Implicit(config.clone()), "PLAIN"),
    ] {
        let sink = SmtpSink::start_with(Settings {
            tls,
            user: Some(user(mechanism)),
        })
        .unwrap();
        let url = sink.url_as(&format!("av:{PASSWORD_IN_URL}@"));
        let (mut desk, channel) = desk(&url, Some(&file));
        desk.add_device("10.0.0.1", "101");
        desk.report(&[("10.0.0.1", "fault")]);
        desk.wait("the mail arrives", |_| {
            (!sink.mails().is_empty()).then_some(())
        });
        desk.wait("it is noted", |desk| {
            desk.get(&channel)["last_sent_at"].as_str().map(|_| ())
        });
        let mails = sink.mails();
        assert_eq!(mails.len(), 1);
        assert!(mails[0].encrypted);
        assert_eq!(mails[0].user.as_deref(), Some("av"));
        assert_eq!(mails[0].to, ["ops@example.org"]);
        assert_eq!(desk.get(&channel)["last_error"], json!(null));
    }
}

#[test]
fn a_wrong_password_is_an_error_of_the_channel_that_shows_no_password() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    let file = file(&authority, &dir);
    let tls = Encryption::StartTls(authority.server(&["127.0.0.1"]));
    let sink = SmtpSink::start_with(Settings {
        tls,
        user: Some(User {
            password: "another one",
            ..user("PLAIN")
        }),
    })
    .unwrap();
    let url = sink.url_as(&format!("av:{PASSWORD_IN_URL}@"));
    let (mut desk, channel) = desk(&url, Some(&file));
    // The server repeats all that it was told.
    let error = error_of(&mut desk, &channel, "535");
    assert!(error.contains("not accepted: *** (av ***)"), "{error}");
    assert_eq!(sink.mails(), []);

    // No other message is tried with it meanwhile: an account that sees too
    // many wrong passwords is closed.
    desk.wait("no try is under way, and the next is in an hour", |desk| {
        // A try that is under way would write its own time over this one.
        let mut transaction = desk.sql.transaction().unwrap();
        let held = transaction
            .batch_execute("LOCK TABLE messages IN SHARE ROW EXCLUSIVE MODE")
            .and_then(|()| {
                transaction.execute(
                    "UPDATE channels SET retry_at = now() + interval '1 hour'
                      WHERE NOT EXISTS (SELECT FROM messages WHERE claimed_until > now())",
                    &[],
                )
            });
        transaction.commit().unwrap();
        (held.unwrap() > 0).then_some(())
    });
    desk.wait_for_rounds();
    let tried = sink.connections();
    for i in 2..10 {
        let ip = format!("10.0.0.{i}");
        desk.add_device(&ip, &format!("room {i}"));
        desk.report(&[(&ip, "fault")]);
    }
    desk.wait("they are messages", |desk| {
        (desk.one::<i64>("SELECT count(*) FROM messages") == 9).then_some(())
    });
    desk.wait_for_rounds();
    assert_eq!(sink.connections(), tried);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_an_error_and_gets_no_password() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    let trusted = file(&authority, &dir);
    for (tls, trusted, said) in [
        // Neither the system's authorities nor an own one.
        (
            Encryption::Implicit(authority.server(&["127.0.0.1"])),
            None,
            "UnknownIssuer",
        ),
        (
            Encryption::StartTls(authority.server(&["127.0.0.1"])),
            None,
            "UnknownIssuer",
        ),
        // Somebody else's own one.
        (
            Encryption::StartTls(Authority::new().server(&["127.0.0.1"])),
            Some(trusted.as_str()),
            "certificate",
        ),
        // Of the right authority, for another server.
        (
            Encryption::Implicit(authority.server(&["mail.example.org"])),
            Some(trusted.as_str()),
            "not valid for name",
        ),
    ] {
        let sink = SmtpSink::start_with(Settings {
            tls,
            user: Some(user("PLAIN")),
        })
        .unwrap();
        let url = sink.url_as(&format!("av:{PASSWORD_IN_URL}@"));
        let (mut desk, channel) = desk(&url, trusted);
        error_of(&mut desk, &channel, said);
        assert!(sink.connections() > 0);
        assert_eq!((sink.tried(), sink.mails().len()), (0, 0));
    }
}

#[test]
fn a_server_without_tls_gets_neither_mail_nor_password_where_tls_is_required() {
    let sink = SmtpSink::start_with(Settings {
        user: Some(user("PLAIN")),
        ..Settings::default()
    })
    .unwrap();
    let url = format!(
        "{}?tls=required",
        sink.url_as(&format!("av:{PASSWORD_IN_URL}@"))
    );
    let (mut desk, channel) = desk(&url, None);
    error_of(&mut desk, &channel, "STARTTLS");
    assert_eq!((sink.tried(), sink.mails().len()), (0, 0));
}

#[test]
fn settings_that_cannot_work_are_said_at_the_start() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("ca.pem");
    for (url, file, said) in [
        ("smtp://av:hunter2@mail.example.org:25", None, "in clear"),
        ("smtps://mail.example.org", Some(&missing), "AV_SMTP_CA: "),
    ] {
        let mut command = std::process::Command::new(av_proto_tests::process::binary("av-backend"));
        command
            .arg("serve")
            .env("DATABASE_URL", "postgres://av@127.0.0.1:1/none")
            .env("AV_ENV_FILE", "")
            .env("AV_LISTEN", "127.0.0.1:0")
            .env("AV_SMTP_URL", url)
            .env("AV_MAIL_FROM", "av@example.org");
        if let Some(file) = file {
            command.env("AV_SMTP_CA", file);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
    }
}

/// A message whose sender is killed after it arrived and before that is noted
/// comes a second time: what tells a receiver so is the same.
#[test]
fn what_is_sent_again_after_a_kill_is_known_as_the_same() {
    let sink = SmtpSink::start().unwrap();
    let slow = Duration::from_secs(3600);
    sink.answer_after(slow);
    let silent = Receiver::start(0, Duration::ZERO);
    silent.answer_after(slow);
    let settings = |command: &mut std::process::Command| {
        quickly(command);
        command
            .env("AV_SMTP_URL", sink.url())
            .env("AV_MAIL_FROM", "av@example.org")
            // A message whose sender died is free again after four times this.
            .env("AV_NOTIFY_TIMEOUT_MS", "3000");
    };
    let mut desk = Desk::open(settings);
    desk.create("/admin/channels", &mail_to_ops());
    desk.add_device("10.0.0.1", "101");
    desk.report(&[("10.0.0.1", "fault")]);
    desk.wait("the mail is in the server's hands", |_| {
        (!sink.mails().is_empty()).then_some(())
    });
    desk.backend.process.kill();
    assert_eq!(
        desk.one::<String>("SELECT string_agg(state, ' ') FROM messages"),
        "waiting",
        "killed in the middle of it"
    );

    sink.answer_after(Duration::ZERO);
    desk.backend = Backend::spawn(&desk.db.url(), settings);
    desk.backend.wait_until_healthy();
    desk.wait("it is noted as sent", |desk| {
        (desk.one::<String>("SELECT string_agg(state, ' ') FROM messages") == "sent").then_some(())
    });
    let mails = sink.mails();
    assert_eq!(mails.len(), 2, "{mails:?}");
    let id = mails[0].header("Message-ID").unwrap();
    assert_eq!(mails[1].header("Message-ID"), Some(id));
    let body = |text: &str| text.split_once("\n\n").unwrap().1.to_owned();
    assert_eq!(body(&mails[0].text), body(&mails[1].text));

    // The same with a webhook.
    desk.create(
        "/admin/channels",
        &json!({"name": "hook", "kind": "webhook", "url": silent.url, "collect_s": 0,
                "secret": "a secret of the channel"}),
    );
    desk.add_device("10.0.0.2", "102");
    desk.report(&[("10.0.0.2", "fault")]);
    desk.wait("the receiver has it", |_| {
        (!silent.hooks().is_empty()).then_some(())
    });
    desk.backend.process.kill();
    silent.answer_after(Duration::ZERO);
    desk.backend = Backend::spawn(&desk.db.url(), settings);
    desk.backend.wait_until_healthy();
    desk.wait("it is noted as sent", |desk| {
        (desk.one::<i64>("SELECT count(*) FROM messages WHERE state = 'sent'") == 3).then_some(())
    });
    let hooks = silent.hooks();
    assert_eq!(hooks.len(), 2, "{hooks:?}");
    let key = &hooks[0].key;
    assert!(key.starts_with("\"av-") && key.ends_with('"'), "{key}");
    assert_eq!(
        (&hooks[0].message, key, &hooks[0].body),
        (&hooks[1].message, &hooks[1].key, &hooks[1].body)
    );
    // Its next message is another.
    desk.report(&[("10.0.0.2", "ok")]);
    desk.wait("the ending arrives", |_| {
        (silent.hooks().len() == 3).then_some(())
    });
    assert_ne!(&silent.hooks()[2].key, key);
}

#[test]
fn after_three_days_a_message_is_given_up_and_the_next_ones_are_tried() {
    let mut desk = Desk::open(|_| {});
    let receiver = Receiver::start(u32::MAX, Duration::ZERO);
    let channel = desk.create(
        "/admin/channels",
        &json!({"name": "hook", "kind": "webhook", "url": receiver.url, "collect_s": 0,
                "secret": "a secret of the channel"}),
    );
    let path = format!("/admin/channels/{}", channel["id"]);
    for i in 1..=3 {
        desk.add_device(&format!("10.0.0.{i}"), &format!("10{i}"));
    }
    let states = "SELECT string_agg(state, ' ' ORDER BY id) FROM messages";
    let older = |desk: &mut Desk, which: &str, hours: u32| {
        desk.sql
            .batch_execute(&format!(
                "UPDATE messages SET created_at = now() - interval '{hours} hours' WHERE {which};
                 UPDATE messages SET next_try_at = now();
                 UPDATE channels SET retry_at = NULL"
            ))
            .unwrap();
    };
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        desk.report(&[(ip, "fault")]);
    }
    desk.wait("all three are tried", |desk| {
        let tried = "SELECT count(*) FROM messages WHERE tries > 0";
        desk.sql
            .batch_execute("UPDATE channels SET retry_at = NULL")
            .unwrap();
        (desk.one::<i64>(tried) == 3).then_some(())
    });

    // 71 hours are not enough.
    older(&mut desk, "true", 71);
    let before = receiver.hooks().len();
    desk.wait("they are tried once more", |_| {
        (receiver.hooks().len() > before + 3).then_some(())
    });
    assert_eq!(desk.one::<String>(states), "waiting waiting waiting");

    // 72 are; one that is younger goes on.
    older(&mut desk, "id < (SELECT max(id) FROM messages)", 72);
    desk.wait("two are given up", |desk| {
        (desk.one::<String>(states) == "given_up given_up waiting").then_some(())
    });
    let messages = desk.get(&format!("{path}/messages"));
    for (index, state) in [(0, "waiting"), (1, "given_up"), (2, "given_up")] {
        let message = &messages["messages"][index];
        assert_eq!(message["state"], state);
        assert_eq!(message["last_error"], "the receiver answered 503");
        assert_eq!(message["next_try_at"].is_null(), state == "given_up");
    }
    let log = desk.backend.process.log();
    assert!(
        log.contains("is given up: the receiver answered 503"),
        "{log}"
    );

    // It is back: what was given up does not come, the rest does.
    receiver.fail_next(0);
    desk.wait("the third arrives", |desk| {
        (desk.one::<String>(states) == "given_up given_up sent").then_some(())
    });
    desk.wait_for_rounds();
    let taken = receiver.taken();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(
        taken[0].events(),
        [("opened".to_owned(), "10.0.0.3".to_owned())]
    );
    assert!(desk.get(&path)["last_error"].is_null());
}
