//! The pages' words in English and French, chosen by the browser's languages.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::catalogue::CATALOGUE;
use super::html::Plain;
use super::problems::PROBLEMS;
use crate::admin::password::LEAST_CHARS;
use crate::store::users::Role;

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    /// English, also for whoever asks for neither.
    En,
    /// French.
    Fr,
}

static WORDS: LazyLock<HashMap<&'static str, (&'static str, &'static str)>> = LazyLock::new(|| {
    CATALOGUE
        .iter()
        .map(|&(key, en, fr)| (key, (en, fr)))
        .collect()
});

impl Lang {
    /// The language of an `Accept-Language` (RFC 9110 section 12.5.4): the one
    /// of ours with the highest weight, the first of equals.
    pub(super) fn accepted(header: Option<&str>) -> Self {
        let mut best = (0.0, Self::En);
        for range in header.unwrap_or_default().split(',') {
            let mut parts = range.split(';');
            let tag = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
            let lang = match tag.split('-').next() {
                Some("fr") => Self::Fr,
                Some("en") => Self::En,
                _ => continue,
            };
            let weight = parts
                .find_map(|part| part.trim().strip_prefix("q=")?.parse::<f32>().ok())
                .unwrap_or(1.0);
            if weight > best.0 {
                best = (weight, lang);
            }
        }
        best.1
    }

