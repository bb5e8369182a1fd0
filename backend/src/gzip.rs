//! Answers that are sent packed (RFC 9110, section 8.4.1.3).

use std::io::Write as _;

use flate2::write::GzEncoder;

pub(crate) use flate2::Compression as Level;

/// Shorter texts gain nothing.
pub(crate) const LEAST: usize = 1024;

/// Whether an `Accept-Encoding` takes gzip (RFC 9110, section 12.5.3).
pub(crate) fn is_accepted(accepts: Option<&str>) -> bool {
    let mut any = None;
    for coding in accepts.unwrap_or_default().split(',') {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .is_some_and(|weight| weight.parse() == Ok(0.0));
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return !refused,
            "*" => any = Some(!refused),
            _ => {}
        }
    }
    any.unwrap_or_default()
}

/// Whether texts of this type get shorter.
pub(crate) fn is_worth_it(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.starts_with("text/") || kind == "application/json" || kind == "image/svg+xml"
}

/// A text, packed.
pub(crate) fn packed(text: &[u8], level: Level) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::with_capacity(text.len() / 4), level);
    // Memory takes all of it.
    let _ = packer.write_all(text);
    packer.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_a_client_accepts_is_read() {
        for (accepts, taken) in [
            (None, false),
            (Some(""), false),
            (Some("gzip"), true),
            (Some("deflate, GZIP;q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("gzip; q=0.0, *"), false),
            (Some("*"), true),
            (Some("*;q=0"), false),
            (Some("br, identity"), false),
        ] {
            assert_eq!(is_accepted(accepts), taken, "{accepts:?}");
        }
    }

    #[test]
    fn a_text_comes_back() {
        let text = "projector ".repeat(1000);
        let packed = packed(text.as_bytes(), Level::fast());
        assert!(packed.len() < text.len() / 10);
        let mut back = String::new();
        let mut reader = flate2::read::GzDecoder::new(packed.as_slice());
        reader.read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
