//! `av-agent discover` against simulated projectors, and what an
//! administrator does with what it found: real programs, a real PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

mod admin_support;

use std::net::SocketAddr;
use std::process::{Command, Output};

use admin_support::{Browser, Office, assert_error, bad_fields};
use av_proto_tests::namespace::may_ping;
use av_proto_tests::pjlink_sim::{Config, Projector};
use av_proto_tests::process::{Answer, binary, http};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `127.X.Y.0/29`, another for each test of each process.
struct Network(u8, u8);

impl Network {
    fn new(test: u8) -> Self {
        Self(64 + (std::process::id() % 128) as u8, test)
    }

    fn address(&self, host: u8) -> String {
        format!("127.{}.{}.{host}", self.0, self.1)
    }

    fn cidr(&self) -> String {
        format!("{}/29", self.address(0))
    }

    /// A projector at the standard's port.
    fn projector(&self, host: u8, product: &str, password: Option<&str>) -> Projector {
        let listen: SocketAddr = format!("{}:4352", self.address(host)).parse().unwrap();
        let mut config = Config::new(listen);
        config.password = password.map(str::to_owned);
        config.state.manufacturer = "EPSON".to_owned();
        config.state.product = product.to_owned();
        config.state.name = format!("Projector {host}");
        Projector::start(config).unwrap()
    }
}

