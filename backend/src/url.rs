//! The parts of a request's target: percent-encoding, paths and queries.

/// The parameters of a query or of a form, decoded, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`; `None` where it is not UTF-8.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(key, true)?, decode(value, true)?))
            })
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The first parameter of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Every parameter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The segments of an absolute path, decoded; `/` has none. `None` where they
/// are not UTF-8 or the path is not absolute.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/').map(|part| decode(part, false)).collect()
}

/// Decodes `%XX` (RFC 3986 section 2.1) and, in a query, `+` as a space. A
/// percent sign without two hex digits stands for itself. `None` where the
/// bytes are not UTF-8.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let escaped = match byte {
            b'%' => hex(bytes.get(i + 1)).zip(hex(bytes.get(i + 2))),
            _ => None,
        };
        match (byte, escaped) {
            (_, Some((high, low))) => {
                out.push(high * 16 + low);
                i += 3;
                continue;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8(out).ok()
}

/// Encodes all but the unreserved characters (RFC 3986 section 2.3).
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Query::parse("a=1&b=x+y%26&&flag&a=2&off=0").unwrap();
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("b"), Some("x y&"));
        assert_eq!((query.get("flag"), query.get("absent")), (Some(""), None));
        assert_eq!(Query::parse("%FF"), None);
    }

    #[test]
    fn paths() {
        assert_eq!(segments("/"), Some(vec![]));
        assert_eq!(segments("/a%2Fb/"), Some(vec!["a/b".into(), String::new()]));
        assert_eq!(segments("a"), None);
    }

    #[test]
    fn encoding_comes_back() {
        let text = "Évry /?&=+%~";
        assert_eq!(decode(&encode(text), true).as_deref(), Some(text));
    }
}