    /// The language's code, for `lang` in HTML.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Fr => "fr",
        }
    }

    /// A word or sentence; the key itself where it is missing, which a test
    /// does not let happen.
    pub(super) fn t(self, key: &'static str) -> &'static str {
        debug_assert!(WORDS.contains_key(key), "there are no words for {key}");
        match (WORDS.get(key), self) {
            (Some((en, _)), Self::En) => en,
            (Some((_, fr)), Self::Fr) => fr,
            (None, _) => key,
        }
    }

    /// The same with `{}` replaced.
    pub(super) fn with(self, key: &'static str, value: &str) -> String {
        self.t(key).replacen("{}", value, 1)
    }

    /// A number with its noun. English is plural but for 1, French from 2 on.
    pub(super) fn n(self, noun: &str, count: impl Plain<i64>) -> String {
        let count = count.plain();
        let one = match self {
            Self::En => count == 1,
            Self::Fr => count < 2,
        };
        let key = match (noun, one) {
            ("site", true) => "n.site.one",
            ("site", false) => "n.site.many",
            ("device", true) => "n.device.one",
            ("device", false) => "n.device.many",
            ("rejected", true) => "n.rejected.one",
            ("rejected", false) => "n.rejected.many",
            (_, true) => "n.more.one",
            (_, false) => "n.more.many",
        };
        self.with(key, &count.to_string())
    }

    /// The verdict's words; also `waiting` (no report yet) and `none` (a site
    /// without devices).
    pub(super) fn worst(self, verdict: impl AsRef<str>) -> &'static str {
        self.t(match verdict.as_ref() {
            "ok" => "verdict.ok",
            "fault" => "verdict.fault",
            "doubt" => "verdict.doubt",
            "expected_off" => "verdict.expected_off",
            "waiting" => "verdict.waiting",
            "none" => "verdict.none",
            _ => "verdict.unknown",
        })
    }

    /// The name of a day of the week, Monday being 0.
    pub(super) fn day(self, index: impl Plain<usize>) -> &'static str {
        const KEYS: [&str; 7] = [
            "js.day.mon",
            "js.day.tue",
            "js.day.wed",
            "js.day.thu",
            "js.day.fri",
            "js.day.sat",
            "js.day.sun",
        ];
        KEYS.get(index.plain()).map_or("", |key| self.t(key))
    }

    /// How serious an alert is.
    pub(super) fn severity(self, severity: impl AsRef<str>) -> &'static str {
        self.t(match severity.as_ref() {
            "warning" => "severity.warning",
            _ => "severity.critical",
        })
    }

    /// What a user may do.
    pub(super) fn role(self, role: impl Plain<Role>) -> &'static str {
        self.t(match role.plain() {
            Role::Viewer => "role.viewer",
            Role::Editor => "role.editor",
            Role::Admin => "role.admin",
        })
    }

    /// What a new password must have.
    pub(super) fn password_hint(self) -> String {
        self.with("user.password.hint", &LEAST_CHARS.to_string())
    }

    /// The words that scripts use, as a JSON object: keys that begin with
    /// `js.`, the verdicts, and what the API says of errors.
    pub(super) fn script_words(self) -> String {
        let mut words: serde_json::Map<String, serde_json::Value> = CATALOGUE
            .iter()
            .filter_map(|&(key, _, _)| {
                let name = key
                    .strip_prefix("js.")
                    .or_else(|| key.starts_with("verdict.").then_some(key))?;
                Some((name.to_owned(), self.t(key).into()))
            })
            .collect();
        if self == Self::Fr {
            words.insert("problems".to_owned(), serde_json::json!(PROBLEMS));
        }
        serde_json::Value::Object(words).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_browsers_languages_choose() {
        for (header, lang) in [
            (None, Lang::En),
            (Some(""), Lang::En),
            (Some("fr"), Lang::Fr),
            (Some("FR-ca, en;q=0.8"), Lang::Fr),
            (Some("de, fr;q=0.5, en;q=0.4"), Lang::Fr),
            (Some("de, en;q=0.7, fr;q=0.5"), Lang::En),
            (Some("en;q=0.2, fr;q=0.2"), Lang::En),
            (Some("fr;q=0, en;q=0.1"), Lang::En),
            (Some("frisian, *"), Lang::En),
        ] {
            assert_eq!(Lang::accepted(header), lang, "{header:?}");
        }
    }

    #[test]
    fn plurals() {
        assert_eq!(Lang::En.n("site", 0), "0 sites");
        assert_eq!(Lang::En.n("site", 1), "1 site");
        assert_eq!(Lang::Fr.n("site", 0), "0 site");
        assert_eq!(Lang::Fr.n("site", 2), "2 sites");
    }

    /// Each literal that follows one of `marks` in a text.
    fn literals(text: &str, marks: &[&str]) -> Vec<String> {
        marks
            .iter()
            .flat_map(|mark| text.split(mark).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn no_key_is_missing_unused_double_or_without_words() {
        let mut keys = HashSet::new();
        for (key, en, fr) in CATALOGUE {
            assert!(keys.insert(*key), "{key} is there twice");
            assert!(!en.is_empty() && !fr.is_empty(), "{key} has no words");
            assert_eq!(
                en.matches("{}").count(),
                fr.matches("{}").count(),
                "{key} takes other values in French"
            );
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut used = HashSet::new();
        let mut text_of_all = String::new();
        for dir in ["templates", "src/admin/pages", "static"] {
            for entry in fs::read_dir(root.join(dir)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let Ok(text) = fs::read_to_string(&path) else {
                    continue;
                };
                if name == "catalogue.rs" {
                    continue;
                }
                let found = if name.ends_with(".js") {
                    literals(&text, &["av.t(\""])
                        .into_iter()
                        .map(|key| format!("js.{key}"))
                        .collect()
                } else if name.ends_with(".html") {
                    literals(&text, &[".t(\"", ".with(\""])
                } else if name == "i18n.rs" {
                    Vec::new()
                } else {
                    literals(&text, &["lang.t(\"", "lang.with(\"", "self.with(\""])
                };
                for key in found {
                    assert!(keys.contains(key.as_str()), "{name} uses {key:?}");
                    used.insert(key);
                }
                text_of_all.push_str(&text);
            }
        }
        for key in keys {
            assert!(
                used.contains(key)
                    || text_of_all.contains(&format!("\"{key}\""))
                    || key.starts_with("js.day."),
                "{key} is not used"
            );
        }
    }
}
