//! JSON Merge Patch (RFC 7396) over texts: what a patch does not name stays as
//! it is written, so that numbers keep every digit.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde_json::value::{RawValue, to_raw_value};

/// The media type of a merge patch.
pub(super) const MEDIA_TYPE: &str = "application/merge-patch+json";
/// A patch that is nested deeper is refused: each level is read for itself.
const DEPTH_MAX: usize = 32;

/// The target with a patch over it. A member `null` takes the target's out;
/// an object goes over an object; anything else stands in the target's place.
///
/// # Errors
/// Text that is not JSON, or a patch of too many levels.
pub(super) fn merge(
    target: Option<&str>,
    patch: &RawValue,
) -> Result<Box<RawValue>, serde_json::Error> {
    level(target, patch.get(), 0)
}

fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

fn level(
    target: Option<&str>,
    patch: &str,
    depth: usize,
) -> Result<Box<RawValue>, serde_json::Error> {
    if !is_object(patch) {
        return RawValue::from_string(patch.to_owned());
    }
    if depth == DEPTH_MAX {
        return Err(serde_json::Error::custom(format!(
            "has more than {DEPTH_MAX} levels"
        )));
    }
    let mut members: BTreeMap<String, Box<RawValue>> = match target {
        Some(target) if is_object(target) => serde_json::from_str(target)?,
        _ => BTreeMap::new(),
    };
    let over: BTreeMap<String, Box<RawValue>> = serde_json::from_str(patch)?;
    for (name, value) in over {
        if value.get() == "null" {
            members.remove(&name);
        } else {
            let old = members.get(&name).map(|raw| raw.get());
            let merged = level(old, value.get(), depth + 1)?;
            members.insert(name, merged);
        }
    }
    to_raw_value(&members)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7396 appendix A whose patch is an object, and ours.
    #[test]
    fn the_examples_of_the_standard() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (
                r#"{"n":{"x":1.0,"y":12345678901234567890123}}"#,
                r#"{"n":{"z":2.50}}"#,
                r#"{"n":{"x":1.0,"y":12345678901234567890123,"z":2.50}}"#,
            ),
        ] {
            let patch = RawValue::from_string(patch.to_owned()).unwrap();
            let merged = merge(Some(target), &patch).unwrap();
            assert_eq!(merged.get(), result, "{target}");
        }
    }

    #[test]
    fn a_deep_patch_is_refused() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
        // serde_json may refuse to read it already.
        if let Ok(patch) = RawValue::from_string(deep) {
            assert!(merge(None, &patch).is_err());
        }
    }
}
