//! The series of each device on `GET /metrics`, for who shows the token: whether
//! it answers, its verdict and its main readings, as the agent's page has them.

use std::sync::Arc;

use av_proto::exposition::{Exposition, Kind};

use super::pages::PAGE;
use crate::store::devices::{DeviceSample, Sampled};
use crate::store::{Store, StoreError};

/// A family of samples, one of each device that has it.
struct Family {
    name: &'static str,
    help: &'static str,
    what: Sampled,
    /// From the unit of what is stored to that of the name.
    scale: f64,
}

const fn reading(
    metric: &'static str,
    name: &'static str,
    help: &'static str,
    scale: f64,
) -> Family {
    Family {
        name,
        help,
        what: Sampled::Metric(metric),
        scale,
    }
}

/// In the text format all samples of a family stand together.
const FAMILIES: &[Family] = &[
    Family {
        name: "av_device_up",
        help: "Whether the device answered: 1 online, 0 offline; absent where unknown.",
        what: Sampled::Up,
        scale: 1.0,
    },
    Family {
        name: "av_device_verdict",
        help: "1 for the verdict that stands.",
        what: Sampled::Verdict,
        scale: 1.0,
    },
    reading(
        "ping_rtt_avg_ms",
        "av_device_ping_rtt_seconds",
        "Average round trip of the last probe.",
        1e-3,
    ),
    reading(
        "ping_loss_pct",
        "av_device_ping_loss_ratio",
        "Echoes of the last probe that were not answered, of one.",
        1e-2,
    ),
    reading(
        "sys_uptime",
        "av_device_snmp_uptime_seconds",
        "sysUpTime of the last probe.",
        1e-2,
    ),
    reading(
        "pjlink_power",
        "av_device_pjlink_power",
        "PJLink power: 0 off, 1 on, 2 cooling, 3 warm-up.",
        1.0,
    ),
    reading(
        "pjlink_lamp_hours",
        "av_device_pjlink_lamp_hours",
        "Hours of the lamp that has the most.",
        1.0,
    ),
    reading(
        "pjlink_filter_hours",
        "av_device_pjlink_filter_hours",
        "Hours of the filter.",
        1.0,
    ),
    reading(
        "tcp_connect_ms",
        "av_device_tcp_connect_seconds",
        "How long the connection of the last probe took.",
        1e-3,
    ),
];

/// The text of all families, page by page.
pub(super) struct Series {
    store: Arc<Store>,
    family: usize,
    after: Option<i64>,
}

impl Series {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            family: 0,
            after: None,
        }
    }

    /// Appends the next page; answers whether there is another.
    pub(super) fn next(&mut self, text: &mut Vec<u8>) -> Result<bool, StoreError> {
        let Some(family) = FAMILIES.get(self.family) else {
            return Ok(false);
        };
        let mut page = Exposition::new();
        if self.after.is_none() {
            page.family(family.name, Kind::Gauge, family.help);
        }
        let samples =
            self.store
                .device_samples(family.what, self.after.unwrap_or_default(), PAGE)?;
        for sample in &samples {
            append(&mut page, family, sample);
        }
        text.extend_from_slice(page.finish().as_bytes());
        self.after = match samples.last() {
            Some(last) if i64::try_from(samples.len()) == Ok(PAGE) => Some(last.id),
            _ => {
                self.family += 1;
                None
            }
        };
        Ok(self.family < FAMILIES.len())
    }
}

fn append(page: &mut Exposition, family: &Family, sample: &DeviceSample) {
    let mut labels = vec![
        ("site", sample.site.as_str()),
        ("ip", &sample.ip),
        ("name", &sample.name),
        ("building", &sample.building),
        ("floor", &sample.floor),
        ("room", &sample.room),
        ("type", &sample.device_type),
        ("driver", &sample.driver),
    ];
    let value = match family.what {
        Sampled::Verdict => {
            labels.push(("verdict", &sample.value));
            1.0
        }
        Sampled::Up => f64::from(u8::from(sample.value == "online")),
        // What an agent reported may be a number that is none here.
        Sampled::Metric(_) => match sample.value.parse::<f64>() {
            Ok(value) if value.is_finite() => value * family.scale,
            _ => return,
        },
    };
    page.sample(family.name, &labels, value);
}
