//! What a probe's end means for a person.

use std::io;

use av_proto::driver::{SnmpAccess, SnmpSettings};
use av_proto::text::excerpt;
use av_proto::verdict::Status;
use serde_json::Value as Json;

use super::pdu::{self, Stray, Value};
use super::plan::{sys_descr, sys_uptime};
use super::readings::{Read, read};
use super::session::{Answer, Answers};
use crate::finding::Finding;

/// As long as a `DisplayString` can be (RFC 2579).
const DESCR_MAX: usize = 255;

/// How a probe ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Answer),
    /// Nothing but silence, and perhaps something that was no answer.
    Silent(Option<Stray>),
    /// ICMP: port unreachable.
    Closed,
    /// ICMP, or the routing table: the host cannot be had.
    Unreachable,
    /// This machine cannot send.
    Here(String),
}

impl Outcome {
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Closed,
            Kind::HostUnreachable => Self::Unreachable,
            Kind::NetworkUnreachable => {
                Self::Here("this machine has no route to the network".to_owned())
            }
            Kind::NetworkDown => Self::Here("the network is down here".to_owned()),
            Kind::PermissionDenied => {
                Self::Here("forbidden by a local firewall, or a broadcast address".to_owned())
            }
            _ => Self::Here(error.to_string()),
        }
    }
}

/// Online: a valid answer came, be it an error. Offline: none, or ICMP says
/// that it cannot come. Unknown: this machine cannot send there.
pub(super) fn finding(outcome: &Outcome, settings: &SnmpSettings) -> Finding {
    let port = settings.port;
    let status = match outcome {
        Outcome::Answered(_) => Status::Online,
        Outcome::Silent(_) | Outcome::Closed | Outcome::Unreachable => Status::Offline,
        Outcome::Here(_) => Status::Unknown,
    };
    let nothing = Answers::default();
    let (ok, answers) = match outcome {
        Outcome::Answered(Answer::Values(answers)) => (true, answers),
        _ => (false, &nothing),
    };
    let Read { metrics, remarks } = match ok {
        true => read(&settings.readings, answers),
        false => Read::default(),
    };
    let detail = match outcome {
        Outcome::Answered(Answer::Values(answers)) => remark(answers, remarks),
        Outcome::Answered(Answer::Refused(status)) => Some(refusal(*status)),
        Outcome::Answered(Answer::Fault(fault)) => {
            Some(format!("agent refuses: {}", fault.words()))
        }
        Outcome::Silent(stray) => Some(silence(*stray, settings)),
        Outcome::Closed => Some(format!("port {port} closed: no SNMP agent there")),
        Outcome::Unreachable => Some("host unreachable".to_owned()),
        Outcome::Here(reason) => Some(format!("SNMP request not sent: {reason}")),
    };
    let value = |oid: Option<_>| oid.and_then(|oid| answers.scalars.get(&oid));
    let descr = match value(sys_descr()) {
        Some(Value::Octets(text)) => excerpt(&pdu::text(text), DESCR_MAX).into(),
        _ => Json::Null,
    };
    let uptime = match value(sys_uptime()) {
        Some(Value::Unsigned(ticks)) => (*ticks).into(),
        _ => Json::Null,
    };
    let mut found = Finding::new(status);
    if let Some(detail) = detail {
        found = found.with_detail(detail);
    }
    found.metrics = metrics;
    found
        .with("snmp_ok", ok)
        .with("snmp_port", port)
        .with("sys_descr", descr)
        .with("sys_uptime", uptime)
        .with("snmp_timeout_s", settings.timeout.as_secs_f64())
        .with("snmp_retries", settings.retries)
}

