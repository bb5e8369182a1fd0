//! The agent and a `config.json` that is cut, garbage, huge, deep or double.
//!
//! It starts from the backup, or ends and says what is wrong; the good one is
//! never lost, and the bad one kept for a person to look at.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

use std::fs;
use std::path::{Path, PathBuf};

use av_agent::config::ConfigStore;
use av_proto::config::SiteDocument;
use av_proto_tests::fake_backend::{first_config, site};
use av_proto_tests::process::{Agent, free_port};
use jiff::Timestamp;
use serde_json::{Value, json};

fn devices(count: usize) -> Vec<Value> {
    (0..count)
        .map(|i| {
            json!({
                "ip": format!("127.0.8.{}", i + 1), "name": format!("Écran {i}"), "driver": "tcp",
                "driver_config": {"tcp": {"port": 9}},
            })
        })
        .collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

#[test]
fn cut_at_every_byte_it_leaves_the_backup() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let backend = "http://127.0.0.1:9";
    fs::write(&path, first_config(backend).to_string()).unwrap();
    let store = ConfigStore::new(&path);
    let identity = store.load().unwrap().active.identity;
    let of = |name: &str| {
        let document = site(name, &devices(4)).to_string();
        SiteDocument::parse(document.as_bytes()).unwrap()
    };
    let now = Timestamp::now();
    store.save(&identity, &of("Secours"), now).unwrap();
    store.save(&identity, &of("Paris"), now).unwrap();
    let whole = fs::read(&path).unwrap();
    let backup = fs::read(beside(&path, ".bak")).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let loaded = store.load().unwrap();
        // Only the line feed at the end can be missed.
        let name = if length + 1 == whole.len() {
            "Paris"
        } else {
            "Secours"
        };
        assert_eq!(loaded.active.site.site_name, name, "cut at {length}");
        assert_eq!(loaded.fallback.is_some(), name == "Secours", "{length}");
        assert_eq!(loaded.active.site.devices.len(), 4);
        assert_eq!(fs::read(beside(&path, ".bak")).unwrap(), backup, "{length}");
        assert_eq!(loaded.active.identity, identity);
    }
    println!("cut at each of {} bytes", whole.len());
}

#[test]
fn whatever_stands_in_the_file_the_agent_starts_or_says_what_is_wrong() {
    let backend = format!("http://127.0.0.1:{}", free_port());
    let mut good = first_config(&backend);
    good["devices"] = json!(devices(2));
    good["site_name"] = json!("Paris");
    let text = good.to_string();
    let with = |member: &str| format!("{{{member},{}", &text[1..]).into_bytes();
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let garbage: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    // What stands in the file, and whether it is a configuration all the same.
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("nothing", Vec::new(), false),
        ("zeros, as after a power cut", vec![0; text.len()], false),
        ("garbage", garbage, false),
        ("50 MB of garbage", vec![b'x'; 50 << 20], false),
        ("50 MB of brackets", vec![b'['; 50 << 20], false),
        (
            "50 MB of text",
            with(&format!("\"new\":\"{}\"", "x".repeat(50 << 20))),
            true,
        ),
        (
            "more than 64 MB",
            with(&format!("\"new\":\"{}\"", "x".repeat(65 << 20))),
            false,
        ),
        ("200,000 levels", deep.clone().into_bytes(), false),
        (
            "200,000 levels in what is not read",
            with(&format!("\"new\":{deep}")),
            true,
        ),
        (
            "200,000 levels in the devices",
            with(&format!("\"devices\":{deep}")),
            false,
        ),
        ("a name twice", with("\"site_name\":\"Lyon\""), false),
        ("a token twice", with("\"site_token\":\"other\""), false),
        ("devices twice", with("\"devices\":[]"), false),
        (
            "a list of the fields",
            format!("[{text}]").into_bytes(),
            false,
        ),
        (
            "twice the document",
            [text.as_bytes(), text.as_bytes()].concat(),
            false,
        ),
        (
            "a mark of the byte order",
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            false,
        ),
        (
            "UTF-16",
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            false,
        ),
        ("null", b"null".to_vec(), false),
    ];
    let mut backup = good.clone();
    backup["site_name"] = json!("Secours");
    let backup = backup.to_string();
    for (what, content, is_usable) in cases {
        let mut agent = Agent::new(&good);
        agent.set("AV_FIRST_SYNC_S", "3600");
        let file = agent.config_file();
        fs::write(&file, &content).unwrap();

        // Without a backup it ends, says why, and leaves the file alone.
        if !is_usable {
            let process = agent.start();
            process.wait_for_log("no usable configuration", 1);
            let log = process.log();
            assert!(log.contains("site_token and backend_url"), "{what}: {log}");
            assert!(!log.contains("💥"), "{what}: {log}");
            assert!(log.len() < 10_000, "{what}: a log of {}", log.len());
            assert!(fs::read(&file).unwrap() == content, "{what}");
        }

        fs::write(beside(&file, ".bak"), &backup).unwrap();
        agent.start();
        let process = agent.process.as_ref().unwrap();
        let status = process.wait_for(what, || {
            let status = agent.get("/api/status")?.json();
            (status["devices"].as_array()?.len() == 2).then_some(status)
        });
        let name = if is_usable { "Paris" } else { "Secours" };
        assert_eq!(status["site_name"], name, "{what}");
        assert_eq!(status["config_fallback"].is_null(), is_usable, "{what}");
        let page = agent.get("/").unwrap().body;
        assert_eq!(page.contains("the backup serves"), !is_usable, "{what}");
        assert!(!process.log().contains("💥"), "{what}");
        assert_eq!(fs::read_to_string(beside(&file, ".bak")).unwrap(), backup);
        let kept = [beside(&file, ".broken"), file.clone()];
        assert!(
            kept.iter()
                .any(|path| fs::read(path).is_ok_and(|c| c == content)),
            "{what}: the file is lost"
        );
    }
}
