//! The series of each device on `GET /metrics`, for who shows the token: whether
//! it answers, its verdict and its main readings, as the agent's page has them.

use std::sync::Arc;

use av_proto::exposition::{DEVICE_GAUGES, DEVICE_UP, DEVICE_VERDICT, Exposition, Kind};

use super::pages::PAGE;
use crate::store::devices::{DeviceSample, Sampled};
use crate::store::{Store, StoreError};

/// A family of samples, one of each device that has it.
#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    help: &'static str,
    what: Sampled,
    /// From the unit of what is stored to that of the name.
    scale: f64,
}

/// How many families there are.
const FAMILIES: usize = 2 + DEVICE_GAUGES.len();

/// The families in their order: in the text format the samples of one follow
/// each other.
fn family(number: usize) -> Option<Family> {
    let word = |(name, help), what| Family {
        name,
        help,
        what,
        scale: 1.0,
    };
    match number {
        0 => Some(word(DEVICE_UP, Sampled::Up)),
        1 => Some(word(DEVICE_VERDICT, Sampled::Verdict)),
        _ => DEVICE_GAUGES.get(number - 2).map(|gauge| Family {
            name: gauge.name,
            help: gauge.help,
            what: Sampled::Metric(gauge.metric),
            scale: gauge.scale,
        }),
    }
}

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
        let Some(family) = family(self.family) else {
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
            append(&mut page, &family, sample);
        }
        text.extend_from_slice(page.finish().as_bytes());
        self.after = match samples.last() {
            Some(last) if i64::try_from(samples.len()) == Ok(PAGE) => Some(last.device.id),
            _ => {
                self.family += 1;
                None
            }
        };
        Ok(self.family < FAMILIES)
    }
}

fn append(page: &mut Exposition, family: &Family, sample: &DeviceSample) {
    let device = &sample.device;
    let mut labels = vec![
        ("site", device.site.as_str()),
        ("ip", &device.ip),
        ("name", &device.name),
        ("building", &device.building),
        ("floor", &device.floor),
        ("room", &device.room),
        ("type", &device.device_type),
        ("driver", &device.driver),
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
