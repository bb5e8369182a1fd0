//! Files in the binary, served under `/static`.

use std::sync::{Arc, LazyLock};

use crate::answer::Answer;
use crate::gzip;
use crate::store::sites::TokenDigest;

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            text: include_str!(concat!("../../../static/", $name)),
        }
    };
}

static ASSETS: &[Asset] = &[
    asset!("style.css", CSS),
    asset!("icon.svg", "image/svg+xml"),
    asset!("app.js", JS),
    asset!("site.js", JS),
    asset!("site_form.js", JS),
    asset!("enrolment.js", JS),
    asset!("week.js", JS),
    asset!("device_form.js", JS),
    asset!("alerts.js", JS),
    asset!("users.js", JS),
    asset!("account.js", JS),
    asset!("version.js", JS),
    asset!("import.js", JS),
    asset!("maintenance.js", JS),
    asset!("channels.js", JS),
    asset!("suggestions.js", JS),
];

/// The entity tag of each, from its content.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| ASSETS.iter().map(|asset| tag(asset.text)).collect());

/// An entity tag of a text.
pub(super) fn tag(text: &str) -> String {
    let digest = TokenDigest::of(text);
    format!("\"{}\"", digest.hex().get(..32).unwrap_or_default())
}

/// Whether an `If-None-Match` names this entity tag.
pub(super) fn matches(if_none_match: Option<&str>, tag: &str) -> bool {
    if_none_match.is_some_and(|header| {
        header
            .split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag)
    })
}

/// Each as gzip has it: made once, at the first request.
static PACKED: LazyLock<Vec<Arc<[u8]>>> = LazyLock::new(|| {
    ASSETS
        .iter()
        .map(|asset| gzip::packed(asset.text.as_bytes(), gzip::Level::best()).into())
        .collect()
});

/// The part of an entity tag that a page's links name.
fn mark(tag: &str) -> &str {
    tag.get(1..13).unwrap_or_default()
}

/// Where a page links to a file: with a mark of its content, so that browsers
/// keep it until it changes.
pub(crate) fn link(name: &str) -> String {
    let tag = ASSETS
        .iter()
        .zip(&*TAGS)
        .find(|(asset, _)| asset.name == name);
    match tag {
        Some((_, tag)) => format!("/static/{name}?v={}", mark(tag)),
        None => format!("/static/{name}"),
    }
}

/// What of a request a file's answer depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// `v` of the query: the mark of the content.
    pub(crate) mark: Option<&'a str>,
    /// `If-None-Match`.
    pub(crate) known: Option<&'a str>,
    /// `Accept-Encoding`.
    pub(crate) accepts: Option<&'a str>,
}

/// The file of this name. Browsers keep one that was asked for by the mark of
/// its content, and ask each time whether another changed.
pub(super) fn serve(name: &str, asked: Asked<'_>) -> Option<Answer> {
    let index = ASSETS.iter().position(|asset| asset.name == name)?;
    let (asset, tag) = (ASSETS.get(index)?, TAGS.get(index)?);
    let mut answer = match PACKED.get(index) {
        Some(packed) if gzip::is_accepted(asked.accepts) => {
            Answer::packed(asset.content_type, packed.clone()).with("ETag", format!("W/{tag}"))
        }
        _ => Answer::embedded(asset.content_type, asset.text.as_bytes()).with("ETag", tag.clone()),
    };
    if matches(asked.known, tag) {
        // The server leaves the body out.
        answer.status = 304;
    }
    let kept = match asked.mark == Some(mark(tag)) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    Some(
        answer
            .with("Cache-Control", kept)
            .with("Vary", "Accept-Encoding"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(tag: &str) -> Asked<'_> {
        Asked {
            known: Some(tag),
            ..Asked::default()
        }
    }

    #[test]
    fn files_are_there_and_not_sent_twice() {
        for asset in ASSETS {
            let tag = tag(asset.text);
            assert_eq!(serve(asset.name, Asked::default()).unwrap().status, 200);
            assert_eq!(serve(asset.name, known(&tag)).unwrap().status, 304);
            let weak = format!("\"x\", W/{tag}");
            assert_eq!(serve(asset.name, known(&weak)).unwrap().status, 304);
        }
        assert!(serve("nothing.js", Asked::default()).is_none());
    }

    #[test]
    fn a_link_names_the_content_and_is_kept() {
        let link = link("app.js");
        let mark = link.strip_prefix("/static/app.js?v=").unwrap();
        assert_eq!(mark.len(), 12);
        for (mark, kept) in [
            (Some(mark), "public, max-age=31536000, immutable"),
            (Some("000000000000"), "no-cache"),
            (None, "no-cache"),
        ] {
            let asked = Asked {
                mark,
                ..Asked::default()
            };
            let answer = serve("app.js", asked).unwrap().into_http();
            let found = answer.fields().find(|(name, _)| *name == "Cache-Control");
            assert_eq!(found.unwrap().1, kept);
        }
    }
}
