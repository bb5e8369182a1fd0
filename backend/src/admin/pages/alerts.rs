//! Alerts: what is open, what was.

use askama::Template;

use super::html::Frame;
use super::{Admin, Call, Problem, frame, show};
use crate::answer::Answer;
use crate::store::pages::{AlertFilter, AlertPage};

/// How many alerts a page shows.
const PAGE: i64 = 50;

#[derive(Template)]
#[template(path = "alerts.html")]
struct Page {
    f: Frame,
    site: String,
    closed: bool,
    open_query: String,
    closed_query: String,
    next_query: Option<String>,
    alerts: Vec<AlertPage>,
}

/// `GET /alerts?state=closed&site=&from=`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = frame(call, "alerts");
    let number = |name: &str| {
        call.query
            .get(name)
            .and_then(|text| text.parse::<i64>().ok())
    };
    let closed = call.query.get("state") == Some("closed");
    let offset = number("from").unwrap_or(0).max(0);
    let site = match number("site") {
        Some(id) => Some(admin.store.site_page(id)?.ok_or(Problem::None)?),
        None => None,
    };
    let site_id = site.as_ref().map(|site| site.id);
    let mut alerts = admin.store.alert_pages(AlertFilter {
        closed,
        site: site_id,
        device: None,
        offset,
        // One more tells whether there is a next page.
        limit: PAGE + 1,
    })?;
    let more = alerts.len() > usize::try_from(PAGE).unwrap_or(usize::MAX);
    alerts.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    Ok(show(
        200,
        &Page {
            f,
            site: site.map(|site| site.name).unwrap_or_default(),
            closed,
            open_query: query(false, site_id, 0),
            closed_query: query(true, site_id, 0),
            next_query: more.then(|| query(closed, site_id, offset + PAGE)),
            alerts,
        },
    ))
}

fn query(closed: bool, site: Option<i64>, from: i64) -> String {
    let parts: Vec<String> = [
        closed.then(|| "state=closed".to_owned()),
        site.map(|id| format!("site={id}")),
        (from > 0).then(|| format!("from={from}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("?{}", parts.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        assert_eq!(query(false, None, 0), "");
        assert_eq!(query(true, Some(3), 50), "?state=closed&site=3&from=50");
    }
}
