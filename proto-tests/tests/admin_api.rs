//! Sites and devices over JSON: the real backend, a real database.

mod admin_support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use admin_support::{Browser, Office, assert_error, bad_fields};
use av_proto_tests::process::{Answer, backend_command};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const CSV: (&str, &str) = ("Content-Type", "text/csv");

fn projector(site: i64, ip: &str) -> Value {
    json!({
        "site_id": site, "ip": ip, "name": "Projecteur Salle A",
        "building": "Bâtiment A", "floor": "1", "room": "Salle 101",
        "type": "projector", "driver": "pjlink",
        "driver_config": {"pjlink": {"password": "geheim7", "port": 4352, "timeout_s": 2}},
        "expectations": {"always_on": false, "alert_after_s": 300,
            "schedule": {"timezone": "Europe/Paris",
                "rules": [{"days": ["mon", "fri"], "start": "08:00", "end": "18:00"}]}}
    })
}

/// Adds a device; answers its path and entity tag.
#[track_caller]
fn add(office: &Office, device: &Value) -> (String, String) {
    let answer = office.edit("POST", "/admin/devices", &[], device);
    assert_eq!(answer.status, 201, "{answer:?}");
    (
        answer.headers["location"].clone(),
        answer.headers["etag"].clone(),
    )
}