fn agent(arguments: &[&str], config: Option<&TempDir>) -> Output {
    let mut command = Command::new(binary("av-agent"));
    command.args(arguments).env_remove("RUST_LOG");
    if let Some(dir) = config {
        command.env("AGENT_CONFIG", dir.path().join("config.json"));
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[track_caller]
fn discover(network: &str, more: &[&str]) -> Vec<Value> {
    let hasty = ["--json", "--rate", "2000", "--search-wait", "0"];
    let arguments = [&["discover", network], &hasty[..], more].concat();
    let output = agent(&arguments, None);
    assert!(output.status.success(), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["found"].as_array().unwrap().clone()
}

#[track_caller]
fn at(found: &[Value], ip: &str) -> Value {
    let mut here = found.iter().filter(|one| one["ip"] == ip);
    let one = here
        .next()
        .unwrap_or_else(|| panic!("no {ip} in {found:?}"));
    assert!(here.next().is_none(), "{ip} is there twice");
    one.clone()
}

#[test]
fn projectors_are_found_in_the_network_that_is_named_and_in_no_other() {
    if !may_ping("projectors_are_found_in_the_network_that_is_named_and_in_no_other") {
        return;
    }
    let network = Network::new(1);
    let open = network.projector(2, "EB-L730U", None);
    let locked = network.projector(3, "EB-L1", Some("secret"));
    let outside = network.projector(9, "EB-OUT", None);

    let found = discover(&network.cidr(), &[]);
    let first = at(&found, &network.address(2));
    assert_eq!(first["vendor"], "Epson");
    assert_eq!(first["model"], "EB-L730U");
    assert_eq!(first["name"], "Projector 2");
    assert_eq!(first["type"], "projector");
    assert_eq!(first["driver"], "pjlink");
    assert!(first["ports"].as_array().unwrap().contains(&json!(4352)));
    let second = at(&found, &network.address(3));
    assert_eq!(second["driver"], "pjlink");
    assert_eq!(second["model"], Value::Null);
    let evidence = second["evidence"].to_string();
    assert!(evidence.contains("wants a password"), "{evidence}");

    let inside: Vec<String> = (1..=6).map(|host| network.address(host)).collect();
    for one in &found {
        let ip = one["ip"].as_str().unwrap();
        assert!(inside.iter().any(|known| known == ip), "{ip}");
    }
    assert_eq!(outside.counters().connections, 0);
    assert!(open.counters().connections > 0);
    assert_eq!(locked.counters().wrong_passwords, 0);

    let alone = network.address(2);
    let table = agent(&["discover", &alone, "--search-wait", "0"], None);
    let table = String::from_utf8(table.stdout).unwrap();
    for word in ["EB-L730U", "Epson", "pjlink", "1 found at 1 addresses"] {
        assert!(table.contains(word), "{table}");
    }
    assert!(
        !table.contains('\u{1b}'),
        "no colours into a file: {table:?}"
    );
}

#[test]
fn no_network_and_too_large_ones_are_refused_before_anything_is_sent() {
    for (arguments, words) in [
        (&["discover"][..], "required"),
        (&["discover", "10.0.0.0/8"], "larger than a /16"),
        (&["discover", "127.1.0.0/16", "127.2.0.0/16"], "too many"),
        (&["discover", "127.0.0.1", "--rate", "0"], "--rate"),
        (
            &["discover", "127.0.0.1", "--search-wait", "61"],
            "--search-wait",
        ),
        (
            &["discover", "127.0.0.1", "--community-env", "AV_NONE"],
            "AV_NONE",
        ),
    ] {
        let output = agent(arguments, None);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

/// A folder with a `config.json` of this site and its backend.
fn configured(office: &Office, name: &str, token: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"site_name": name, "site_token": token, "backend_url": office.backend.url});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn suggestions(office: &Office, query: &str) -> Vec<Value> {
    let list = office.get(&format!("/admin/suggestions{query}"));
    assert_eq!(
        list["total"].as_u64().unwrap(),
        list["suggestions"].as_array().unwrap().len() as u64
    );
    list["suggestions"].as_array().unwrap().clone()
}

#[test]
fn what_is_found_is_suggested_accepted_and_then_watched() {
    if !may_ping("what_is_found_is_suggested_accepted_and_then_watched") {
        return;
    }
    let network = Network::new(2);
    let _first = network.projector(1, "EB-A", None);
    let second = network.projector(2, "EB-B", Some("pass1"));
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let (_, other_token) = office.site("Lyon");
    let dir = configured(&office, "Paris", &token);
    let range = format!("{}-2", network.address(1));
    let suggest = || {
        let output = agent(
            &[
                "discover",
                &range,
                "--rate",
                "2000",
                "--search-wait",
                "0",
                "--suggest",
            ],
            Some(&dir),
        );
        assert!(output.status.success(), "{}", said(&output));
        let said = said(&output);
        assert!(!said.contains(&token), "the token is shown");
        said
    };
    assert!(suggest().contains("2 new or changed, 0 known, 0 configured already"));
    assert!(suggest().contains("0 new or changed, 2 known, 0 configured already"));

    let open = suggestions(&office, "?site=Paris");
    assert_eq!(open.len(), 2);
    assert_eq!(suggestions(&office, "?site=Lyon"), Vec::<Value>::new());
    let one = at(&open, &network.address(1));
    assert_eq!(one["site_id"], site);
    assert_eq!(one["state"], "open");
    assert_eq!(one["driver"], "pjlink");
    assert!(one["evidence"].to_string().contains("EB-A"), "{one}");
    assert!(one["first_seen"].as_str().unwrap() < one["last_seen"].as_str().unwrap());
    // Nothing is watched yet.
    let config = || office.backend.get(&format!("/config/{token}")).json();
    assert_eq!(config()["devices"], json!([]));

    // Accepting is for editors, and validated as any device is.
    let accept = |id: &Value, body: &Value| {
        office.edit(
            "POST",
            &format!("/admin/suggestions/{id}/accept"),
            &[],
            body,
        )
    };
    let id = &one["id"];
    let viewer = office.send(
        &office.viewer,
        "POST",
        &format!("/admin/suggestions/{id}/accept"),
        &[("Content-Type", "application/json")],
        Some(b"{}"),
    );
    assert_eq!(viewer.status, 403);
    let bad = accept(
        id,
        &json!({"driver_config": {"pjlink": {"port": 0}}, "name": ""}),
    );
    assert_eq!(bad.status, 422);
    assert_eq!(bad_fields(&bad), ["name", "driver_config.pjlink.port"]);
    assert_eq!(
        bad_fields(&accept(id, &json!({"site_id": site + 1}))),
        ["site_id"]
    );
    assert_eq!(config()["devices"], json!([]));

    let hash = config()["config_hash"].clone();
    let added = accept(id, &json!({"room": "101"}));
    assert_eq!(added.status, 201, "{added:?}");
    let device = added.json();
    assert_eq!(
        added.headers["location"],
        format!("/admin/devices/{}", device["id"])
    );
    assert_eq!(device["name"], "Projector 1");
    assert_eq!(device["type"], "projector");
    // A poll sees it 100 ms after the commit at the latest.
    office
        .backend
        .process
        .wait_for("the agent gets the device", || {
            (config()["config_hash"] != hash).then_some(())
        });
    assert_eq!(config()["devices"][0]["ip"], network.address(1));
    assert_eq!(config()["devices"][0]["room"], "101");
    // A version of the configuration with its author, and two deeds.
    let versions = office.get(&format!("/admin/sites/{site}/versions"));
    assert!(versions.to_string().contains("\"editor\""), "{versions}");
    let deeds: i64 = office.one(
        "SELECT count(*) FROM audit WHERE actor = 'editor'
           AND action IN ('device.create', 'suggestion.accept')",
    );
    assert_eq!(deeds, 2);
    assert_error(&accept(id, &json!({})), 409, "accepted");
    assert!(suggest().contains("0 new or changed, 1 known, 1 configured already"));
    let accepted = suggestions(&office, "?state=accepted");
    assert_eq!(accepted[0]["decided_by"], "editor");
    assert_eq!(accepted[0]["device_id"], device["id"]);

    // The other one is dismissed, and does not come back as it was.
    let id = at(&open, &network.address(2))["id"].clone();
    let dismiss = |id: &Value| {
        office.edit(
            "POST",
            &format!("/admin/suggestions/{id}/dismiss"),
            &[],
            &json!({}),
        )
    };
    let dismissed = dismiss(&id);
    assert_eq!(dismissed.status, 200, "{dismissed:?}");
    assert_eq!(dismissed.json()["state"], "dismissed");
    assert!(suggest().contains("0 new or changed, 1 known"));
    assert_eq!(suggestions(&office, ""), Vec::<Value>::new());
    // It does when it is something else.
    drop(second);
    let _third = network.projector(2, "EB-C", None);
    assert!(suggest().contains("1 new or changed, 0 known, 1 configured already"));
    let back = suggestions(&office, "?site=Paris");
    assert_eq!(back[0]["model"], "EB-C");
    assert_eq!(back[0]["id"], id);
    assert_eq!(back[0]["decided_by"], Value::Null);

    // An accepted one whose device is deleted comes back too.
    let device = format!("/admin/devices/{}", device["id"]);
    let etag = office
        .send(&office.editor, "GET", &device, &[], None)
        .headers["etag"]
        .clone();
    let deleted = office.edit("DELETE", &device, &[("If-Match", &etag)], &json!({}));
    assert!(deleted.status < 300, "{deleted:?}");
    assert!(suggest().contains("1 new or changed, 1 known, 0 configured already"));

    // The page has it, with the buttons, in the reader's language.
    let page = |name: &str, language: &str| {
        let browser = Browser::log_in(&office.backend, name);
        let path = format!("/sites/{site}/suggestions");
        let answer = browser.send("GET", &path, &[("Accept-Language", language)], None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let french = page("editor", "fr");
    for word in ["EB-C", "Équipements trouvés", "Surveiller", "Écarter"] {
        assert!(french.contains(word), "no {word} in {french}");
    }
    let viewers = page("viewer", "en");
    assert!(viewers.contains("Equipment found") && !viewers.contains("data-accept"));

    // Another site's token tells of another site.
    let stranger = configured(&office, "Paris", &other_token);
    let refused = agent(
        &["discover", &range, "--suggest", "--search-wait", "0"],
        Some(&stranger),
    );
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said(&refused).contains("did not take the suggestions (401)"),
        "{}",
        said(&refused)
    );
    let unknown = office.edit("POST", "/admin/suggestions/999999/accept", &[], &json!({}));
    assert_error(&unknown, 404, "no such suggestion");
}

#[test]
fn what_is_no_suggestion_is_refused_whole() {
    let office = Office::open();
    let (_, token) = office.site("Paris");
    let post = |token: Option<&str>, body: &str| -> Answer {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(token.map(|token| ("X-Site-Token", token)));
        let url = format!("{}/suggestions", office.backend.url);
        http("POST", &url, &headers, Some(body.as_bytes())).unwrap()
    };
    let body = |found: &str| format!(r#"{{"site_name":"Paris","found":[{found}]}}"#);
    let good = r#"{"ip":"10.0.0.1","driver":"snmp"}"#;
    for (token, body, status, said) in [
        (None, body(good), 401, "X-Site-Token"),
        (Some("wrong"), body(good), 401, "X-Site-Token"),
        (Some(&token[..]), "{".to_owned(), 400, "not JSON"),
        (Some(&token), "{}".to_owned(), 400, "site_name"),
        (
            Some(&token),
            r#"{"site_name":"Nowhere","found":[]}"#.to_owned(),
            404,
            "no such site",
        ),
        (
            Some(&token),
            body(&format!(r#"{good},{{"ip":"x"}}"#)),
            400,
            "found[1].ip",
        ),
        (
            Some(&token),
            body(r#"{"ip":"10.0.0.2","driver_config":{"snmp":{"community":"c0mm"}}}"#),
            400,
            "has a secret",
        ),
        (
            Some(&token),
            body(r#"{"ip":"10.0.0.2","driver_config":{"x":"a\u0000"}}"#),
            400,
            "cannot be stored",
        ),
    ] {
        assert_error(&post(token, &body), status, said);
    }
    assert_eq!(suggestions(&office, "?state=all"), Vec::<Value>::new());
    let answer = office.backend.get("/suggestions");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.headers["allow"], "POST");

    let taken = post(
        Some(&token),
        &body(&format!(
            r#"{good},{good},{{"ip":"2001:DB8::1","new":[1]}}"#
        )),
    );
    assert_eq!(taken.status, 200, "{taken:?}");
    assert_eq!(
        taken.json(),
        json!({"ok": true, "suggested": 2, "known": 0, "configured": 0})
    );
    // One spelling for one address, and one without a driver asks for it.
    let open = suggestions(&office, "");
    let six = at(&open, "2001:db8::1");
    let accept = format!("/admin/suggestions/{}/accept", six["id"]);
    let refused = office.edit("POST", &accept, &[], &json!({}));
    assert_eq!(refused.status, 422);
    assert_eq!(bad_fields(&refused), ["driver"]);
    let added = office.edit("POST", &accept, &[], &json!({"driver": "ping"}));
    assert_eq!(added.status, 201, "{added:?}");
    assert_eq!(added.json()["name"], "2001:db8::1");
    let bad = office.send(
        &office.editor,
        "GET",
        "/admin/suggestions?state=new",
        &[],
        None,
    );
    assert_eq!(bad_fields(&bad), ["state"]);
}
