//! What a device's web server sends, in two pieces, to a probe that expects a
//! status and one that expects a text too. The first byte says where the first
//! piece ends.

#![no_main]

use std::sync::OnceLock;

use av_agent::http::replay;
use av_proto::driver::{DriverSettings, HttpSettings, Sections};
use libfuzzer_sys::fuzz_target;

fn settings() -> &'static [HttpSettings] {
    static SETTINGS: OnceLock<Vec<HttpSettings>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        [
            r#"{"http":{}}"#,
            r#"{"http":{"expect_status":["200-299"],"body_match":"ready"}}"#,
        ]
        .iter()
        .map(|config| {
            let sections: Sections = serde_json::from_str(config).expect("JSON");
            match DriverSettings::parse("http", &sections) {
                Ok(DriverSettings::Http(settings)) => settings,
                other => panic!("{other:?}"),
            }
        })
        .collect()
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((at, rest)) = bytes.split_first() else {
        return;
    };
    let (first, second) = rest.split_at(usize::from(*at).min(rest.len()));
    for settings in settings() {
        let found = replay(settings, &[first, second]);
        assert!(found.metrics.contains_key("http_ok"));
        let detail = found.detail.unwrap_or_default();
        assert!(detail.chars().count() <= 280 && !detail.contains(char::is_control));
        // In pieces or whole: the same answer.
        let whole = replay(settings, &[rest]);
        assert_eq!(whole.status, found.status);
    }
});