#[test]
fn a_site_is_made_changed_and_deleted() {
    let office = Office::open();
    let made = office.edit(
        "POST",
        "/admin/sites",
        &[],
        &json!({"name": "Site Paris", "timezone": "Europe/Paris", "ok_interval_s": 120}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let site = made.json();
    let token = site["token"].as_str().unwrap();
    assert_eq!(token.len(), 64, "256 bits in hex");
    assert_eq!(site["doubt_after_days"], 2);
    assert_eq!(site["ko_interval_s"], 60);
    // The token works for the agent, and is not shown again.
    assert_eq!(
        office.backend.get(&format!("/config/{token}")).json()["reporting"]["ok_interval_s"],
        120
    );
    let path = made.headers["location"].clone();
    let shown = office.send(&office.editor, "GET", &path, &[], None);
    assert!(
        !shown.body.contains(token) && !shown.body.contains("sha256"),
        "{shown:?}"
    );

    let etag = shown.headers["etag"].as_str();
    assert_eq!(made.headers["etag"], etag);
    let patch = |etag: Option<&str>, body: Value| {
        let headers: Vec<_> = etag.map(|etag| ("If-Match", etag)).into_iter().collect();
        office.edit("PATCH", &path, &headers, &body)
    };
    assert_error(&patch(None, json!({"name": "x"})), 428, "If-Match");
    let renamed = patch(Some(etag), json!({"name": "Site Lyon"}));
    assert_eq!(renamed.status, 200, "{renamed:?}");
    assert_eq!(renamed.json()["name"], "Site Lyon");
    assert_eq!(
        renamed.json()["ok_interval_s"],
        120,
        "a PATCH keeps the rest"
    );
    assert_error(
        &patch(Some(etag), json!({"name": "x"})),
        412,
        "somebody else",
    );
    assert_error(
        &patch(Some("W/\"x\", \"y\""), json!({"name": "x"})),
        412,
        "somebody else",
    );
    assert_eq!(patch(Some("*"), json!({"timezone": "UTC"})).status, 200);

    // What was got can be sent back, and a PUT sets all.
    let whole = office.get(&path);
    let put = office.edit("PUT", &path, &[("If-Match", "*")], &whole);
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(
        put.json()["updated_at"],
        whole["updated_at"],
        "nothing changed"
    );
    let put = office.edit("PUT", &path, &[("If-Match", "*")], &json!({"name": "Lyon"}));
    assert_eq!(put.json()["ok_interval_s"], 300, "a PUT takes the default");

    let bad = patch(
        Some("*"),
        json!({"name": " ", "timezone": "Mars", "doubt_after_days": -1, "ok_interval_s": 10, "ko_interval_s": 1e9 as i64}),
    );
    assert_eq!(bad.status, 422);
    assert_eq!(
        bad_fields(&bad),
        [
            "name",
            "timezone",
            "doubt_after_days",
            "ok_interval_s",
            "ko_interval_s"
        ]
    );
    assert_eq!(
        bad_fields(&patch(Some("*"), json!({"ok_interval_s": "x"}))),
        ["ok_interval_s"]
    );
    assert_eq!(
        bad_fields(&office.edit("POST", "/admin/sites", &[], &json!({}))),
        ["name"]
    );
    assert_eq!(
        bad_fields(&office.edit("POST", "/admin/sites", &[], &json!({"nam": "x"}))),
        ["nam"]
    );
    let twice = office.edit("POST", "/admin/sites", &[], &json!({"name": "Lyon"}));
    assert_error(&twice, 409, "name");

    add(
        &office,
        &projector(whole["id"].as_i64().unwrap(), "10.0.0.1"),
    );
    let etag = office.send(&office.admin, "GET", &path, &[], None).headers["etag"].clone();
    let delete =
        |headers: &[(&str, &str)]| office.send(&office.admin, "DELETE", &path, headers, None);
    assert_eq!(delete(&[]).status, 428);
    assert_eq!(delete(&[("If-Match", "\"old\"")]).status, 412);
    assert_eq!(delete(&[("If-Match", &etag)]).status, 204);
    assert_eq!(delete(&[("If-Match", &etag)]).status, 404);
    assert_eq!(office.get("/admin/devices")["total"], 0);
}

#[test]
fn the_list_of_sites_counts_what_is_in_them() {
    let office = Office::open();
    let (paris, token) = office.site("Paris");
    office.site("Lyon");
    add(&office, &projector(paris, "10.0.0.1"));
    add(&office, &projector(paris, "10.0.0.2"));
    let report = office.backend.ingest(
        &token,
        &json!({"site_name": "Paris", "devices": [{"ip": "10.0.0.1", "name": "", "building": "",
            "floor": "", "room": "", "type": "", "driver": "", "status": "offline",
            "detail": null, "metrics": {}, "verdict": "fault"}]}),
    );
    assert_eq!(report.status, 200, "{report:?}");
    let list = office.get("/admin/sites");
    assert_eq!(list["total"], 2);
    let names: Vec<&Value> = list["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["Lyon", "Paris"]);
    let paris = &list["sites"][1];
    assert_eq!(paris["devices"], 2);
    assert_eq!(
        paris["verdicts"],
        json!({"ok": 0, "fault": 1, "expected_off": 0, "doubt": 0, "unknown": 1})
    );
    assert_eq!(paris["open_alerts"], 1);
    assert!(paris["agent"]["last_report_at"].is_string());
    assert_eq!(office.get("/admin/sites?q=LYO")["total"], 1);
    let page = office.get("/admin/sites?limit=1&offset=1");
    assert_eq!(
        (page["total"].clone(), page["sites"][0]["name"].clone()),
        (json!(2), json!("Paris"))
    );
    assert_eq!(
        office.one::<i64>("SELECT count(*) FROM audit WHERE action = 'site.create'"),
        2
    );
}

#[test]
fn a_device_of_the_contract_arrives_at_the_agent() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    // The contract's device, `snmp` and `pjlink` beside, and site_id.
    let mut device = projector(site, "192.168.1.10");
    device["driver_config"] = json!({"other": 12345678901234567890_u64});
    device["snmp"] = json!({});
    device["pjlink"] = json!({"password": "admin", "port": 4352, "timeout_s": 2});
    let (path, _) = add(&office, &device);
    let config = office.backend.get(&format!("/config/{token}")).json();
    let sent = &config["devices"][0];
    assert_eq!(sent["pjlink"]["password"], "admin");
    assert_eq!(sent["driver_config"]["other"], 12345678901234567890_u64);
    for field in [
        "ip",
        "name",
        "building",
        "floor",
        "room",
        "type",
        "driver",
        "expectations",
    ] {
        assert_eq!(sent[field], device[field], "{field}");
    }
    // Numbers of any size keep their digits through a PATCH.
    let patched = office.send(
        &office.editor,
        "PATCH",
        &path,
        &[JSON, ("If-Match", "*")],
        Some(br#"{"driver_config": {"pjlink": {"password": "***"}, "n": [123456789012345678901234567890, 0.10]}}"#),
    );
    assert_eq!(patched.status, 200, "{patched:?}");
    assert!(
        patched
            .body
            .contains(r#""n": [123456789012345678901234567890, 0.10]"#),
        "{patched:?}"
    );
    let config = office.backend.get(&format!("/config/{token}"));
    assert!(
        config.body.contains("123456789012345678901234567890, 0.10"),
        "{config:?}"
    );
    assert_eq!(config.json()["devices"][0]["pjlink"]["password"], "admin");
}

#[test]
fn a_device_is_changed_by_whoever_saw_it_last() {
    let office = Office::open();
    let (site, _) = office.site("Paris");
    let (path, first) = add(&office, &projector(site, "10.0.0.1"));
    let edit = |method: &str, etag: &str, body: Value| {
        office.edit(method, &path, &[("If-Match", etag)], &body)
    };
    let changed = edit("PATCH", &first, json!({"name": "B"}));
    assert_eq!(changed.status, 200, "{changed:?}");
    let second = changed.headers["etag"].clone();
    assert_ne!(first, second);
    assert_error(
        &edit("PATCH", &first, json!({"name": "C"})),
        412,
        "somebody else",
    );
    assert_error(
        &edit("PUT", &first, projector(site, "10.0.0.1")),
        412,
        "somebody else",
    );
    assert_eq!(
        office
            .edit("PATCH", &path, &[], &json!({"name": "C"}))
            .status,
        428
    );
    let delete =
        |etag: &str| office.send(&office.editor, "DELETE", &path, &[("If-Match", etag)], None);
    assert_eq!(delete(&first).status, 412);
    // SQL is somebody else too.
    office.db.execute("UPDATE devices SET room = '102'");
    assert_eq!(delete(&second).status, 412);

    // Of two at once, one wins.
    let etag = office.send(&office.editor, "GET", &path, &[], None).headers["etag"].clone();
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn({
                    let (edit, etag) = (&edit, &etag);
                    move || edit("PATCH", etag, json!({"name": format!("racer {i}")})).status
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);

    let etag = office.send(&office.editor, "GET", &path, &[], None).headers["etag"].clone();
    assert_eq!(delete(&etag).status, 204);
    assert_eq!(delete(&etag).status, 404);
    assert_eq!(
        office.one::<i64>(
            "SELECT count(*) FROM audit WHERE action = 'device.update' AND actor = 'editor'"
        ),
        2
    );
    assert_eq!(
        office.one::<i64>("SELECT count(*) FROM audit WHERE action = 'device.delete'"),
        1
    );
}

#[test]
fn nothing_changes_where_nothing_differs() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let (path, etag) = add(&office, &projector(site, "10.0.0.1"));
    let before = office.backend.get(&format!("/config/{token}")).headers["etag"].clone();
    let mut sent_back = office.get(&path);
    sent_back["driver_config"]["pjlink"]["timeout_s"] = json!(2);
    let put = office.edit("PUT", &path, &[("If-Match", &etag)], &sent_back);
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(put.headers["etag"], etag);
    assert_eq!(
        office.backend.get(&format!("/config/{token}")).headers["etag"],
        before
    );
}

#[test]
fn secrets_are_masked_unless_an_editor_asks() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let mut device = projector(site, "10.0.0.1");
    device["driver_config"]["snmp"] =
        json!({"community": "hush-hush", "auth_key": "k3y", "priv_key": "k3y2"});
    let made = office.edit("POST", "/admin/devices", &[], &device);
    let path = made.headers["location"].clone();
    let revealed = format!("{path}?reveal=1");
    for (answer, shown) in [
        (made, false),
        (office.send(&office.viewer, "GET", &path, &[], None), false),
        (office.send(&office.editor, "GET", &path, &[], None), false),
        (
            office.send(&office.editor, "GET", "/admin/devices?reveal=1", &[], None),
            false,
        ),
        (
            office.send(
                &office.editor,
                "GET",
                &format!("/admin/export?site_id={site}"),
                &[],
                None,
            ),
            false,
        ),
        (
            office.send(
                &office.editor,
                "GET",
                &format!("/admin/export?site_id={site}&format=csv"),
                &[],
                None,
            ),
            false,
        ),
        (
            office.edit("PATCH", &path, &[("If-Match", "*")], &json!({"name": "B"})),
            false,
        ),
        (
            office.send(&office.editor, "GET", &revealed, &[], None),
            true,
        ),
        (
            office.send(
                &office.editor,
                "GET",
                &format!("/admin/export?site_id={site}&reveal=1"),
                &[],
                None,
            ),
            true,
        ),
    ] {
        for secret in ["geheim7", "hush-hush", "k3y"] {
            assert_eq!(answer.body.contains(secret), shown, "{secret}: {answer:?}");
        }
    }
    let refused = office.send(&office.viewer, "GET", &revealed, &[], None);
    assert_error(&refused, 403, "editor");
    assert_eq!(
        office
            .send(
                &office.viewer,
                "GET",
                &format!("/admin/export?site_id={site}&reveal=1"),
                &[],
                None
            )
            .status,
        403
    );
    // Who looked is written down.
    assert_eq!(
        office.one::<i64>(
            "SELECT count(*) FROM audit WHERE action = 'device.reveal' AND actor = 'editor'"
        ),
        1
    );
    assert_eq!(
        office.one::<i64>(
            "SELECT count(*) FROM audit WHERE action = 'site.reveal' AND actor = 'editor'"
        ),
        1
    );

    // The mask that comes back keeps the secret; a new one replaces it.
    let mut sent_back = office.get(&path);
    assert_eq!(sent_back["driver_config"]["pjlink"]["password"], "***");
    sent_back["room"] = json!("102");
    sent_back["driver_config"]["snmp"]["community"] = json!("new-one");
    let put = office.edit("PUT", &path, &[("If-Match", "*")], &sent_back);
    assert_eq!(put.status, 200, "{put:?}");
    let config = office.backend.get(&format!("/config/{token}")).json();
    let stored = &config["devices"][0]["driver_config"];
    assert_eq!(stored["pjlink"]["password"], "geheim7");
    assert_eq!(
        stored["snmp"],
        json!({"community": "new-one", "auth_key": "k3y", "priv_key": "k3y2"})
    );
    // What SQL stored with the wrong type is refused without being shown.
    let (wrong, _) = add(&office, &projector(site, "10.0.0.3"));
    office.db.execute(
        "UPDATE devices SET driver_config = '{\"pjlink\": {\"password\": 987654321}}'
          WHERE ip = '10.0.0.3'",
    );
    for answer in [
        office.send(&office.editor, "GET", &wrong, &[], None),
        office.edit("PATCH", &wrong, &[("If-Match", "*")], &json!({"name": "C"})),
        office.import(
            &format!("site_id={site}&dry_run=1"),
            CSV,
            "ip,name\n10.0.0.3,C\n",
        ),
    ] {
        assert!(!answer.body.contains("987654321"), "{answer:?}");
        assert!(
            answer.status == 200 || answer.body.contains("password"),
            "{answer:?}"
        );
    }
    // A mask that stands for nothing is refused.
    let mut other = projector(site, "10.0.0.2");
    other["driver_config"]["pjlink"]["password"] = json!("***");
    let refused = office.edit("POST", "/admin/devices", &[], &other);
    assert_eq!(refused.status, 422);
    assert_eq!(bad_fields(&refused), ["driver_config.pjlink.password"]);
    // Neither the audit log nor the program's has a secret.
    let audit: String = office.one("SELECT string_agg(detail::text, ' ') FROM audit");
    let log = office.backend.process.log();
    for secret in ["geheim7", "hush-hush", "k3y", "new-one", token.as_str()] {
        assert!(!audit.contains(secret), "{audit}");
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn no_page_shows_a_secret() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let mut device = projector(site, "10.0.0.1");
    device["driver_config"]["snmp"] = json!({"community": "hush-hush", "auth_key": "k3y-k3y"});
    let (path, _) = add(&office, &device);
    let id = path.rsplit('/').next().unwrap();
    // A version in which each of them differs.
    let changed = office.edit(
        "PATCH",
        &path,
        &[("If-Match", "*")],
        &json!({"driver_config": {
            "pjlink": {"password": "geheim8", "port": 4352},
            "snmp": {"community": "hush-more", "auth_key": "k4y-k4y"}}}),
    );
    assert_eq!(changed.status, 200, "{changed:?}");
    office.import(
        &format!("site_id={site}"),
        CSV,
        "ip,driver_config.pjlink.password\n10.0.0.1,geheim9\n",
    );
    let newest: i64 = office.one("SELECT max(revision) FROM config_versions");
    let mut pages = vec![
        "/".to_owned(),
        format!("/sites/{site}"),
        format!("/sites/{site}/live"),
        format!("/sites/{site}/edit"),
        format!("/sites/{site}/import"),
        format!("/sites/{site}/versions"),
        format!("/devices/{id}"),
        format!("/devices/{id}/edit"),
        "/alerts".to_owned(),
        "/account".to_owned(),
        "/users".to_owned(),
        "/admin/audit".to_owned(),
        format!("/admin/sites/{site}/agent"),
        format!("/admin/sites/{site}/versions"),
        format!("/admin/sites/{site}/versions/2/diff/{newest}"),
        "/devices".to_owned(),
        "/metrics".to_owned(),
    ];
    for revision in 1..=newest {
        pages.push(format!("/sites/{site}/versions/{revision}"));
        pages.push(format!("/admin/sites/{site}/versions/{revision}"));
    }
    let browser = Browser::log_in(&office.backend, "admin");
    for page in &pages {
        let answer = browser.send("GET", page, &[], None);
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
        for secret in [
            "geheim7",
            "geheim8",
            "geheim9",
            "hush-hush",
            "hush-more",
            "k3y-k3y",
            "k4y-k4y",
            token.as_str(),
        ] {
            assert!(!answer.body.contains(secret), "{page} shows {secret}");
        }
    }
    // That they changed is said.
    let path = format!("/admin/sites/{site}/versions/2/diff/{newest}");
    let diff = browser.send("GET", &path, &[], None).body;
    for field in ["pjlink.password", "snmp.community", "snmp.auth_key"] {
        assert!(diff.contains(field), "{field}: {diff}");
    }
}

#[test]
fn every_bad_field_of_a_device_is_named() {
    let office = Office::open();
    let (site, _) = office.site("Paris");
    let (path, _) = add(&office, &projector(site, "10.0.0.1"));
    add(&office, &projector(site, "10.0.0.2"));
    for (change, fields) in [
        (json!({"ip": "projector"}), vec!["ip"]),
        (json!({"ip": null}), vec!["ip"]),
        (json!({"ip": "1.2.3"}), vec!["ip"]),
        (json!({"name": ""}), vec!["name"]),
        (json!({"name": "x".repeat(201)}), vec!["name"]),
        (json!({"name": "a\u{0}"}), vec!["name"]),
        (json!({"driver": ""}), vec!["driver"]),
        (json!({"site_id": 99999}), vec!["site_id"]),
        (
            json!({"site_id": 99999, "name": "", "driver": "snmp",
                   "driver_config": {"snmp": {"port": 0}}}),
            vec!["site_id", "name", "driver_config.snmp.port"],
        ),
        // What has not even its type, all of it at once.
        (json!({"ip": 5, "name": []}), vec!["ip", "name"]),
        (
            json!({"driver": true, "room": {}, "colour": 1}),
            vec!["driver", "room", "colour"],
        ),
        (
            json!({"driver_config": {"pjlink": {"port": 0, "timeout_s": -1}}}),
            vec![
                "driver_config.pjlink.port",
                "driver_config.pjlink.timeout_s",
            ],
        ),
        (
            json!({"driver_config": {"pjlink": {"port": "x"}}}),
            vec!["driver_config.pjlink.port"],
        ),
        (json!({"driver_config": []}), vec!["driver_config"]),
        (
            json!({"driver_config": {"x": "a\u{0}"}}),
            vec!["driver_config.x"],
        ),
        (
            json!({"expectations": {"alert_after_s": -1}}),
            vec!["expectations.alert_after_s"],
        ),
        (
            json!({"expectations": {"schedule": {"timezone": "Mars/X"}}}),
            vec!["expectations.schedule.timezone"],
        ),
        (
            json!({"expectations": {"schedule": {"rules": [{"days": ["mon"], "start": "25:00", "end": "18:00"}]}}}),
            vec!["expectations.schedule.rules[0].start"],
        ),
        (json!({"colour": "red"}), vec!["colour"]),
    ] {
        for (method, target) in [
            ("POST", "/admin/devices"),
            ("PUT", path.as_str()),
            ("PATCH", &path),
        ] {
            let body = if method == "PATCH" {
                change.clone()
            } else {
                let mut device = projector(site, "10.0.0.9");
                for (name, value) in change.as_object().unwrap() {
                    device[name] = value.clone();
                }
                device
            };
            let answer = office.edit(method, target, &[("If-Match", "*")], &body);
            assert_eq!(answer.status, 422, "{method} {change}: {answer:?}");
            let named: BTreeSet<String> = bad_fields(&answer).into_iter().collect();
            assert_eq!(
                named,
                fields.iter().map(|field| (*field).to_owned()).collect(),
                "{method} {change}"
            );
            assert!(answer.json()["fields"][0]["problem"].is_string());
        }
    }
    let nothing = office.edit("POST", "/admin/devices", &[], &json!({}));
    assert_eq!(bad_fields(&nothing), ["ip", "name", "driver"]);
    let bad_json = office.send(
        &office.editor,
        "POST",
        "/admin/devices",
        &[JSON],
        Some(b"{"),
    );
    assert_error(&bad_json, 400, "is not JSON");
    let huge = office.send(
        &office.editor,
        "PATCH",
        &path,
        &[JSON, ("If-Match", "*")],
        Some(br#"{"driver_config": {"x": 1e999999}}"#),
    );
    assert_eq!(huge.status, 422, "{huge:?}");
    // An address once a site, however it is spelled.
    assert_error(
        &office.edit("POST", "/admin/devices", &[], &projector(site, "10.0.0.1")),
        409,
        "ip",
    );
    assert_error(
        &office.edit(
            "PATCH",
            &path,
            &[("If-Match", "*")],
            &json!({"ip": "10.0.0.2"}),
        ),
        409,
        "ip",
    );
    add(&office, &projector(site, "2001:db8::1"));
    assert_error(
        &office.edit(
            "POST",
            "/admin/devices",
            &[],
            &projector(site, "2001:DB8:0::1"),
        ),
        409,
        "ip",
    );
    // A driver of tomorrow is taken, with a word of warning.
    let mut device = projector(site, "10.0.0.3");
    device["driver"] = json!("telnet");
    let answer = office.edit("POST", "/admin/devices", &[], &device);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["warnings"][0]["field"], "driver");
}

/// A site with 2,000 devices, 200 of them observed.
fn large_site(office: &Office) -> i64 {
    let (site, _) = office.site("Large");
    office.db.execute(&format!(
        "INSERT INTO devices (site_id, name, ip, device_type, driver, building, floor, room, driver_config)
         SELECT {site}, 'Device ' || lpad(i::text, 4, '0'), '10.1.' || i / 250 || '.' || i % 250 + 1,
                CASE WHEN i % 2 = 0 THEN 'projector' ELSE 'display' END,
                CASE WHEN i % 4 = 0 THEN 'pjlink' ELSE 'ping' END,
                'B' || i % 5, (i % 3)::text, 'R' || i % 50, '{{\"pjlink\": {{\"password\": \"x\"}}}}'
           FROM generate_series(0, 1999) i;
         INSERT INTO device_states (device_id, status, verdict, observed_at, last_seen, status_since,
                                    verdict_since, recorded_at)
         SELECT id, CASE WHEN n % 2 = 0 THEN 'online' ELSE 'offline' END,
                (ARRAY['ok', 'fault', 'expected_off', 'doubt'])[n % 4 + 1], now(), now(), now(), now(), now()
           FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM devices WHERE site_id = {site}) d
          WHERE n <= 200;
         ANALYZE"
    ));
    site
}

#[test]
fn devices_are_filtered_sorted_and_paged() {
    let office = Office::open();
    let site = large_site(&office);
    let (other, _) = office.site("Other");
    add(&office, &projector(other, "10.0.0.1"));
    for (query, total) in [
        ("", 2001),
        (&format!("site_id={site}")[..], 2000),
        ("site=Other", 1),
        (&format!("site={other}"), 1),
        ("driver=PJLINK", 501),
        ("type=display", 1000),
        ("building=B1", 400),
        ("building=B1&floor=1", 134),
        ("room=R7", 40),
        ("building=", 0),
        ("verdict=fault", 50),
        ("verdict=unknown", 1801),
        ("status=online", 100),
        ("q=device+000", 10),
        ("q=10.1.7.250", 1),
        ("q=b%C3%82TIMENT", 1),
        ("q=batiment", 1),
        ("q=%25", 0),
    ] {
        let list = office.get(&format!("/admin/devices?{query}"));
        assert_eq!(list["total"], total, "{query}");
        let shown = list["devices"].as_array().unwrap().len();
        assert_eq!(shown, usize::try_from(total.min(100)).unwrap(), "{query}");
    }
    // Page by page, each device comes once, in order.
    for (sort, field) in [
        ("name", "name"),
        ("-name", "name"),
        ("ip", "ip"),
        ("place", "room"),
        ("-updated_at", "id"),
        ("verdict", "id"),
        ("last_seen", "id"),
        ("driver", "driver"),
        ("type", "type"),
        ("site", "site"),
    ] {
        let mut seen = BTreeSet::new();
        let mut values = Vec::new();
        for offset in [0, 700, 1400] {
            let list = office.get(&format!(
                "/admin/devices?site_id={site}&sort={sort}&limit=700&offset={offset}"
            ));
            for device in list["devices"].as_array().unwrap() {
                assert!(seen.insert(device["id"].as_i64().unwrap()), "{sort}");
                values.push(device[field].to_string());
            }
        }
        assert_eq!(seen.len(), 2000, "{sort}");
        if matches!(sort, "name" | "driver" | "type") {
            assert!(values.is_sorted(), "{sort}");
        } else if sort == "-name" {
            assert!(values.is_sorted_by(|a, b| a >= b));
        } else if sort == "ip" {
            let number =
                |text: &str| -> std::net::Ipv4Addr { text.trim_matches('"').parse().unwrap() };
            assert!(values.is_sorted_by_key(|text| number(text)));
        }
    }
    let worst = office.get(&format!(
        "/admin/devices?site_id={site}&sort=verdict&limit=60"
    ));
    assert_eq!(worst["devices"][0]["state"]["verdict"], "fault");
    assert_eq!(worst["devices"][59]["state"]["verdict"], "doubt");
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("sort=colour", "sort"),
        ("verdict=red", "verdict"),
        ("status=red", "status"),
        ("site_id=x", "site_id"),
        ("q=a%00b", "q"),
        ("room=%00", "room"),
    ] {
        let answer = office.send(
            &office.viewer,
            "GET",
            &format!("/admin/devices?{query}"),
            &[],
            None,
        );
        assert_eq!(answer.status, 422, "{query}");
        assert_eq!(bad_fields(&answer), [field]);
    }
    assert_eq!(
        office
            .send(
                &office.viewer,
                "GET",
                "/admin/devices?site=Nowhere",
                &[],
                None
            )
            .status,
        404
    );
    // A bad address that SQL made hinders no list.
    office
        .db
        .execute("UPDATE devices SET ip = '999.1.1.1' WHERE name = 'Device 0001'");
    let list = office.get(&format!("/admin/devices?site_id={site}&sort=ip&limit=2000"));
    assert_eq!(list["devices"][1999]["ip"], "999.1.1.1");
}

#[test]
fn lists_of_2000_devices_are_fast() {
    let office = Office::open();
    let site = large_site(&office);
    for path in [
        format!("/admin/devices?site_id={site}&limit=2000"),
        format!("/admin/devices?site_id={site}&sort=ip&q=device"),
        format!("/admin/export?site_id={site}&format=csv"),
        "/admin/sites".to_owned(),
    ] {
        office.get_any(&path);
        let started = Instant::now();
        for _ in 0..5 {
            office.get_any(&path);
        }
        let each = started.elapsed() / 5;
        println!("{path}: {each:?}");
        // Some tens of milliseconds without optimization; a query for each
        // device would take seconds.
        assert!(each < Duration::from_secs(5), "{path}: {each:?}");
    }
}

impl Office {
    #[track_caller]
    fn get_any(&self, path: &str) -> Answer {
        let answer = self.send(&self.editor, "GET", path, &[], None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    #[track_caller]
    fn import(&self, query: &str, kind: (&str, &str), body: &str) -> Answer {
        self.send(
            &self.editor,
            "POST",
            &format!("/admin/import?{query}"),
            &[kind],
            Some(body.as_bytes()),
        )
    }
}

#[test]
fn an_export_imported_again_changes_nothing() {
    let office = Office::open();
    let site = large_site(&office);
    let mut device = projector(site, "2001:db8::7");
    device["name"] = json!("=HYPERLINK(\"x\"), \"é\"; 'quoted'");
    add(&office, &device);
    let revision: i64 = office.one("SELECT max(config_revision) FROM sites");
    for (format, kind, reveal) in [
        ("csv", CSV, ""),
        ("json", JSON, ""),
        ("csv", CSV, "&reveal=1"),
        ("json", JSON, "&reveal=1"),
    ] {
        let file = office.get_any(&format!(
            "/admin/export?site_id={site}&format={format}{reveal}"
        ));
        assert!(file.headers["content-disposition"].contains(&format!("-devices.{format}\"")));
        let answer = office.import(&format!("site_id={site}&mode=replace"), kind, &file.body);
        assert_eq!(answer.status, 200, "{format}: {answer:?}");
        let difference = answer.json();
        assert_eq!(difference["unchanged"], 2001);
        for kind in ["added", "changed", "removed"] {
            assert_eq!(difference[kind], json!([]), "{format}");
        }
    }
    assert_eq!(
        office.one::<i64>("SELECT max(config_revision) FROM sites"),
        revision
    );
    // And into another site it makes them all, in one change.
    let (copy, token) = office.site("Copy");
    let file = office.get_any(&format!("/admin/export?site_id={site}&format=csv&reveal=1"));
    let answer = office.import(&format!("site_id={copy}"), CSV, &file.body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["added"].as_array().unwrap().len(), 2001);
    let config = office.backend.get(&format!("/config/{token}")).json();
    assert_eq!(config["devices"].as_array().unwrap().len(), 2001);
    assert_eq!(
        office.one::<i64>(&format!(
            "SELECT config_revision FROM sites WHERE id = {copy}"
        )),
        2
    );
    assert_eq!(
        office.one::<i64>(
            "SELECT count(*) FROM audit WHERE action = 'site.import' AND origin = 'import'"
        ),
        1
    );
}

#[test]
fn a_dry_run_shows_what_an_import_would_change() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        add(&office, &projector(site, ip));
    }
    let file = "ip;name;room;driver;driver_config.pjlink.password\n\
                10.0.0.1;Projecteur Salle A;Salle 101;pjlink;***\n\
                10.0.0.2;Renamed;Salle 102;pjlink;other\n\
                10.0.0.9;New;;telnet;\n";
    let hash = || office.backend.get(&format!("/config/{token}")).headers["etag"].clone();
    let before = hash();
    let query = format!("site_id={site}&mode=replace");
    let dry = office.import(&format!("{query}&dry_run=1"), CSV, file);
    assert_eq!(dry.status, 200, "{dry:?}");
    let difference = dry.json();
    assert_eq!(difference["dry_run"], true);
    assert_eq!(
        difference["added"],
        json!([{"ip": "10.0.0.9", "name": "New"}])
    );
    assert_eq!(
        difference["removed"],
        json!([{"ip": "10.0.0.3", "name": "Projecteur Salle A"}])
    );
    let changed = difference["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(difference["unchanged"], 1, "the mask is what is stored");
    let renamed = changed
        .iter()
        .find(|device| device["ip"] == "10.0.0.2")
        .unwrap();
    assert_eq!(
        renamed["fields"]["name"],
        json!(["Projecteur Salle A", "Renamed"])
    );
    assert_eq!(renamed["fields"]["room"], json!(["Salle 101", "Salle 102"]));
    assert_eq!(difference["warnings"][0]["row"], 4);
    assert!(
        !dry.body.contains("geheim7") && !dry.body.contains("other"),
        "{dry:?}"
    );
    assert_eq!(hash(), before, "a dry run changes nothing");

    // In between somebody else changes the site: what was seen is not done.
    let etag = dry.headers["etag"].clone();
    office
        .db
        .execute("UPDATE devices SET floor = '2' WHERE ip = '10.0.0.3'");
    let send = |etag: &str| {
        office.send(
            &office.editor,
            "POST",
            &format!("/admin/import?{query}"),
            &[CSV, ("If-Match", etag)],
            Some(file.as_bytes()),
        )
    };
    assert_error(&send(&etag), 412, "somebody else");
    let dry = office.import(&format!("{query}&dry_run=1"), CSV, file);
    let done = send(&dry.headers["etag"]);
    assert_eq!(done.status, 200, "{done:?}");
    let mut expected = dry.json();
    expected["dry_run"] = json!(false);
    assert_eq!(done.json(), expected, "what was shown is what was done");
    let config = office.backend.get(&format!("/config/{token}")).json();
    let ips: Vec<&Value> = config["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["ip"])
        .collect();
    assert_eq!(ips, ["10.0.0.1", "10.0.0.2", "10.0.0.9"]);
    assert_eq!(config["devices"][0]["pjlink"]["password"], "geheim7");
    assert_eq!(config["devices"][1]["pjlink"]["password"], "other");
    // A column that is not there stays as it was, in an object too.
    assert_eq!(config["devices"][1]["pjlink"]["timeout_s"], 2);
    assert_eq!(config["devices"][1]["building"], "Bâtiment A");

    // Without mode=replace nothing is removed.
    let merged = office.import(
        &format!("site_id={site}"),
        JSON,
        r#"[{"ip": "10.0.0.9", "room": "1"}]"#,
    );
    assert_eq!(merged.status, 200, "{merged:?}");
    assert_eq!(merged.json()["removed"], json!([]));
    assert_eq!(
        merged.json()["changed"][0]["fields"],
        json!({"room": [null, "1"]})
    );
    assert_eq!(office.one::<i64>("SELECT count(*) FROM devices"), 3);
}

#[test]
fn an_import_is_all_or_nothing_and_names_row_and_field() {
    let office = Office::open();
    let (site, _) = office.site("Paris");
    let query = format!("site_id={site}");
    let errors = |answer: &Answer| -> Vec<(i64, String)> {
        assert_eq!(answer.status, 422, "{answer:?}");
        answer.json()["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| {
                assert!(error["problem"].is_string());
                (
                    error["row"].as_i64().unwrap(),
                    error["field"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    };
    let bad = office.import(
        &query,
        CSV,
        "ip,name,driver,driver_config.snmp.port,expectations\n\
         10.0.0.1,A,ping,,\n\
         projector,B,ping,,\n\
         10.0.0.3,,snmp,99999,\n\
         10.0.0.1,D,ping,,\n\
         10.0.0.5,E,ping,,\"{\"\"alert_after_s\"\": \"\"x\"\"}\"\n",
    );
    assert_eq!(
        errors(&bad),
        [
            (3, "ip".to_owned()),
            (4, "name".to_owned()),
            (4, "driver_config.snmp.port".to_owned()),
            (5, "ip".to_owned()),
            (6, "expectations.alert_after_s".to_owned()),
        ]
    );
    let bad = office.import(&query, JSON, r#"{"devices": [{"ip": "10.0.0.1", "name": "A", "driver": "ping"}, {"ip": "10.0.0.2", "driver": "ping"}, 7]}"#);
    assert_eq!(errors(&bad), [(3, "document".to_owned())]);
    let bad = office.import(&query, JSON, r#"[{"ip": "10.0.0.1", "name": "A", "driver": "ping"}, {"ip": "10.0.0.2", "driver": "ping", "colour": 1}]"#);
    assert_eq!(
        errors(&bad),
        [(2, "colour".to_owned()), (2, "name".to_owned())]
    );
    let bad = office.import(&query, CSV, "ip,colour\n");
    assert_eq!(errors(&bad), [(1, "colour".to_owned())]);
    assert_eq!(
        office.one::<i64>("SELECT count(*) FROM devices"),
        0,
        "all or nothing"
    );

    let latin1 = office.send(
        &office.editor,
        "POST",
        &format!("/admin/import?{query}"),
        &[CSV],
        Some(b"ip,name\n10.0.0.1,\xe9\n"),
    );
    assert_error(&latin1, 400, "UTF-8");
    assert_eq!(
        office
            .import(&query, ("Content-Type", "image/png"), "")
            .status,
        415
    );
    assert_eq!(office.import("", CSV, "ip\n").status, 422);
    assert_eq!(office.import("site_id=999", CSV, "ip\n").status, 404);
    assert_eq!(
        bad_fields(&office.import(&format!("{query}&mode=x"), CSV, "ip\n")),
        ["mode"]
    );
    assert_error(&office.import(&query, JSON, "{"), 400, "is not JSON");
}

#[test]
fn the_severity_of_alerts_is_set_with_the_device_and_is_no_part_of_its_configuration() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let mut device = projector(site, "10.0.0.1");
    let (path, _) = add(&office, &device);
    assert_eq!(office.get(&path)["alert_severity"], "critical");
    let config = office.backend.get(&format!("/config/{token}"));
    let versions = "SELECT count(*) FROM config_versions";
    let before: i64 = office.one(versions);
    let severity = || office.get(&path)["alert_severity"].clone();
    let set = |method: &str, body: &Value| office.edit(method, &path, &[("If-Match", "*")], body);

    let patched = set("PATCH", &json!({"alert_severity": "warning"}));
    assert_eq!(patched.status, 200, "{patched:?}");
    assert_eq!(patched.json()["alert_severity"], "warning");
    let stored = "SELECT alert_severity FROM devices";
    assert_eq!(office.one::<String>(stored), "warning");
    let after = office.backend.get(&format!("/config/{token}"));
    assert_eq!(
        (&after.body, &after.headers["etag"]),
        (&config.body, &config.headers["etag"])
    );
    assert!(!after.body.contains("severity"), "{}", after.body);
    assert_eq!(
        office.one::<String>(
            "SELECT detail->'alert_severity'->>1 FROM audit WHERE action = 'device.update'"
        ),
        "warning"
    );
    // It is no version: an agent has nothing new to run.
    assert_eq!(office.one::<i64>(versions), before);

    // A client of the contract's device alone changes nothing about it.
    assert_eq!(set("PUT", &device).status, 200);
    assert_eq!(severity(), "warning");
    for word in ["mild", "Critical", "warning "] {
        let bad = set("PATCH", &json!({"alert_severity": word}));
        assert_eq!(bad_fields(&bad), ["alert_severity"], "{bad:?}");
    }
    device["alert_severity"] = json!("critical");
    assert_eq!(set("PUT", &device).status, 200);
    assert_eq!(severity(), "critical");
    device["ip"] = json!("10.0.0.2");
    device["alert_severity"] = json!("warning");
    let (other, _) = add(&office, &device);
    assert_eq!(office.get(&other)["alert_severity"], "warning");

    // Files have it, and files without it leave it.
    let query = format!("site_id={site}");
    let json_file = office.get(&format!("/admin/export?{query}"));
    let listed: Vec<&Value> = json_file["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| &device["alert_severity"])
        .collect();
    assert_eq!(listed, ["critical", "warning"]);
    let csv = office.get_any(&format!("/admin/export?{query}&format=csv"));
    assert!(
        csv.body
            .lines()
            .next()
            .unwrap()
            .ends_with(",alert_severity"),
        "{}",
        csv.body
    );
    let old = "ip,name,driver\r\n10.0.0.2,Renamed,pjlink\r\n10.0.0.3,New,ping\r\n";
    assert_eq!(office.import(&query, CSV, old).status, 200);
    let all = "SELECT string_agg(alert_severity, ' ' ORDER BY ip) FROM devices";
    assert_eq!(office.one::<String>(all), "critical warning critical");
    let new = "ip,alert_severity\r\n10.0.0.1,warning\r\n10.0.0.2,\r\n10.0.0.3,warning\r\n";
    let imported = office.import(&query, CSV, new);
    assert_eq!(imported.status, 200, "{imported:?}");
    assert_eq!(
        imported.json()["changed"][0]["fields"],
        json!({"alert_severity": ["critical", "warning"]})
    );
    assert_eq!(office.one::<String>(all), "warning warning warning");
    let bad = office.import(&query, CSV, "ip,alert_severity\r\n10.0.0.1,grave\r\n");
    assert_eq!(bad.json()["fields"][0]["field"], "alert_severity");
    assert_eq!(bad.json()["fields"][0]["row"], 2);
}

#[test]
fn a_merge_patch_leaves_every_digit_of_what_it_does_not_name() {
    const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let raw = r#"{"site_id": SITE, "ip": "10.0.0.1", "name": "A", "driver": "pjlink",
        "driver_config": {"pjlink": {"password": "geheim7", "timeout_s": 1.0, "port": 4352},
                          "other": {"serial": 12345678901234567890123}},
        "expectations": {"always_on": true, "note": 2.50}}"#
        .replace("SITE", &site.to_string());
    let made = office.send(
        &office.editor,
        "POST",
        "/admin/devices",
        &[JSON],
        Some(raw.as_bytes()),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let path = made.headers["location"].clone();
    let stored = "SELECT driver_config::text || ' ' || expectations::text FROM devices";
    let before: String = office.one(stored);
    let patch = |body: &str| {
        office.send(
            &office.editor,
            "PATCH",
            &path,
            &[MERGE, ("If-Match", "*")],
            Some(body.as_bytes()),
        )
    };
    let renamed = patch(r#"{"name": "B", "driver_config": {}, "expectations": {}}"#);
    assert_eq!(renamed.status, 200, "{renamed:?}");
    assert_eq!(renamed.json()["name"], "B");
    assert_eq!(office.one::<String>(stored), before);
    let changed = patch(
        r#"{"driver_config": {"pjlink": {"port": 4353, "timeout_s": null}}, "expectations": {"alert_after_s": 30}}"#,
    );
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(
        office.one::<String>(stored),
        r#"{"other": {"serial": 12345678901234567890123}, "pjlink": {"port": 4353, "password": "geheim7"}} {"note": 2.50, "always_on": true, "alert_after_s": 30}"#
    );
    let config = office.backend.get(&format!("/config/{token}"));
    assert!(
        config.body.contains("2.50") || config.body.contains("2.5"),
        "{}",
        config.body
    );
    assert_eq!(
        bad_fields(&patch(r#"{"driver_config": {"pjlink": {"port": 0}}}"#)),
        ["driver_config.pjlink.port"]
    );
    assert_eq!(
        bad_fields(&patch(r#"{"driver_config": [1]}"#)),
        ["driver_config"]
    );
}

/// The methods of an `Allow` header, HEAD aside.
fn allowed(answer: &Answer) -> BTreeSet<String> {
    answer.headers["allow"]
        .split(", ")
        .filter(|method| *method != "HEAD")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_openapi_document_is_what_the_routes_are() {
    let office = Office::open();
    let answer = office.backend.get("/openapi.json");
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let documented: BTreeSet<String> = item
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .collect();
        let path = path
            .replace("{code}", "0000")
            .replace("{id}", "1")
            .replace("{revision}", "1")
            .replace("{other}", "1");
        let other = office.send(&office.admin, "OPTIONS", &path, &[], None);
        assert_eq!(other.status, 405, "{path}: {other:?}");
        let there = allowed(&other);
        assert_eq!(there, documented, "{path}");
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(operations.insert(id), "{path} {method}");
            let answer = office.send(
                &office.admin,
                &method.to_uppercase(),
                &path,
                &[JSON],
                (method != "get" && method != "delete").then_some(b"{"),
            );
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(
                !answer.body.contains("there is nothing here"),
                "{method} {path}: {answer:?}"
            );
            let status = answer.status.to_string();
            assert!(
                !operation["responses"][&status].is_null(),
                "{method} {path} answers {status}, which is not documented"
            );
        }
    }
    assert!(operations.len() > 45, "{operations:?}");
}

#[test]
fn a_misspelt_setting_is_kept_and_named_with_the_nearest_known_one() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let mut device = projector(site, "10.0.0.1");
    device["driver_config"] = json!({"pjlink": {"pasword": "geheim7"}});
    device["expectations"] = json!({"allways_on": true});
    let answer = office.edit("POST", "/admin/devices", &[], &device);
    assert_eq!(answer.status, 201, "{answer:?}");
    let warnings = json!([
        {"field": "driver_config.pjlink.pasword",
         "problem": "is not a known setting; the nearest is \"password\""},
        {"field": "expectations.allways_on",
         "problem": "is not a known setting; the nearest is \"always_on\""},
    ]);
    assert_eq!(answer.json()["warnings"], warnings);
    let id = answer.json()["id"].as_i64().unwrap();
    let shown = office.get(&format!("/admin/devices/{id}"));
    assert_eq!(shown["warnings"], warnings);
    assert_eq!(shown["expectations"], json!({"allways_on": true}));
    let listed = office.get("/admin/devices");
    assert_eq!(listed["devices"][0]["warnings"], warnings);

    // It stays stored, and reaches the agent.
    let config = office.backend.get(&format!("/config/{token}"));
    assert!(config.body.contains("pasword"), "{config:?}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, &config.body).unwrap();
    let output = backend_command("")
        .args(["check-config".as_ref(), file.as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains(
            "warning: devices[0].expectations.allways_on: is not a known setting; the nearest is \"always_on\"\n"
        ),
        "{said}"
    );
    assert!(
        said.ends_with("1 device(s), nothing wrong, 2 warning(s)\n"),
        "{said}"
    );

    for (path, language, said) in [
        (format!("/devices/{id}"), "en", "Did you mean password?"),
        (
            format!("/devices/{id}/edit"),
            "en",
            "Did you mean always_on?",
        ),
        (
            format!("/devices/{id}"),
            "fr",
            "Vouliez-vous dire always_on ?",
        ),
    ] {
        let page = office.send(
            &office.editor,
            "GET",
            &path,
            &[("Accept-Language", language)],
            None,
        );
        assert!(page.body.contains(said), "{path}: {}", page.body);
        assert!(!page.body.contains("geheim7"), "{path}");
    }

    let file = "ip,name,driver,driver_config.ping.cuont\n10.0.0.2,New,ping,5\n";
    let dry = office.import(&format!("site_id={site}&dry_run=1"), CSV, file);
    assert_eq!(dry.status, 200, "{dry:?}");
    assert_eq!(
        dry.json()["warnings"],
        json!([{"row": 2, "field": "driver_config.ping.cuont",
                "problem": "is not a known setting; the nearest is \"count\""}])
    );

    // Put right, nothing is said.
    let answer = office.edit(
        "PATCH",
        &format!("/admin/devices/{id}"),
        &[("If-Match", "*")],
        &json!({"driver_config": {"pjlink": {"password": "geheim7"}}, "expectations": {"always_on": true}}),
    );
    assert_eq!(answer.json()["warnings"], json!([]), "{answer:?}");
}
