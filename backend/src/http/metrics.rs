//! `GET /metrics`: the Prometheus text.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use av_proto::exposition::{Exposition, Kind};
use av_service::http::EdgeCounts;

use crate::config::CacheCounts;
use crate::ingest::IngestCounts;
use crate::store::devices::Counts;

/// What the HTTP server counts.
#[derive(Default)]
pub(super) struct Counters {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    panics: AtomicU64,
}

impl Counters {
    pub(super) fn answered(&self, route: &'static str, status: u16) {
        *self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((route, status))
            .or_default() += 1;
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// The page. `counts` is what the database holds, `None` where it is not
/// available.
pub(super) fn page(
    counters: &Counters,
    cache: CacheCounts,
    ingest: IngestCounts,
    edge: &EdgeCounts,
    counts: Option<&Counts>,
) -> String {
    let mut page = Exposition::new();
    page.family(
        "av_backend_build_info",
        Kind::Gauge,
        "The running version, always 1.",
    )
    .sample(
        "av_backend_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );

    let name = "av_backend_http_requests_total";
    page.family(
        name,
        Kind::Counter,
        "Requests answered, by route and status code.",
    );
    let requests = counters
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for ((route, status), count) in requests {
        let code = status.to_string();
        page.sample(name, &[("route", route), ("code", &code)], count);
    }
    page.single(
        "av_backend_panics_total",
        Kind::Counter,
        "Threads that failed and were started again.",
        counters.panics(),
    );

    page.single(
        "av_backend_http_connections",
        Kind::Gauge,
        "Connections that are open.",
        edge.connections,
    );
    let name = "av_backend_http_connections_closed_total";
    page.family(
        name,
        Kind::Counter,
        "Connections that this end closed, by reason.",
    );
    for (reason, count) in &edge.closed {
        page.sample(name, &[("reason", reason.name())], *count);
    }

    let name = "av_backend_config_polls_total";
    page.family(
        name,
        Kind::Counter,
        "Configurations served: from the cache (hit), after asking the database for the revision (revalidated), or read whole (miss).",
    );
    for (result, count) in [
        ("hit", cache.hits),
        ("revalidated", cache.revalidations),
        ("miss", cache.misses),
    ] {
        page.sample(name, &[("result", result)], count);
    }

    let name = "av_backend_reports_total";
    page.family(
        name,
        Kind::Counter,
        "Reports taken, and repetitions of reports that had been taken.",
    );
    for (result, count) in [("new", ingest.reports), ("repetition", ingest.repetitions)] {
        page.sample(name, &[("result", result)], count);
    }
    page.single(
        "av_backend_observations_total",
        Kind::Counter,
        "Observations in the reports taken.",
        ingest.observations,
    );
    page.single(
        "av_backend_unknown_devices_total",
        Kind::Counter,
        "Reported devices that are not configured.",
        ingest.unknown_devices,
    );

    page.single(
        "av_backend_database_up",
        Kind::Gauge,
        "Whether the database answers.",
        i32::from(counts.is_some()),
    );
    if let Some(counts) = counts {
        page.single("av_backend_sites", Kind::Gauge, "Sites.", counts.sites);
        page.single(
            "av_backend_alerts_open",
            Kind::Gauge,
            "Alerts that are open.",
            counts.open_alerts,
        );
        page.single(
            "av_backend_agents_silent",
            Kind::Gauge,
            "Sites whose agent did not report for three intervals.",
            counts.silent_agents,
        );
        let name = "av_backend_devices";
        page.family(
            name,
            Kind::Gauge,
            "Configured devices by verdict; none where nothing was reported yet.",
        );
        for verdict in ["ok", "fault", "expected_off", "doubt", "unknown", "none"] {
            let count = counts
                .devices
                .iter()
                .find(|(known, _)| known == verdict)
                .map_or(0, |(_, count)| *count);
            page.sample(name, &[("verdict", verdict)], count);
        }
    }
    page.finish()
}

#[cfg(test)]
mod tests {
    use av_service::http::Reason;

    use super::*;

    #[test]
    fn the_page_has_every_verdict_and_no_counts_without_a_database() {
        let counters = Counters::default();
        counters.answered("/config/...", 200);
        counters.answered("/config/...", 200);
        counters.panicked();
        let cache = CacheCounts {
            hits: 1,
            revalidations: 2,
            misses: 3,
        };
        let ingest = IngestCounts {
            reports: 4,
            repetitions: 5,
            observations: 6,
            unknown_devices: 7,
        };
        let edge = EdgeCounts {
            connections: 12,
            closed: vec![(Reason::SlowHead, 14)],
        };
        let counts = Counts {
            sites: 8,
            open_alerts: 9,
            silent_agents: 11,
            devices: vec![("fault".to_owned(), 10)],
        };
        let text = page(&counters, cache, ingest, &edge, Some(&counts));
        for line in [
            "av_backend_http_requests_total{route=\"/config/...\",code=\"200\"} 2",
            "av_backend_panics_total 1",
            "av_backend_config_polls_total{result=\"revalidated\"} 2",
            "av_backend_reports_total{result=\"repetition\"} 5",
            "av_backend_observations_total 6",
            "av_backend_unknown_devices_total 7",
            "av_backend_http_connections 12",
            "av_backend_http_connections_closed_total{reason=\"slow_head\"} 14",
            "av_backend_database_up 1",
            "av_backend_sites 8",
            "av_backend_alerts_open 9",
            "av_backend_agents_silent 11",
            "av_backend_devices{verdict=\"fault\"} 10",
            "av_backend_devices{verdict=\"ok\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let text = page(&counters, cache, ingest, &edge, None);
        assert!(text.contains("av_backend_database_up 0\n"));
        assert!(!text.contains("av_backend_devices"));
    }
}
