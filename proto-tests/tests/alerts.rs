//! The life of alerts: silent agents, maintenance, acknowledgement, and the
//! messages to people, against a real database, mail server and receiver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod alerts_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use alerts_support::{Desk, Receiver, hmac, quickly};
use av_proto_tests::process::{Backend, http};
use av_proto_tests::smtp_sink::SmtpSink;
use serde_json::{Value, json};

const SECRET: &str = "a secret of the channel";
const NO_DELAY: Duration = Duration::ZERO;

fn webhook(name: &str, url: &str) -> Value {
    json!({"name": name, "kind": "webhook", "url": url, "secret": SECRET, "collect_s": 0})
}

fn mail(name: &str) -> Value {
    json!({"name": name, "kind": "mail", "recipients": ["Ops <ops@example.org>", "b@example.org"],
           "collect_s": 0, "timezone": "Europe/Paris"})
}

/// The log-in limit and the messages once had one lock: who tried log-ins kept
/// every alert from being told.
#[test]
fn alerts_are_told_while_log_ins_and_codes_are_tried() {
    let mut desk = Desk::open(|_| {});
    let receiver = Receiver::start(0, NO_DELAY);
    desk.create("/admin/channels", &webhook("ops", &receiver.url));
    desk.add_device("10.0.0.1", "101");
    desk.report(&[("10.0.0.1", "ok")]);
    let stop = AtomicBool::new(false);
    let refused = AtomicUsize::new(0);
    let url = desk.backend.url.clone();
    std::thread::scope(|scope| {
        // Also where what follows fails.
        let _ended = SetAtEnd(&stop);
        for n in 0..16 {
            let (stop, refused, url) = (&stop, &refused, &url);
            scope.spawn(move || {
                let (path, body) = match n % 2 {
                    0 => ("/login", r#"{"name": "root", "password": "x"}"#),
                    _ => ("/enroll", r#"{"code": "AAAAA-AAAAA"}"#),
                };
                let headers = [("Content-Type", "application/json")];
                while !stop.load(Ordering::Relaxed) {
                    let url = format!("{url}{path}");
                    let answer = http("POST", &url, &headers, Some(body.as_bytes()));
                    if answer.is_ok_and(|answer| answer.status == 429) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        desk.wait("log-ins are refused", |_| {
            (refused.load(Ordering::Relaxed) > 100).then_some(())
        });
        for (told, verdict) in ["fault", "ok", "fault"].into_iter().enumerate() {
            desk.report(&[("10.0.0.1", verdict)]);
            desk.wait("the alert is told", |_| {
                (receiver.taken().len() > told).then_some(())
            });
        }
        desk.wait_for_rounds();
    });
}

/// Sets a flag when it is dropped.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets everything that was heard so far be so many minutes older.
fn age(desk: &mut Desk, minutes: i32) {
    desk.sql
        .batch_execute(&format!(
            "UPDATE site_agents SET last_report_at = last_report_at - interval '{minutes} minutes';
             UPDATE device_states SET last_seen = last_seen - interval '{minutes} minutes',
                    observed_at = observed_at - interval '{minutes} minutes';
             UPDATE observations SET observed_at = observed_at - interval '{minutes} minutes'"
        ))
        .unwrap();
}

fn age_backend(desk: &mut Desk) {
    desk.sql
        .batch_execute("UPDATE backend_watch SET up_since = now() - interval '1 day'")
        .unwrap();
}

#[test]
fn an_agent_that_is_silent_for_three_intervals_is_an_alert_and_its_devices_are_unknown() {
    let mut desk = Desk::open(|_| {});
    // Two backends: each alert once.
    let second = Backend::spawn(&desk.db.url(), quickly);
    second.wait_until_healthy();
    desk.sql
        .batch_execute("UPDATE sites SET ok_interval_s = 120, ko_interval_s = 60")
        .unwrap();
    desk.add_device("10.0.0.1", "101");
    desk.add_device("10.0.0.2", "101");
    desk.report(&[("10.0.0.1", "ok"), ("10.0.0.2", "fault")]);
    desk.wait_for_rounds();
    age_backend(&mut desk);

    // Three intervals and the little more are 390 s: 6 minutes are not enough.
    age(&mut desk, 6);
    desk.wait_for_rounds();
    let fault = ("fault".to_owned(), Some("10.0.0.2".to_owned()));
    assert_eq!(desk.open_alerts(), std::slice::from_ref(&fault));
    assert_eq!(device(&desk, "10.0.0.1")["verdict"], "ok");

    age(&mut desk, 1);
    desk.wait("the agent is an alert", |desk| {
        (desk.open_alerts().len() == 2).then_some(())
    });
    desk.wait_for_rounds();
    let silent = ("agent_silent".to_owned(), None);
    assert_eq!(desk.open_alerts(), [fault.clone(), silent]);
    for ip in ["10.0.0.1", "10.0.0.2"] {
        let shown = device(&desk, ip);
        assert_eq!(
            (&shown["status"], &shown["verdict"], &shown["stale"]),
            (&json!("unknown"), &json!("unknown"), &json!(true))
        );
        assert_eq!(shown["verdict_since"], shown["last_seen"], "unknown, since");
        assert!(
            shown["detail"]
                .as_str()
                .unwrap()
                .starts_with("no report since ")
        );
        let record = desk.get(&format!("/admin/devices/{}", shown["id"]));
        assert!(
            record.to_string().contains(r#""verdict":"unknown""#),
            "{record}"
        );
    }
    let metrics = desk.backend.get("/metrics").body;
    for line in [
        "av_backend_devices{verdict=\"ok\"} 0",
        "av_backend_devices{verdict=\"fault\"} 0",
        "av_backend_devices{verdict=\"unknown\"} 2",
        "av_backend_agents_silent 1",
        "av_backend_alerts_open 2",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    let known = "SELECT string_agg(verdict, ' ' ORDER BY observed_at) FROM observations
                  WHERE ip = '10.0.0.1'";
    assert_eq!(desk.one::<String>(known), "ok unknown");

    // Heard again, and nothing new to tell: it is in the history all the same.
    desk.report(&[("10.0.0.1", "ok"), ("10.0.0.2", "fault")]);
    assert_eq!(device(&desk, "10.0.0.1")["verdict"], "ok");
    desk.wait("the alert is closed", |desk| {
        (desk.open_alerts() == [fault.clone()]).then_some(())
    });
    assert_eq!(desk.one::<String>(known), "ok unknown ok");
    let closed = desk.get("/admin/alerts?state=closed");
    assert_eq!(closed["total"], 1);
    assert_eq!(closed["alerts"][0]["kind"], "agent_silent");
    assert_eq!(closed["alerts"][0]["closed_by"], "reported");
}

#[test]
fn no_page_shows_a_device_of_a_silent_agent_as_green() {
    let mut desk = Desk::open(|_| {});
    let device = desk.add_device("10.0.0.1", "101");
    desk.report(&[("10.0.0.1", "ok")]);
    let site = desk.site;
    let (on_device, on_site, on_all) = (
        format!("/devices/{device}"),
        format!("/sites/{site}"),
        "/".to_owned(),
    );
    // The marks of one state, where a page says how things are now.
    let marks = |state: &str| {
        [
            (&on_device, format!("<p class=\"state big {state}\">")),
            (&on_site, format!("<tr id=\"d{device}\" class=\"{state}\"")),
            (&on_all, format!("<tr class=\"{state}\">")),
        ]
    };
    let live = format!("/sites/{site}/live");
    for (path, mark) in marks("ok") {
        let page = desk.page(path);
        assert!(page.contains(&mark), "{path} has no {mark}\n{page}");
    }
    assert!(desk.page(&live).contains("[\"ok\","));

    age(&mut desk, 60);
    for ((path, now), (_, then)) in marks("unknown").into_iter().zip(marks("ok")) {
        let page = desk.page(path);
        assert!(page.contains(&now), "{path} has no {now}\n{page}");
        assert!(!page.contains(&then), "{path} has {then}\n{page}");
    }
    let last_seen: String = desk.one(
        "SELECT to_char(last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI') FROM device_states",
    );
    let page = desk.page(&on_device);
    let (_, rest) = page.split_once("<p class=\"state big unknown\">").unwrap();
    let (state, _) = rest.split_once("</p>").unwrap();
    assert!(
        state.contains(&format!("<time datetime=\"{last_seen}")),
        "unknown, since {last_seen}: {state}"
    );
    let live = desk.page(&live);
    assert!(
        live.contains("[\"unknown\",") && !live.contains("[\"ok\","),
        "{live}"
    );
}

fn device(desk: &Desk, ip: &str) -> Value {
    let devices = desk.backend.devices(alerts_support::SITE_TOKEN).json();
    devices
        .as_array()
        .unwrap()
        .iter()
        .find(|device| device["ip"] == ip)
        .unwrap_or_else(|| panic!("no {ip} in {devices}"))
        .clone()
}

#[test]
fn where_no_backend_ran_nobody_is_blamed_for_silence_but_nothing_is_green() {
    let mut desk = Desk::open(|_| {});
    desk.add_device("10.0.0.1", "101");
    desk.report(&[("10.0.0.1", "ok")]);
    age(&mut desk, 60);
    assert_eq!(device(&desk, "10.0.0.1")["verdict"], "unknown");
    desk.wait_for_rounds();
    assert_eq!(desk.open_alerts(), []);
    age_backend(&mut desk);
    desk.wait("the agent is an alert", |desk| {
        (desk.open_alerts().len() == 1).then_some(())
    });
}

#[test]
fn a_device_that_its_agent_leaves_out_does_not_stay_green() {
    let mut desk = Desk::open(|_| {});
    desk.add_device("10.0.0.1", "101");
    desk.add_device("10.0.0.2", "101");
    desk.report(&[("10.0.0.1", "ok"), ("10.0.0.2", "ok")]);
    age(&mut desk, 60);
    desk.report(&[("10.0.0.1", "ok")]);
    assert_eq!(device(&desk, "10.0.0.1")["verdict"], "ok");
    assert_eq!(device(&desk, "10.0.0.2")["verdict"], "unknown");
}

#[test]
fn maintenance_of_a_device_a_room_or_a_site_holds_alerts_back_until_it_ends() {
    let mut desk = Desk::open(|_| {});
    let first = desk.add_device("10.0.0.1", "101");
    desk.add_device("10.0.0.2", "102");
    desk.add_device("10.0.0.3", "103");
    let site = desk.site;
    let until = "2099-01-01T00:00:00Z";
    let until_soon: String = desk.one(
        "SELECT to_char((now() + interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    let refused = desk.ask(
        "POST",
        "/admin/maintenance",
        Some(&json!({"site_id": site, "ends_at": until})),
    );
    assert_eq!(refused.status, 422, "{refused:?}");
    for (scope, quiet) in [
        (json!({"device_id": first}), &["10.0.0.1"][..]),
        (
            json!({"building": "A", "floor": "1", "room": "102"}),
            &["10.0.0.2"],
        ),
        (json!({}), &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ] {
        let mut window = scope.clone();
        window["site_id"] = json!(site);
        window["ends_at"] = json!(until_soon);
        window["reason"] = json!("new cables");
        let window = desk.create("/admin/maintenance", &window);
        assert_eq!(
            (&window["active"], &window["created_by"]),
            (&json!(true), &json!("admin"))
        );

        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        desk.report(&all.map(|ip| (ip, "fault")));
        desk.wait_for_rounds();
        let loud: Vec<(String, Option<String>)> = all
            .iter()
            .filter(|ip| !quiet.contains(ip))
            .map(|ip| ("fault".to_owned(), Some((*ip).to_owned())))
            .collect();
        assert_eq!(desk.open_alerts(), loud, "{scope}");

        // What would still stand when it ends is raised then.
        desk.sql
            .execute(
                "UPDATE maintenance_windows SET ends_at = now() WHERE ends_at > now()",
                &[],
            )
            .unwrap();
        desk.wait("the alerts are raised", |desk| {
            (desk.open_alerts().len() == 3).then_some(())
        });
        desk.report(&all.map(|ip| (ip, "ok")));
        assert_eq!(desk.open_alerts(), []);
    }
    // A whole site's window holds its agent's silence back too, a room's does not.
    let window = desk.create(
        "/admin/maintenance",
        &json!({"site_id": site, "ends_at": until_soon}),
    );
    age_backend(&mut desk);
    age(&mut desk, 60);
    desk.wait("the agent is known to be silent", |desk| {
        let marked: i64 =
            desk.one("SELECT count(*) FROM site_agents WHERE silent_since IS NOT NULL");
        (marked == 1).then_some(())
    });
    desk.wait_for_rounds();
    assert_eq!(desk.open_alerts(), []);
    let path = format!("/admin/maintenance/{}", window["id"]);
    let room = json!({"site_id": site, "ends_at": until_soon, "room": "101", "building": "A", "floor": "1"});
    assert_eq!(desk.ask("PUT", &path, Some(&room)).status, 200);
    desk.wait("the agent is an alert", |desk| {
        (desk.open_alerts() == [("agent_silent".to_owned(), None)]).then_some(())
    });
    assert_eq!(
        desk.get("/admin/maintenance")["windows"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(desk.ask("DELETE", &path, None).status, 204);
    assert_eq!(desk.ask("GET", &path, None).status, 404);
}

#[test]
fn a_dead_switch_is_one_message_signed_retried_and_told_once() {
    let mut desk = Desk::open(|_| {});
    let receiver = Receiver::start(2, NO_DELAY);
    let mut channel = webhook("ops", &receiver.url);
    // Long enough that both rooms are reported before it is over.
    channel["collect_s"] = json!(2);
    desk.create("/admin/channels", &channel);
    for (ip, room) in [
        ("10.0.0.1", "101"),
        ("10.0.0.2", "101"),
        ("10.0.0.3", "102"),
    ] {
        desk.add_device(ip, room);
    }
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    desk.report(&all.map(|ip| (ip, "fault")));
    desk.wait("both messages arrive", |_| {
        (receiver.taken().len() == 2).then_some(())
    });
    desk.report(&all.map(|ip| (ip, "ok")));
    desk.wait("both endings arrive", |_| {
        (receiver.taken().len() == 4).then_some(())
    });
    let event = |what: &str, ip: &str| (what.to_owned(), ip.to_owned());
    let mut told: Vec<_> = receiver.taken().iter().map(|hook| hook.events()).collect();
    told.sort();
    assert_eq!(
        told,
        [
            vec![event("closed", "10.0.0.1"), event("closed", "10.0.0.2")],
            vec![event("closed", "10.0.0.3")],
            vec![event("opened", "10.0.0.1"), event("opened", "10.0.0.2")],
            vec![event("opened", "10.0.0.3")],
        ]
    );
    let titles: BTreeSet<String> = receiver
        .taken()
        .iter()
        .map(|hook| hook.json()["title"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        titles.contains("Paris, A, 1, 101: 2 in fault"),
        "{titles:?}"
    );
    assert!(
        titles.contains("Paris, A, 1, 101: 2 no longer in fault"),
        "{titles:?}"
    );

    // What failed came again, the same to the byte.
    let hooks = receiver.hooks();
    assert_eq!(hooks.iter().filter(|hook| hook.status == 503).count(), 2);
    let mut bodies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for hook in &hooks {
        bodies
            .entry(hook.message.clone())
            .or_default()
            .insert(hook.body.clone());
        assert_eq!(
            hook.signature,
            format!(
                "sha256={}",
                hmac(SECRET, &format!("{}.{}", hook.timestamp, hook.body))
            )
        );
    }
    assert_eq!(bodies.len(), 4);
    assert!(bodies.values().all(|same| same.len() == 1));
    let log = desk.backend.process.log();
    assert!(
        !log.contains(SECRET) && !log.contains("secret-path"),
        "{log}"
    );
}

#[test]
fn two_backends_send_each_message_once_and_a_kill_loses_none() {
    let mut desk = Desk::open(|command| {
        // A message whose sender died is free again after four times this.
        command.env("AV_NOTIFY_TIMEOUT_MS", "500");
    });
    let mut second = Backend::spawn(&desk.db.url(), |command| {
        quickly(command);
        command.env("AV_NOTIFY_TIMEOUT_MS", "500");
    });
    second.wait_until_healthy();
    let receiver = Receiver::start(0, Duration::from_millis(20));
    desk.create("/admin/channels", &webhook("ops", &receiver.url));
    let ips: Vec<String> = (1..=40).map(|i| format!("10.0.0.{i}")).collect();
    for (i, ip) in ips.iter().enumerate() {
        desk.add_device(ip, &format!("room {i}"));
    }
    let with = |verdict: &'static str| {
        ips.iter()
            .map(move |ip| (ip.as_str(), verdict))
            .collect::<Vec<_>>()
    };

    desk.report(&with("fault"));
    desk.wait("all 40 arrive", |_| {
        (receiver.taken().len() >= 40).then_some(())
    });
    desk.wait_for_rounds();
    let messages: BTreeSet<String> = receiver
        .taken()
        .into_iter()
        .map(|hook| hook.message)
        .collect();
    assert_eq!((messages.len(), receiver.taken().len()), (40, 40));

    // Killed in the middle of it: what it had in hand comes again, from the other.
    desk.report(&with("ok"));
    desk.wait("some endings arrive", |_| {
        (receiver.taken().len() >= 45).then_some(())
    });
    second.process.kill();
    let told = || -> BTreeMap<(String, String), BTreeSet<String>> {
        let mut told: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for hook in receiver.taken() {
            for event in hook.events() {
                told.entry(event).or_default().insert(hook.message.clone());
            }
        }
        told
    };
    desk.wait("every event arrives", |_| {
        (told().len() == 80).then_some(())
    });
    desk.wait("nothing waits", |desk| {
        let waiting: i64 = desk.one("SELECT count(*) FROM messages WHERE state <> 'sent'");
        (waiting == 0).then_some(())
    });
    assert!(
        told().values().all(|messages| messages.len() == 1),
        "{:?}",
        told()
    );
    assert_eq!(desk.one::<i64>("SELECT count(*) FROM messages"), 80);

    // Killed alone, with a receiver that is down: the next start sends it.
    let late = Receiver::start(u32::MAX, NO_DELAY);
    let id = desk.get("/admin/channels")["channels"][0]["id"].clone();
    let path = format!("/admin/channels/{id}");
    assert_eq!(
        desk.ask("PUT", &path, Some(&webhook("ops", &late.url)))
            .status,
        200
    );
    desk.report(&[("10.0.0.1", "fault")]);
    desk.wait("it is tried", |_| (!late.hooks().is_empty()).then_some(()));
    desk.backend.process.kill();
    let up = Receiver::start(0, NO_DELAY);
    desk.sql
        .execute("UPDATE channels SET url = $1, retry_at = NULL", &[&up.url])
        .unwrap();
    let third = Backend::spawn(&desk.db.url(), quickly);
    third
        .process
        .wait_for("it arrives", || (up.taken().len() == 1).then_some(()));
    assert_eq!(
        up.taken()[0].events(),
        [("opened".to_owned(), "10.0.0.1".to_owned())]
    );
    assert_eq!(up.taken()[0].message, late.hooks()[0].message);
}

#[test]
fn mail_arrives_once_though_the_server_refuses_at_first() {
    let sink = SmtpSink::start().unwrap();
    sink.refuse_next(2);
    let mut desk = Desk::open(|command| {
        command
            .env("AV_SMTP_URL", sink.url())
            .env("AV_MAIL_FROM", "AV monitoring <av@example.org>")
            .env("AV_PUBLIC_URL", "https://av.example.org/");
    });
    desk.create("/admin/channels", &mail("ops"));
    desk.add_device("10.0.0.1", "Salle é");
    desk.report(&[("10.0.0.1", "fault")]);
    desk.wait("the mail arrives", |_| {
        (!sink.mails().is_empty()).then_some(())
    });
    desk.wait_for_rounds();
    assert_eq!((sink.mails().len(), sink.tried()), (1, 3));
    let mail = &sink.mails()[0];
    assert_eq!(mail.from, "av@example.org");
    assert_eq!(mail.to, ["ops@example.org", "b@example.org"]);
    assert_eq!(
        mail.header("From").unwrap(),
        "\"AV monitoring\" <av@example.org>"
    );
    assert!(
        mail.header("Message-ID")
            .unwrap()
            .ends_with("@example.org>")
    );
    // é encoded (RFC 2047): [AV] Paris, A, 1, Salle é: 1 in fault
    let subject = mail.header("Subject").unwrap();
    assert!(
        subject.starts_with("[AV] Paris, A, 1, Salle =?utf-8?"),
        "{subject}"
    );
    assert!(
        mail.text.contains("Device 10.0.0.1 (10.0.0.1): in fault"),
        "{}",
        mail.text
    );
    assert!(
        mail.text.contains("https://av.example.org/alerts"),
        "{}",
        mail.text
    );
    assert!(mail.text.contains("Europe/Paris"), "{}", mail.text);
}

#[test]
fn a_digest_collects_and_quiet_hours_hold_back_what_is_not_critical() {
    let sink = SmtpSink::start().unwrap();
    let mut desk = Desk::open(|command| {
        command
            .env("AV_SMTP_URL", sink.url())
            .env("AV_MAIL_FROM", "av@example.org");
    });
    let mut digest = mail("digest");
    digest["digest_minutes"] = json!(60);
    desk.create("/admin/channels", &digest);
    // Quiet for the two hours around now, whatever the time is.
    let (from, to): (String, String) = {
        let row = desk
            .sql
            .query_one(
                "SELECT to_char(t - interval '1 hour', 'HH24:MI'), to_char(t + interval '1 hour', 'HH24:MI')
                   FROM (SELECT now() AT TIME ZONE 'Europe/Paris' AS t) n",
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    let receiver = Receiver::start(0, NO_DELAY);
    let mut quiet = webhook("quiet", &receiver.url);
    quiet["timezone"] = json!("Europe/Paris");
    quiet["quiet_from"] = json!(from);
    quiet["quiet_to"] = json!(to);
    let quiet_channel = desk.create("/admin/channels", &quiet);

    for (ip, room) in [
        ("10.0.0.1", "101"),
        ("10.0.0.2", "102"),
        ("10.0.0.3", "103"),
    ] {
        desk.add_device(ip, room);
    }
    desk.sql
        .batch_execute("UPDATE devices SET alert_severity = 'warning' WHERE ip <> '10.0.0.1'")
        .unwrap();
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    desk.report(&all.map(|ip| (ip, "fault")));
    desk.wait("what is critical passes", |_| {
        (!receiver.taken().is_empty()).then_some(())
    });
    desk.wait_for_rounds();
    assert_eq!(receiver.taken().len(), 1, "the warnings wait");
    assert_eq!(
        receiver.taken()[0].events(),
        [("opened".to_owned(), "10.0.0.1".to_owned())]
    );
    assert_eq!(sink.tried(), 0, "the digest collects");

    // Morning comes.
    quiet["quiet_from"] = Value::Null;
    quiet["quiet_to"] = Value::Null;
    let path = format!("/admin/channels/{}", quiet_channel["id"]);
    assert_eq!(desk.ask("PUT", &path, Some(&quiet)).status, 200);
    desk.wait("the warnings arrive", |_| {
        (receiver.taken().len() == 3).then_some(())
    });

    // An hour later.
    desk.sql
        .batch_execute("UPDATE alert_events SET at = at - interval '1 hour'")
        .unwrap();
    desk.wait("the digest arrives", |_| {
        (!sink.mails().is_empty()).then_some(())
    });
    desk.wait_for_rounds();
    assert_eq!(sink.mails().len(), 1);
    assert_eq!(
        sink.mails()[0].header("Subject").unwrap(),
        "[AV] Paris: 3 in fault"
    );
    for ip in all {
        assert!(sink.mails()[0].text.contains(ip));
    }
}

#[test]
fn a_channel_hears_of_its_site_and_severity_alone() {
    let mut desk = Desk::open(|_| {});
    let other: i64 =
        desk.one("INSERT INTO sites (name, token) VALUES ('Lyon', 'lyon') RETURNING id");
    let (all, lyon, critical, off) = (
        Receiver::start(0, NO_DELAY),
        Receiver::start(0, NO_DELAY),
        Receiver::start(0, NO_DELAY),
        Receiver::start(0, NO_DELAY),
    );
    let mut channel = webhook("all", &all.url);
    channel["notify_closed"] = json!(false);
    desk.create("/admin/channels", &channel);
    let mut channel = webhook("lyon", &lyon.url);
    channel["site_id"] = json!(other);
    desk.create("/admin/channels", &channel);
    let mut channel = webhook("critical", &critical.url);
    channel["min_severity"] = json!("critical");
    desk.create("/admin/channels", &channel);
    let mut channel = webhook("off", &off.url);
    channel["enabled"] = json!(false);
    desk.create("/admin/channels", &channel);

    desk.add_device("10.0.0.1", "101");
    desk.add_device("10.0.0.2", "102");
    let id: i64 = desk.one("SELECT id FROM devices WHERE ip = '10.0.0.2'");
    let hash = |desk: &Desk| {
        desk.backend
            .get(&format!("/config/{}", alerts_support::SITE_TOKEN))
            .json()["config_hash"]
            .clone()
    };
    let before = (
        hash(&desk),
        desk.get(&format!("/admin/sites/{}/versions", desk.site)),
    );
    let path = format!("/admin/devices/{id}/severity");
    let refused = desk.ask("PUT", &path, Some(&json!({"severity": "mild"})));
    assert_eq!(refused.status, 422);
    let set = desk.ask("PUT", &path, Some(&json!({"severity": "warning"})));
    assert_eq!(
        (set.status, set.json()),
        (200, json!({"severity": "warning"}))
    );
    // No part of what the agent gets, and no version of it.
    let after = (
        hash(&desk),
        desk.get(&format!("/admin/sites/{}/versions", desk.site)),
    );
    assert_eq!(after, before);
    for verdict in ["fault", "ok"] {
        desk.report(&[("10.0.0.1", verdict), ("10.0.0.2", verdict)]);
        desk.wait("nothing waits", |desk| {
            let waiting: i64 = desk.one(
                "SELECT (SELECT count(*) FROM alert_events WHERE NOT planned)
                        + (SELECT count(*) FROM messages WHERE state <> 'sent')",
            );
            (waiting == 0).then_some(())
        });
    }
    let told = |receiver: &Receiver| {
        let mut events: Vec<_> = receiver
            .taken()
            .iter()
            .flat_map(|hook| hook.events())
            .collect();
        events.sort();
        events
    };
    let event = |what: &str, ip: &str| (what.to_owned(), ip.to_owned());
    assert_eq!(
        told(&all),
        [event("opened", "10.0.0.1"), event("opened", "10.0.0.2")]
    );
    assert_eq!(
        told(&critical),
        [event("closed", "10.0.0.1"), event("opened", "10.0.0.1")]
    );
    assert_eq!(told(&lyon), []);
    assert_eq!(told(&off), []);

    // A site goes with its alerts, also where somebody waits to hear of them.
    desk.report(&[("10.0.0.1", "fault"), ("10.0.0.2", "fault")]);
    let site = desk.site;
    desk.sql
        .execute("DELETE FROM sites WHERE id = $1", &[&site])
        .unwrap();
    assert_eq!(desk.one::<i64>("SELECT count(*) FROM alerts"), 0);
}

#[test]
fn alerts_are_listed_acknowledged_and_commented() {
    let mut desk = Desk::open(|_| {});
    let ips: Vec<String> = (1..=5).map(|i| format!("10.0.0.{i}")).collect();
    for ip in &ips {
        desk.add_device(ip, "101");
    }
    desk.report(
        &ips.iter()
            .map(|ip| (ip.as_str(), "fault"))
            .collect::<Vec<_>>(),
    );
    desk.report(&[("10.0.0.5", "ok")]);
    let open = desk.get("/admin/alerts?state=open&limit=3");
    assert_eq!(
        (&open["total"], open["alerts"].as_array().unwrap().len()),
        (&json!(4), 3)
    );
    let rest = desk.get("/admin/alerts?state=open&limit=3&offset=3");
    assert_eq!(rest["alerts"].as_array().unwrap().len(), 1);
    let closed = desk.get(&format!("/admin/alerts?state=closed&site_id={}", desk.site));
    assert_eq!(
        (&closed["total"], &closed["alerts"][0]["device_ip"]),
        (&json!(1), &json!("10.0.0.5"))
    );
    assert_eq!(desk.get("/admin/alerts?site_id=999999")["total"], 0);
    for (path, field) in [
        ("/admin/alerts?state=x", "state"),
        ("/admin/alerts?limit=0", "limit"),
        ("/admin/alerts?site_id=x", "site_id"),
    ] {
        let refused = desk.ask("GET", path, None);
        assert_eq!(
            (refused.status, &refused.json()["fields"][0]["field"]),
            (422, &json!(field))
        );
    }

    let alert = &open["alerts"][0];
    let path = format!("/admin/alerts/{}", alert["id"]);
    assert_eq!(desk.ask_as_viewer("GET", &path, None).status, 200);
    assert_eq!(
        desk.ask_as_viewer("POST", &format!("{path}/acknowledge"), None)
            .status,
        403
    );
    let answer = desk.ask(
        "POST",
        &format!("{path}/acknowledge"),
        Some(&json!({"comment": "on my way"})),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = answer.json();
    assert_eq!(shown["acknowledged_by"], "admin");
    assert_eq!(shown["comments"][0]["body"], "on my way");
    // The first who took notice stands.
    let again = desk
        .ask("POST", &format!("{path}/acknowledge"), None)
        .json();
    assert_eq!(again["acknowledged_at"], shown["acknowledged_at"]);
    let commented = desk.ask(
        "POST",
        &format!("{path}/comments"),
        Some(&json!({"body": "fuse\nreplaced"})),
    );
    assert_eq!(commented.json()["comments"][1]["body"], "fuse\nreplaced");
    for (body, field) in [
        (json!({"body": " "}), "body"),
        (json!({}), "body"),
        (json!({"body": "a\u{7}"}), "body"),
    ] {
        let refused = desk.ask("POST", &format!("{path}/comments"), Some(&body));
        assert_eq!(
            (refused.status, &refused.json()["fields"][0]["field"]),
            (422, &json!(field)),
            "{body}"
        );
    }
    assert_eq!(desk.get("/admin/alerts?acknowledged=true")["total"], 1);
    for missing in ["/admin/alerts/999999", "/admin/alerts/x"] {
        assert_eq!(desk.ask("GET", missing, None).status, 404);
    }
    assert_eq!(desk.ask("DELETE", &path, None).status, 405);
    let deeds: String = desk
        .one("SELECT string_agg(action, ' ' ORDER BY id) FROM audit WHERE action LIKE 'alert.%'");
    assert_eq!(deeds, "alert.acknowledge alert.acknowledge alert.comment");
}

#[test]
fn channels_never_show_their_secrets_and_can_be_tried() {
    let mut desk = Desk::open(|_| {});
    let receiver = Receiver::start(0, NO_DELAY);
    let made = desk.create("/admin/channels", &webhook("ops", &receiver.url));
    let path = format!("/admin/channels/{}", made["id"]);
    let hidden = |text: &str| !text.contains(SECRET) && !text.contains("secret-path");
    let shown = desk.ask("GET", &path, None);
    for text in [
        made.to_string(),
        shown.body.clone(),
        desk.get("/admin/channels").to_string(),
        desk.get(&path).to_string(),
    ] {
        assert!(hidden(&text), "{text}");
    }
    assert_eq!(made["secret"], "***");

    // A form that sends back what it was shown changes nothing of it.
    let mut form = json!({"kind": "webhook", "name": "renamed", "collect_s": 5});
    for field in ["url", "secret"] {
        form[field] = made[field].clone();
    }
    assert_eq!(desk.ask("PUT", &path, Some(&form)).status, 200);
    let tried = desk.ask("POST", &format!("{path}/test"), None);
    assert_eq!(tried.status, 202, "{tried:?}");
    desk.wait("the test message arrives", |_| {
        (receiver.taken().len() == 1).then_some(())
    });
    let hook = &receiver.taken()[0];
    assert_eq!(hook.json()["kind"], "test");
    assert_eq!(hook.message, tried.json()["message_id"].to_string());
    assert_eq!(
        hook.signature,
        format!(
            "sha256={}",
            hmac(SECRET, &format!("{}.{}", hook.timestamp, hook.body))
        )
    );
    desk.wait("it is noted", |desk| {
        let messages = desk.get(&format!("{path}/messages"));
        (messages["messages"][0]["state"] == "sent").then_some(())
    });
    assert!(desk.get(&path)["last_sent_at"].is_string());

    // A mail channel without a mail server says what is missing.
    let mail = desk.create("/admin/channels", &mail("mail"));
    let mail_path = format!("/admin/channels/{}", mail["id"]);
    assert_eq!(
        desk.ask("POST", &format!("{mail_path}/test"), None).status,
        202
    );
    desk.wait("the channel says why", |desk| {
        desk.get(&mail_path)["last_error"]
            .as_str()?
            .contains("AV_SMTP_URL")
            .then_some(())
    });

    let taken = desk.ask(
        "POST",
        "/admin/channels",
        Some(&webhook("renamed", &receiver.url)),
    );
    assert_eq!(
        (taken.status, &taken.json()["fields"][0]["field"]),
        (409, &json!("name"))
    );
    let mut nowhere = webhook("nowhere", &receiver.url);
    nowhere["site_id"] = json!(999_999);
    let refused = desk.ask("POST", "/admin/channels", Some(&nowhere));
    assert_eq!(
        (refused.status, &refused.json()["fields"][0]["field"]),
        (422, &json!("site_id"))
    );
    assert_eq!(desk.ask_as_viewer("DELETE", &path, None).status, 403);
    assert_eq!(desk.ask("DELETE", &path, None).status, 204);
    assert_eq!(desk.ask("GET", &path, None).status, 404);
    assert!(hidden(&desk.backend.process.log()));
}
