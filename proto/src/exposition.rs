//! The Prometheus text format, version 0.0.4: what `/metrics` prints.

use std::fmt::{Display, Write as _};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A gauge of a device, by the metric of a report that it shows.
#[derive(Debug, Clone, Copy)]
pub struct DeviceGauge {
    /// The metric's key in `metrics` of a report.
    pub metric: &'static str,
    /// The gauge's name, which ends with its unit.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// From the unit of the metric to that of the name.
    pub scale: f64,
}

/// Whether a device answers, on the agent's page and the backend's.
pub const DEVICE_UP: (&str, &str) = (
    "av_device_up",
    "Whether the device answered: 1 online, 0 offline; absent where unknown.",
);

/// A device's verdict, on the agent's page and the backend's.
pub const DEVICE_VERDICT: (&str, &str) = ("av_device_verdict", "1 for the verdict of now.");

/// The drivers' metrics that are numbers worth plotting, on the agent's page and
/// the backend's.
pub const DEVICE_GAUGES: &[DeviceGauge] = &[
    DeviceGauge {
        metric: "ping_rtt_avg_ms",
        name: "av_device_ping_rtt_seconds",
        help: "Average round trip of the last probe.",
        scale: 1e-3,
    },
    DeviceGauge {
        metric: "ping_loss_pct",
        name: "av_device_ping_loss_ratio",
        help: "Echoes of the last probe that were not answered, of one.",
        scale: 1e-2,
    },
    DeviceGauge {
        metric: "ping_jitter_ms",
        name: "av_device_ping_jitter_seconds",
        help: "Mean change of the round trip from one echo to the next.",
        scale: 1e-3,
    },
    DeviceGauge {
        metric: "sys_uptime",
        name: "av_device_snmp_uptime_seconds",
        help: "sysUpTime of the last probe.",
        scale: 1e-2,
    },
    DeviceGauge {
        metric: "pjlink_lamp_hours",
        name: "av_device_pjlink_lamp_hours",
        help: "Hours of the lamp that has the most.",
        scale: 1.0,
    },
    DeviceGauge {
        metric: "pjlink_filter_hours",
        name: "av_device_pjlink_filter_hours",
        help: "Hours of the filter.",
        scale: 1.0,
    },
    DeviceGauge {
        metric: "tcp_connect_ms",
        name: "av_device_tcp_connect_seconds",
        help: "How long the connection of the last probe took.",
        scale: 1e-3,
    },
    DeviceGauge {
        metric: "pjlink_power",
        name: "av_device_pjlink_power",
        help: "PJLink power: 0 off, 1 on, 2 cooling, 3 warm-up.",
        scale: 1.0,
    },
];

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A metric's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Exposition {
    /// An empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a metric: its help and type. Its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// One sample of the metric, its labels escaped.
    pub fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) -> &mut Self {
        self.text.push_str(name);
        for (i, (label, content)) in labels.iter().enumerate() {
            self.text.push(if i == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in content.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
        self
    }

    /// A metric of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) -> &mut Self {
        self.family(name, kind, help).sample(name, &[], value)
    }

    /// The finished page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Exposition::new();
        page.family("av_up", Kind::Gauge, "Whether it is up.")
            .sample("av_up", &[("site", "a\"b\\c\nd"), ("ip", "::1")], 1);
        page.single("av_polls_total", Kind::Counter, "Polls.", 0.5);
        assert_eq!(
            page.finish(),
            "# HELP av_up Whether it is up.\n# TYPE av_up gauge\n\
             av_up{site=\"a\\\"b\\\\c\\nd\",ip=\"::1\"} 1\n\
             # HELP av_polls_total Polls.\n# TYPE av_polls_total counter\nav_polls_total 0.5\n"
        );
    }
}
