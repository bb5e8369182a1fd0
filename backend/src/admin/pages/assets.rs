//! Files in the binary, served under `/static`.

use std::sync::LazyLock;

use crate::answer::Answer;
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

/// The file of this name. Browsers ask each time whether it changed: a new
/// version of the program is seen at once.
pub(super) fn serve(name: &str, if_none_match: Option<&str>) -> Option<Answer> {
    let index = ASSETS.iter().position(|asset| asset.name == name)?;
    let (asset, tag) = (ASSETS.get(index)?, TAGS.get(index)?);
    let mut answer = Answer::embedded(asset.content_type, asset.text.as_bytes());
    if matches(if_none_match, tag) {
        // The server leaves the body out.
        answer.status = 304;
    }
    Some(
        answer
            .with("ETag", tag.clone())
            .with("Cache-Control", "no-cache"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_there_and_not_sent_twice() {
        for asset in ASSETS {
            let tag = tag(asset.text);
            assert_eq!(serve(asset.name, None).unwrap().status, 200);
            assert_eq!(serve(asset.name, Some(&tag)).unwrap().status, 304);
            assert_eq!(
                serve(asset.name, Some(&format!("\"x\", W/{tag}")))
                    .unwrap()
                    .status,
                304
            );
        }
        assert!(serve("nothing.js", None).is_none());
    }

    #[test]
    fn every_file_that_a_template_asks_for_is_there() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let mut asked = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for rest in text.split("/static/").skip(1) {
                let name = rest.split('"').next().unwrap();
                assert!(serve(name, None).is_some(), "{name}");
                asked += 1;
            }
            for inline in ["<style", "style=\"", " onclick", "<script>"] {
                assert!(!text.contains(inline), "{inline} breaks the policy");
            }
        }
        assert!(asked > 10);
    }
}
