//! A site's agent has that site's certificate: what the proxy read in a client
//! certificate that it verified, compared with the site of the token.

use av_proto::text::one_line;
use av_service::http::Request;

use crate::answer::Answer;

/// Whether the certificates of agents are compared, and by which header field.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificates {
    header: Option<String>,
}

impl ClientCertificates {
    /// Compares the field in which the proxy gives the certificate's subject
    /// (RFC 4514, as `CN=Site Paris`), or, without a field, nothing.
    ///
    /// # Errors
    /// When no header field can have this name (RFC 9110, section 5.1), for a
    /// person.
    pub fn by_header(name: Option<String>) -> Result<Self, String> {
        let header = name.filter(|name| !name.is_empty());
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        match header {
            Some(name) if !name.bytes().all(token) => Err(format!(
                "AV_CLIENT_CERT_HEADER: {:?} is not the name of a header field",
                one_line(&name)
            )),
            header => Ok(Self { header }),
        }
    }

    /// Whether they are.
    pub(super) fn are_compared(&self) -> bool {
        self.header.is_some()
    }

    /// The refusal of a request whose certificate is not that of the site of
    /// its token. To be asked before the token has any effect.
    pub(super) fn refusal(&self, site_name: &str, request: &Request) -> Option<Answer> {
        let field = self.header.as_deref()?;
        let given: Vec<&str> = request.all(field).collect();
        // Two of them: one is not the proxy's.
        let name = match given.as_slice() {
            [subject] => common_name(subject),
            _ => None,
        };
        if name.as_deref() == Some(site_name) {
            return None;
        }
        log::warn!(
            "a request for site {} has {}: refused",
            one_line(site_name),
            match &name {
                Some(name) => format!("the client certificate of {}", one_line(name)),
                None => "no client certificate with a name".to_owned(),
            }
        );
        Some(Answer::error(
            403,
            "the client certificate is not that of this token's site",
        ))
    }
}

/// The common name of a subject, the first that stands in it: the text after
/// `CN=`, its escapes undone (RFC 4514, section 2.4). Values in another form
/// (`#` and hexadecimal digits) are none.
fn common_name(subject: &str) -> Option<String> {
    attributes(subject)
        .into_iter()
        .find(|attribute| {
            attribute
                .get(..3)
                .is_some_and(|kind| kind.eq_ignore_ascii_case("CN="))
        })
        .and_then(|attribute| unescaped(&attribute[3..]))
        .filter(|name| !name.is_empty())
}

/// The subject's parts, at the commas and plus signs that are not escaped.
fn attributes(subject: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let (mut begin, mut escaped) = (0, false);
    for (at, letter) in subject.char_indices() {
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = true;
        } else if letter == ',' || letter == '+' {
            all.push(subject[begin..at].trim_start());
            begin = at + 1;
        }
    }
    all.push(subject[begin..].trim_start());
    all
}

fn unescaped(value: &str) -> Option<String> {
    if value.starts_with('#') {
        return None;
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let pair = rest
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair
            .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[2..];
            }
            None => {
                let (&literal, after) = rest.split_first()?;
                bytes.push(literal);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_name_is_read() {
        for (subject, name) in [
            ("CN=Site Paris", Some("Site Paris")),
            ("O=AV,CN=Site Paris", Some("Site Paris")),
            ("cn=Paris+OU=x, O=y", Some("Paris")),
            ("CN=Paris\\, Nord", Some("Paris, Nord")),
            ("CN=Orl\\C3\\A9ans", Some("Orl\u{e9}ans")),
            ("CN=Orl\u{e9}ans", Some("Orl\u{e9}ans")),
            ("CN=a\\\\b\\2Cc", Some("a\\b,c")),
            // Nobody gets a name by another attribute.
            ("O=x\\,CN=Paris", None),
            ("OCN=Paris", None),
            ("CN=", None),
            ("CN=a\\", None),
            ("CN=#0C0141", None),
            ("CN=\\FF", None),
            ("{http.request.tls.client.subject}", None),
            ("Paris", None),
            ("", None),
        ] {
            assert_eq!(common_name(subject).as_deref(), name, "{subject:?}");
        }
    }

    #[test]
    fn a_field_has_a_name() {
        for (name, good) in [
            (None, true),
            (Some(""), true),
            (Some("X-Client-Certificate-Subject"), true),
            (Some("X Client"), false),
            (Some("X-Client:"), false),
        ] {
            let made = ClientCertificates::by_header(name.map(str::to_owned));
            assert_eq!(made.is_ok(), good, "{name:?}");
        }
    }
}
