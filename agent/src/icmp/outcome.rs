//! What the course of a probe says of its device.

use std::time::Duration;

use av_proto::driver::PingSettings;
use av_proto::verdict::Status;
use serde_json::Value;

use super::round::Round;
use super::socket::SendFault;
use crate::finding::Finding;

/// Online: one answer at least. Offline: none, or an ICMP error. Unknown:
/// this machine cannot ping. `fault`: why the probe ended early.
pub(super) fn finding(round: &Round, fault: Option<SendFault>, settings: &PingSettings) -> Finding {
    let (answered, attempts) = (round.answered(), round.attempts());
    let found = if answered > 0 {
        let online = Finding::new(Status::Online);
        if answered < attempts {
            online.with_detail(format!("{answered} of {attempts} pings answered"))
        } else {
            online
        }
    } else {
        match (fault, round.failure()) {
            (Some(SendFault::Here(reason)), _) => Finding::new(Status::Unknown).with_detail(reason),
            (Some(SendFault::Busy), _) => Finding::new(Status::Unknown)
                .with_detail("ping not sent: no room in the send queue"),
            (_, Some((error, from))) => Finding::new(Status::Offline)
                .with_detail(format!("{} ({error} from {from})", error.reason())),
            (Some(SendFault::Unreachable(reason)), None) => {
                Finding::new(Status::Offline).with_detail(reason)
            }
            (None, None) => Finding::new(Status::Offline).with_detail(format!(
                "no answer to {attempts} ping{}",
                if attempts == 1 { "" } else { "s" }
            )),
        }
    };
    let took = round.round_trip();
    found
        .with("ping_ok", answered > 0)
        .with("ping_rtt_avg_ms", ms(took.map(|took| took.average)))
        .with("ping_timeout_s", settings.timeout.as_secs_f64())
        .with("ping_count", settings.count)
        .with("ping_loss_pct", loss_pct(answered, attempts))
        .with("ping_rtt_min_ms", ms(took.map(|took| took.min)))
        .with("ping_rtt_max_ms", ms(took.map(|took| took.max)))
        .with("ping_jitter_ms", ms(took.and_then(|took| took.jitter)))
        .with("ping_duplicates", round.duplicates())
}

/// To the microsecond; null for what was not measured.
fn ms(took: Option<Duration>) -> Value {
    took.map_or(Value::Null, |took| {
        Value::from((took.as_secs_f64() * 1e6).round() / 1e3)
    })
}

/// To a tenth; null where no echo left.
fn loss_pct(answered: usize, attempts: usize) -> Value {
    match (u32::try_from(attempts - answered), u32::try_from(attempts)) {
        (Ok(lost), Ok(sent)) if sent > 0 => {
            Value::from((f64::from(lost) * 1000.0 / f64::from(sent)).round() / 10.0)
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Instant;

    use super::super::packet::IcmpError;
    use super::super::round::Event;
    use super::super::socket::Family;
    use super::*;

    const SETTINGS: PingSettings = PingSettings {
        count: 3,
        timeout: Duration::from_millis(1500),
    };
    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    /// A round of three echoes; the answered ones took 1.5, 2.5, 3.5 ms.
    fn round(answers: u16) -> Round {
        let t = Instant::now();
        let mut round = Round::new(3, SETTINGS.timeout);
        for sequence in 0..3 {
            round.sent(sequence, t);
            if sequence < answers {
                let at = t + Duration::from_micros(1500 + 1000 * u64::from(sequence));
                round.heard(Event::Answered { sequence, at });
            }
        }
        round
    }

    #[test]
    fn findings_name_what_happened() {
        let nothing = || Round::new(3, SETTINGS.timeout);
        let unreachable = || SendFault::Unreachable("host unreachable by this machine's routes");
        let mut refused = round(0);
        refused.heard(Event::Failed {
            sequence: 1,
            from: ROUTER,
            error: IcmpError {
                family: Family::V4,
                kind: 3,
                code: 13,
            },
        });
        let mut twice = round(1);
        twice.heard(Event::Answered {
            sequence: 0,
            at: Instant::now(),
        });
        let none = (None, None, None, None);
        let all = (Some(2.5), Some(1.5), Some(3.5), Some(1.0));
        let one = (Some(1.5), Some(1.5), Some(1.5), None);
        for (round, fault, status, detail, took, loss, duplicates) in [
            (round(3), None, Status::Online, None, all, Some(0.0), 0),
            (
                twice,
                None,
                Status::Online,
                Some("1 of 3 pings answered"),
                one,
                Some(66.7),
                1,
            ),
            // Answered, then the cable was pulled: it was online.
            (
                round(3),
                Some(SendFault::Busy),
                Status::Online,
                None,
                all,
                Some(0.0),
                0,
            ),
            (
                round(0),
                None,
                Status::Offline,
                Some("no answer to 3 pings"),
                none,
                Some(100.0),
                0,
            ),
            (
                refused,
                None,
                Status::Offline,
                Some("ping forbidden by a firewall (ICMP 3/13 from 10.0.0.1)"),
                none,
                Some(100.0),
                0,
            ),
            (
                nothing(),
                Some(unreachable()),
                Status::Offline,
                Some("host unreachable by this machine's routes"),
                none,
                None,
                0,
            ),
            (
                nothing(),
                Some(SendFault::Busy),
                Status::Unknown,
                Some("ping not sent: no room in the send queue"),
                none,
                None,
                0,
            ),
            (
                round(0),
                Some(SendFault::Here("ping not possible".to_owned())),
                Status::Unknown,
                Some("ping not possible"),
                none,
                Some(100.0),
                0,
            ),
        ] {
            let found = finding(&round, fault, &SETTINGS);
            assert_eq!(found.status, status);
            assert_eq!(found.detail.as_deref(), detail);
            let (average, min, max, jitter) = took;
            assert_eq!(
                Value::Object(found.metrics),
                serde_json::json!({
                    "ping_ok": status == Status::Online,
                    "ping_rtt_avg_ms": average,
                    "ping_timeout_s": 1.5,
                    "ping_count": 3,
                    "ping_loss_pct": loss,
                    "ping_rtt_min_ms": min,
                    "ping_rtt_max_ms": max,
                    "ping_jitter_ms": jitter,
                    "ping_duplicates": duplicates,
                })
            );
        }
    }
}
