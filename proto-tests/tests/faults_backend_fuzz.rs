//! Every route of the backend under random requests, sent as bytes over a
//! socket: never a 500, never a panic, never a secret in an answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod admin_support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use admin_support::Office;
use av_proto_tests::faults::full;
use av_proto_tests::random::Random;
use serde_json::json;

const METHODS: [&str; 12] = [
    "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
    "BREW",
];

/// Paths that no document lists: the agents' and the pages'.
const MORE_PATHS: [&str; 22] = [
    "/",
    "/config",
    "/config/{id}",
    "/ingest",
    "/suggestions",
    "/token/renew",
    "/devices",
    "/health",
    "/metrics",
    "/static/app.js",
    "/static/{id}",
    "/sites/{id}",
    "/sites/{id}/edit",
    "/sites/{id}/versions/{id}",
    "/sites/{id}/availability",
    "/sites/{id}/suggestions",
    "/devices/{id}",
    "/alerts",
    "/maintenance",
    "/channels/{id}",
    "/audit",
    "/users",
];

/// What stands in place of a part of a path, a parameter or a header.
const HOSTILE: [&str; 30] = [
    "1",
    "2",
    "3",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999999999",
    "1e3",
    "+1",
    "%31",
    "%00",
    "%FF%FE",
    "%C3%28",
    "%ED%A0%80",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..",
    "../../../../etc/passwd",
    "..%5c..%5cwindows",
    "%",
    "%zz",
    "'%20OR%20'1'='1",
    "%27;%20DROP%20TABLE%20sites;--",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "%0d%0aSet-Cookie:%20x=1",
    "%E2%80%AE%E2%80%A8",
    "1970-01-01T00:00:00Z",
    "-9999-99-99",
    "true",
    "",
];

const PARAMETERS: [&str; 19] = [
    "q", "site", "site_id", "limit", "offset", "sort", "from", "to", "state", "verdict", "status",
    "building", "room", "dry_run", "mode", "format", "next", "lang", "before",
];

const BODIES: [&str; 12] = [
    r#"{"name":"x","timezone":"Europe/Paris","doubt_after_days":2,"ok_interval_s":300,"ko_interval_s":60}"#,
    r#"{"site_id":1,"ip":"10.9.9.9","name":"x","driver":"snmp","driver_config":{"snmp":{"community":"c","port":161}},"expectations":{"always_on":true,"schedule":{"timezone":"Europe/Paris","rules":[{"days":["mon"],"start":"08:00","end":"18:00"}]}}}"#,
    r#"{"site_name":"Paris","devices":[{"ip":"10.0.0.1","name":"","building":"","floor":"","room":"","type":"","driver":"ping","status":"online","detail":null,"metrics":{"a":1e400},"verdict":"ok","observed_at":"2026-01-01T00:00:00Z"}],"report":{"stream":"s","seq":1},"agent":{"version":"1"}}"#,
    r#"{"site_name":"Paris","found":[{"ip":"10.0.0.7","vendor":"v","evidence":["a"],"driver_config":{"snmp":{}}}]}"#,
    r#"{"name":"n","kind":"webhook","url":"http://127.0.0.1:1/","secret":"0123456789abcdef","recipients":["a@b.example"],"quiet_from":"22:00"}"#,
    r#"{"site_id":1,"device_id":1,"starts_at":"2026-01-01T00:00:00Z","ends_at":"2036-01-01T00:00:00Z","reason":"r"}"#,
    r#"{"name":"editor","password":"wrong password","role":"viewer"}"#,
    r#"{"code":"ABCDE-FGHJK","grace_s":0,"expected_revision":1,"severity":"critical","body":"b","comment":"c"}"#,
    r#"[{"site":"Paris","ip":"10.0.0.1","name":"x","driver":"ping"}]"#,
    "ip,name,driver,driver_config.pjlink.password\r\n10.0.0.1,x,pjlink,y\r\n",
    "name=a&password=b&next=//evil&_csrf=x",
    "",
];

/// What is put somewhere into a body.
const MORSELS: [&[u8]; 16] = [
    b"\0",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\"",
    b"{",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999999999999999999999",
    b"\r\n\x1b[31m",
    b"\xe2\x80\xae",
    b"'; DROP TABLE sites; --",
    b",\"name\":\"twice\"",
];

fn target(random: &mut Random, paths: &[String]) -> String {
    let mut path = String::new();
    let template = &paths[random.place(paths.len())];
    for part in template.split('/').skip(1) {
        path.push('/');
        if part.starts_with('{') {
            // Mostly something that is there.
            path.push_str(if random.once_in(2) {
                ["1", "2", "3"][random.place(3)]
            } else {
                random.pick(&HOSTILE)
            });
        } else if random.once_in(25) {
            path.push_str(random.pick(&HOSTILE));
        } else {
            path.push_str(part);
        }
    }
    match random.below(40) {
        0 => path.push('/'),
        1 => path.insert(0, '/'),
        2 => path.push_str("/../../x"),
        3 => path.push_str(&"a".repeat(5000)),
        4 => path = path.replace('/', "%2F"),
        5 => path.push_str(&"/x".repeat(500)),
        _ => {}
    }
    for n in 0..random.below(3) {
        path.push(if n == 0 { '?' } else { '&' });
        let value = random.pick(&HOSTILE);
        let _ = write!(path, "{}={value}", random.pick(&PARAMETERS));
    }
    path
}

