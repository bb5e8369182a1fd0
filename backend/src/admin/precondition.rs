//! Optimistic locking (RFC 9110 section 13.1.1): who changes something says
//! which version of it was seen.

use super::context::Headers;
use crate::answer::Answer;
use crate::store::inventory::Lost;

/// Checks `If-Match` against the entity tag of what is stored, without its
/// quotes.
///
/// # Errors
/// 428 without one, 400 where it is not one, 412 where it names another version.
pub(super) fn if_match(headers: &Headers, etag: &str) -> Result<(), Answer> {
    let Some(header) = headers.get("if-match") else {
        return Err(Answer::error(
            428,
            "If-Match is missing: send the ETag of what you saw, or * to change whatever is there",
        ));
    };
    if !is_well_formed(header) {
        return Err(Answer::error(
            400,
            "If-Match is neither * nor a list of quoted ETags",
        ));
    }
    if matches(header, etag) {
        Ok(())
    } else {
        Err(changed())
    }
}

/// 412: somebody else was first.
pub(super) fn changed() -> Answer {
    Answer::error(412, "somebody else changed it since: read it again")
}

/// The answer for a race that was lost.
pub(super) fn lost(lost: Lost) -> Answer {
    match lost {
        Lost::Gone => Answer::error(404, "it is not there any more"),
        Lost::Race => changed(),
    }
}

/// Entity tags are quoted (RFC 9110 section 8.8.3); ours have no comma.
fn is_well_formed(header: &str) -> bool {
    header == "*"
        || header.split(',').all(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.len() >= 2
                && tag.starts_with('"')
                && tag.ends_with('"')
                && !tag[1..tag.len() - 1].contains('"')
        })
}

/// A weak tag matches too. Ours are of what is stored and not of its bytes, and
/// who packs an answer on its way (this server, a proxy) weakens its tag.
fn matches(header: &str, etag: &str) -> bool {
    header == "*"
        || header.split(',').any(|tag| {
            let tag = tag.trim();
            tag.strip_prefix("W/")
                .unwrap_or(tag)
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                == Some(etag)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (header, expected) in [
            ("\"a\"", true),
            ("*", true),
            ("\"x\", \"a\"", true),
            ("W/\"a\"", true),
            ("W/a", false),
            ("a", false),
            ("\"b\"", false),
            ("", false),
        ] {
            assert_eq!(matches(header, "a"), expected, "{header}");
        }
        for (header, expected) in [
            ("*", true),
            ("\"a\", W/\"b\"", true),
            ("\"\"", true),
            ("", false),
            ("\"", false),
            ("a", false),
            ("\"a\",", false),
        ] {
            assert_eq!(is_well_formed(header), expected, "{header}");
        }
    }
}
