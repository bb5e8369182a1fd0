//! The first page: sites by their worst state, and what needs somebody.

use askama::Template;

use super::html::{Frame, natural};
use super::{Admin, Call, Count, Problem, all_sites, frame, show};
use crate::answer::Answer;
use crate::store::pages::{AlertFilter, AlertPage, SitePage, Tally};

/// The most lines of a list that is cut.
const LIST_MAX: usize = 8;

#[derive(Template)]
#[template(path = "dashboard.html")]
struct Dashboard {
    f: Frame,
    counts: Vec<Count>,
    sites: Vec<SitePage>,
    alerts: Vec<AlertPage>,
    more_alerts: i64,
    silent: Vec<SitePage>,
    more_silent: i64,
    site_count: i64,
}

/// `GET /`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = frame(call, "sites");
    let mut sites = all_sites(admin, None)?;
    sites.sort_by(|a, b| {
        rank(a)
            .cmp(&rank(b))
            .then_with(|| natural(&a.name, &b.name))
    });
    let mut tally = Tally::default();
    for site in &sites {
        for (verdict, count) in site.tally.parts() {
            tally.add(verdict, count);
        }
    }
    let open: i64 = sites.iter().map(|site| site.open_alerts).sum();
    let alerts = admin.store.alert_pages(AlertFilter {
        limit: counted(LIST_MAX),
        ..AlertFilter::default()
    })?;
    let mut silent: Vec<SitePage> = sites
        .iter()
        .filter(|site| site.agent.silent || site.agent.last_report_at.is_none())
        .cloned()
        .collect();
    // Those that were heard of once, the longest silent first.
    silent.sort_by_key(|site| {
        (
            site.agent.last_report_at.is_none(),
            site.agent.last_report_at,
        )
    });
    let more_silent = counted(silent.len().saturating_sub(LIST_MAX));
    silent.truncate(LIST_MAX);
    let counts = [
        ("", f.lang.t("devices"), tally.total()),
        ("fault", f.lang.worst("fault"), tally.fault),
        ("doubt", f.lang.worst("doubt"), tally.doubt),
        ("unknown", f.lang.worst("unknown"), tally.unknown),
        ("waiting", f.lang.worst("waiting"), tally.waiting),
        (
            "expected_off",
            f.lang.worst("expected_off"),
            tally.expected_off,
        ),
        ("ok", f.lang.worst("ok"), tally.ok),
    ]
    .into_iter()
    .filter(|(class, _, count)| *count > 0 || matches!(*class, "" | "fault" | "ok"))
    .map(|(class, words, count)| Count {
        class,
        words,
        count,
    })
    .collect();
    Ok(show(
        200,
        &Dashboard {
            f,
            counts,
            more_alerts: open - counted(alerts.len()),
            alerts,
            silent,
            more_silent,
            site_count: counted(sites.len()),
            sites,
        },
    ))
}

fn counted(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The worst first: faults, silent agents, doubt, what is not known.
fn rank(site: &SitePage) -> u8 {
    match site.worst() {
        "fault" => 0,
        _ if site.agent.silent => 1,
        "doubt" => 2,
        "unknown" => 3,
        "waiting" => 4,
        "none" => 6,
        _ => 5,
    }
}