fn body(random: &mut Random) -> Vec<u8> {
    let mut body = random.pick(&BODIES).as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.place(body.len() + 1);
        match random.below(4) {
            0 => body.truncate(at),
            1 => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                let again = body[at..].to_vec();
                body.extend(again);
            }
            _ => {
                let morsel = random.pick(&MORSELS);
                body.splice(at..at, morsel.iter().copied());
            }
        }
    }
    if random.once_in(60) {
        body = "[".repeat(20_000).into_bytes();
    }
    body
}

/// A request, and its first line.
fn request(random: &mut Random, paths: &[String], doors: &[String]) -> (String, Vec<u8>) {
    let line = format!(
        "{} {} HTTP/1.1",
        random.pick(&METHODS),
        target(random, paths)
    );
    let mut bytes = format!("{line}\r\nHost: localhost\r\nConnection: close\r\n").into_bytes();
    // Mostly with a key that opens something.
    if !random.once_in(6) {
        bytes.extend(doors[random.place(doors.len())].as_bytes());
        bytes.extend(b"\r\n");
    }
    let types = [
        "application/json",
        "application/merge-patch+json",
        "text/csv",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        ";;, a=\"",
    ];
    let _ = write!(bytes, "Content-Type: {}\r\n", random.pick(&types));
    for name in [
        "If-Match",
        "If-None-Match",
        "Accept-Language",
        "Cookie",
        "Origin",
        "X-Forwarded-For",
        "X-CSRF-Token",
        "Range",
    ] {
        if random.once_in(5) {
            let value = match random.below(5) {
                0 => "*",
                1 => "\"",
                2 => "W/\"1-1\", \"2\"",
                3 => "av_session=x; a",
                _ => random.pick(&HOSTILE),
            };
            let _ = write!(bytes, "{name}: {value}\r\n");
        }
    }
    let body = body(random);
    let _ = write!(bytes, "Content-Length: {}\r\n\r\n", body.len());
    bytes.extend(body);
    (line, bytes)
}

#[test]
fn random_requests_to_every_route_find_no_500_no_panic_and_no_secret() {
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let secrets = [
        "projectors-secret-1",
        "communitys-secret-2",
        "channels-secret-3-0123456789",
        &token,
    ];
    for n in 1..=12 {
        let made = office.edit(
            "POST",
            "/admin/devices",
            &[],
            &json!({"site_id": site, "ip": format!("10.0.0.{n}"), "name": format!("P{n}"),
                    "driver": if n % 2 == 0 { "pjlink" } else { "snmp" },
                    "driver_config": {"pjlink": {"password": secrets[0]},
                                      "snmp": {"community": secrets[1]}}}),
        );
        assert_eq!(made.status, 201, "{made:?}");
    }
    let webhook = json!({"name": "c", "kind": "webhook", "url": "http://127.0.0.1:1/",
                         "secret": secrets[2]});
    let channel = office.send(
        &office.admin,
        "POST",
        "/admin/channels",
        &[("Content-Type", "application/json")],
        Some(webhook.to_string().as_bytes()),
    );
    assert_eq!(channel.status, 201, "{channel:?}");

    let document = office.backend.get("/openapi.json").json();
    let mut paths: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    paths.extend(MORE_PATHS.map(str::to_owned));
    // The agent's own configuration has its secrets: its key opens only what
    // is sent to it, and is not used on the routes that answer with them.
    let doors = [
        format!("Authorization: Bearer {}", office.viewer),
        format!("Authorization: Bearer {}", office.editor),
        format!("Authorization: Bearer {}", office.admin),
        format!("X-Site-Token: {token}"),
    ];
    let seed = 0x5eed_0006;
    let mut random = Random::new(seed);
    let address = office.backend.url.strip_prefix("http://").unwrap();
    let (mut answered, mut well) = (0, 0);
    let cases = if full() { 20_000 } else { 600 };
    for case in 0..cases {
        let (line, bytes) = request(&mut random, &paths, &doors);
        let mut socket = TcpStream::connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        // It may have answered and closed before it read all.
        let _ = socket.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let said = || {
            format!(
                "case {case} of seed {seed:#x}: {}\n{}",
                line.chars().take(300).collect::<String>(),
                answer.chars().take(2000).collect::<String>()
            )
        };
        // No answer is one, to what is no request.
        let Some(status) = answer.get(9..12) else {
            continue;
        };
        answered += 1;
        well += i32::from(status.starts_with('2'));
        assert!(
            !status.starts_with('5') || status == "501" || status == "503",
            "{}",
            said()
        );
        assert!(!answer.contains("panicked"), "{}", said());
        let (head, _) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(!head.contains("\nSet-Cookie: x=1"), "{}", said());
        assert!(!answer.contains("root:x:0:0"), "{}", said());
        // GET /config answers an agent with its secrets: that is its purpose.
        let own_configuration = line.contains(" /config");
        for (n, secret) in secrets.iter().enumerate() {
            assert!(
                !answer.contains(secret) || own_configuration,
                "secret {n}: {}",
                said()
            );
        }
        for key in [&office.viewer, &office.editor, &office.admin] {
            // TRACE must not send a key back either.
            assert!(!answer.contains(key.as_str()), "{}", said());
        }
    }
    println!("{cases} requests, {answered} answers, {well} of them 2xx");
    assert!(answered > cases * 9 / 10, "{answered} of {cases}");
    assert!(well > cases / 40, "{well} of {cases}");
    let log = office.backend.process.log();
    assert!(!log.contains("panicked"), "{log}");
    for secret in secrets {
        assert!(!log.contains(secret), "{secret}");
    }
    let metrics = office.backend.get("/metrics").body;
    assert!(metrics.contains("av_backend_panics_total 0\n"), "{metrics}");
    assert_eq!(office.backend.get("/health").status, 200);
}