/// What is notable of an answer: thresholds first.
fn remark(answers: &Answers, mut remarks: Vec<String>) -> Option<String> {
    match sys_descr().and_then(|oid| answers.scalars.get(&oid)) {
        Some(Value::Octets(_)) => {}
        Some(Value::Absent(why)) => remarks.push(format!(
            "agent answers, but has no sysDescr for this community ({why})"
        )),
        _ => remarks.push("agent answers, but without sysDescr".to_owned()),
    }
    if let Some(why) = answers.cut_short {
        remarks.push(format!("not all was read: {why}"));
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

fn refusal(status: u32) -> String {
    let name = pdu::error_name(status);
    match status {
        16 => format!("agent refuses: {name} ({status}): check the community's rights"),
        _ => format!("agent answers with an error: {name} ({status})"),
    }
}

/// An agent of version 1 or 2c stays silent on a wrong community (RFC 1157,
/// 4.1; RFC 3584, 5.2.1), so the two cannot be told apart.
fn silence(stray: Option<Stray>, settings: &SnmpSettings) -> String {
    let port = settings.port;
    let version = match settings.access {
        SnmpAccess::V1 { .. } => "v1",
        SnmpAccess::V2c { .. } => "v2c",
        SnmpAccess::V3(_) => "v3",
    };
    match stray {
        None if version == "v3" => format!("no answer from port {port}"),
        None => format!("no answer from port {port}, or wrong community"),
        Some(Stray::Malformed) => format!("answers from port {port} are not valid SNMP"),
        Some(Stray::OtherKind) => {
            format!("answers from port {port} are not SNMP {version} responses")
        }
        Some(Stray::OtherRequest) => {
            format!("answers from port {port} are not to our request (wrong request id)")
        }
        Some(Stray::OtherCommunity) => {
            format!("answers from port {port} carry another community")
        }
        Some(Stray::NotAuthentic) => {
            format!(
                "answers from port {port} are not authentic: another password there, or a forger"
            )
        }
    }
}
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use av_proto::driver::{DriverSettings, Sections};

    use super::*;
    use crate::snmp::v3::UsmFault;

    fn settings(config: &str) -> SnmpSettings {
        let sections: Sections = serde_json::from_str(config).unwrap();
        match DriverSettings::parse("snmp", &sections) {
            Ok(DriverSettings::Snmp(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn values(descr: Value) -> Outcome {
        let uptime = Value::Unsigned(4_294_967_295);
        Outcome::Answered(Answer::Values(Answers {
            scalars: BTreeMap::from([
                (sys_descr().unwrap(), descr),
                (sys_uptime().unwrap(), uptime),
            ]),
            ..Answers::default()
        }))
    }

    #[test]
    fn findings_name_what_happened() {
        let settings = settings(r#"{"snmp":{"timeout_s":0.5,"retries":2}}"#);
        let known = || Value::Octets(b"Switch X".to_vec());
        for (outcome, status, detail) in [
            (values(known()), Status::Online, None),
            (
                values(Value::Absent("noSuchObject")),
                Status::Online,
                Some("agent answers, but has no sysDescr for this community (noSuchObject)"),
            ),
            (
                values(Value::Odd),
                Status::Online,
                Some("agent answers, but without sysDescr"),
            ),
            (
                Outcome::Answered(Answer::Refused(16)),
                Status::Online,
                Some("agent refuses: authorizationError (16): check the community's rights"),
            ),
            (
                Outcome::Answered(Answer::Refused(5)),
                Status::Online,
                Some("agent answers with an error: genErr (5)"),
            ),
            (
                Outcome::Answered(Answer::Fault(UsmFault::UnknownUser)),
                Status::Online,
                Some("agent refuses: it does not know the user (usmStatsUnknownUserNames)"),
            ),
            (
                Outcome::Silent(None),
                Status::Offline,
                Some("no answer from port 161, or wrong community"),
            ),
            (
                Outcome::Silent(Some(Stray::Malformed)),
                Status::Offline,
                Some("answers from port 161 are not valid SNMP"),
            ),
            (
                Outcome::Closed,
                Status::Offline,
                Some("port 161 closed: no SNMP agent there"),
            ),
            (
                Outcome::of(&io::Error::from_raw_os_error(113)),
                Status::Offline,
                Some("host unreachable"),
            ),
            (
                Outcome::of(&io::Error::from_raw_os_error(101)),
                Status::Unknown,
                Some("SNMP request not sent: this machine has no route to the network"),
            ),
            (
                Outcome::of(&io::Error::from_raw_os_error(24)),
                Status::Unknown,
                Some("SNMP request not sent: Too many open files (os error 24)"),
            ),
        ] {
            let found = finding(&outcome, &settings);
            assert_eq!(found.status, status);
            assert_eq!(found.detail.as_deref(), detail);
            let answered = matches!(outcome, Outcome::Answered(Answer::Values(_)));
            assert_eq!(
                Json::Object(found.metrics),
                serde_json::json!({
                    "snmp_ok": answered,
                    "snmp_port": 161,
                    "sys_descr": if detail.is_none() { Some("Switch X") } else { None },
                    "sys_uptime": if answered { Some(4_294_967_295_u32) } else { None },
                    "snmp_timeout_s": 0.5,
                    "snmp_retries": 2,
                })
            );
        }
    }

    #[test]
    fn silence_is_told_by_version() {
        for (config, stray, said) in [
            (
                r#"{"snmp":{"version":"1"}}"#,
                Some(Stray::OtherKind),
                "answers from port 161 are not SNMP v1 responses",
            ),
            (
                r#"{"snmp":{"version":"3","v3":{"user":"u"}}}"#,
                None,
                "no answer from port 161",
            ),
        ] {
            let found = finding(&Outcome::Silent(stray), &settings(config));
            assert_eq!(found.detail.as_deref(), Some(said));
        }
    }
}
