//! What an agent sends: two datagrams to a probe of each version that asks for
//! every kind of reading. The first byte says where the first datagram ends.

#![no_main]

use std::sync::OnceLock;

use av_agent::snmp::replay;
use av_proto::driver::{DriverSettings, Sections, SnmpSettings};
use libfuzzer_sys::fuzz_target;

const READINGS: &str = r#"
  {"oid":"1.3.6.1.2.1.1.5.0","name":"a","type":"string"},
  {"oid":"1.3.6.1.2.1.1.7.0","name":"b","scale":0.1,"thresholds":{"warn":{"min":1},"crit":{"max":9}}},
  {"oid":"1.3.6.1.2.1.2.1.0","name":"c","type":"bits","values":{"0":"x"},"thresholds":{"expected":[""]}},
  {"oid":"1.3.6.1.2.1.2.2.1.8.*","name":"d","type":"enum","values":{"1":"up"},"label_oid":"1.3.6.1.2.1.2.2.1.2.*"},
  {"oid":"1.3.6.1.2.1.2.2.1.10.*","name":"e","type":"counter"},
  {"oid":"1.3.6.1.2.1.2.2.1.5.*","name":"f","percent_of":"1.3.6.1.2.1.2.2.1.4.*"}"#;

fn settings() -> &'static [SnmpSettings] {
    static SETTINGS: OnceLock<Vec<SnmpSettings>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        [
            r#""version":"1""#,
            r#""version":"2c""#,
            r#""version":"3","v3":{"user":"u"}"#,
        ]
        .iter()
        .map(|version| {
            let config = format!(r#"{{"snmp":{{{version},"oids":[{READINGS}]}}}}"#);
            let sections: Sections = serde_json::from_str(&config).expect("JSON");
            match DriverSettings::parse("snmp", &sections) {
                Ok(DriverSettings::Snmp(settings)) => settings,
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
    let (first, second) = rest.split_at((usize::from(*at) * 4).min(rest.len()));
    for settings in settings() {
        let found = replay(settings, &[first, second]);
        assert!(found.metrics.contains_key("snmp_ok"));
        let detail = found.detail.unwrap_or_default();
        assert!(detail.chars().count() <= 280 && !detail.contains('\n'));
    }
});
