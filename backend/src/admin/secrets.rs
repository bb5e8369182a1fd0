//! Secrets inside a `driver_config`: masked in what is shown, and put back
//! where a client sends the mask.
//!
//! The JSON is worked on as text, so that numbers keep every digit: the
//! configuration's hash is made from them.

use av_proto::FieldError;
use av_proto::members::Members;
use av_proto::nearest::is_slip;
use serde_json::value::RawValue;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "***";

/// Secrets that are typed by hand. A misspelt setting is stored as it is
/// written, and its value is the secret all the same.
const TYPED: [&str; 4] = ["password", "community", "auth_password", "priv_password"];

/// Whether a field of this name holds a secret: a password, a community, a
/// key of SNMPv3; one whose name is misspelt too.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "pass"
        || name == "key"
        || name.ends_with("_key")
        || name.ends_with("_pass")
        || [
            "password",
            "passwd",
            "passphrase",
            "secret",
            "community",
            "token",
            "privkey",
            "authkey",
        ]
        .iter()
        .any(|word| name.contains(word))
        || TYPED.iter().any(|known| is_slip(&name, known))
}

/// Whether a secret stands anywhere in a JSON value.
pub(crate) fn has_secret(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let empty = value.is_null() || value.as_str() == Some("");
            (is_secret(name) && !empty) || has_secret(value)
        }),
        Value::Array(items) => items.iter().any(has_secret),
        _ => false,
    }
}

/// A JSON value, one level deep. Objects keep their order.
enum Level {
    Object(Vec<(String, Box<RawValue>)>),
    Array(Vec<Box<RawValue>>),
    Text(String),
    /// A number, true, false or null.
    Plain,
}

impl Level {
    fn of(json: &str) -> Result<Self, serde_json::Error> {
        Ok(match json.trim_start().as_bytes().first() {
            Some(b'{') => Self::Object(serde_json::from_str::<Members>(json)?.0),
            Some(b'[') => Self::Array(serde_json::from_str(json)?),
            Some(b'"') => Self::Text(serde_json::from_str(json)?),
            _ => Self::Plain,
        })
    }
}

/// A JSON text with its secrets masked; an empty one stays empty, to show
/// that there is none.
pub(crate) fn mask(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    // Only the database's own JSON comes here. What it cannot be is hidden.
    if write(json, None, "", &mut Masking::Mask, &mut out).is_err() {
        return format!("\"{MASK}\"");
    }
    out
}

/// The JSON text of a client with the masked secrets of `stored` put back.
///
/// # Errors
/// Each mask for which nothing is stored, and each text that the database
/// cannot hold; fields are named from `field` on.
pub(crate) fn restore(
    json: &str,
    stored: Option<&str>,
    field: &str,
) -> Result<String, Vec<FieldError>> {
    let mut out = String::with_capacity(json.len());
    let mut errors = Vec::new();
    let written = write(
        json,
        stored,
        field,
        &mut Masking::Restore(&mut errors),
        &mut out,
    );
    if let Err(error) = written {
        errors.push(FieldError::new(field, format!("is not JSON: {error}")));
    }
    if errors.is_empty() {
        Ok(out)
    } else {
        Err(errors)
    }
}

enum Masking<'a> {
    Mask,
    Restore(&'a mut Vec<FieldError>),
}

fn write(
    json: &str,
    stored: Option<&str>,
    field: &str,
    masking: &mut Masking<'_>,
    out: &mut String,
) -> Result<(), serde_json::Error> {
    match Level::of(json)? {
        Level::Plain => out.push_str(json.trim()),
        Level::Text(text) => {
            if let Masking::Restore(errors) = masking {
                if text.contains('\0') {
                    errors.push(FieldError::new(field, "has a NUL character"));
                }
            }
            out.push_str(json.trim());
        }
        Level::Array(items) => {
            let stored = match stored.map(Level::of).transpose()? {
                Some(Level::Array(items)) => items,
                _ => Vec::new(),
            };
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                let before = stored.get(i).map(|raw| raw.get());
                write(item.get(), before, &format!("{field}[{i}]"), masking, out)?;
            }
            out.push(']');
        }
        Level::Object(members) => {
            let stored = match stored.map(Level::of).transpose()? {
                Some(Level::Object(members)) => members,
                _ => Vec::new(),
            };
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(&serde_json::to_string(name)?);
                out.push_str(": ");
                let before = stored
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, raw)| raw.get());
                let inner = format!("{field}.{name}");
                if let Masking::Restore(errors) = masking {
                    if name.contains('\0') {
                        errors.push(FieldError::new(field, "has a name with a NUL character"));
                    }
                }
                if is_secret(name) {
                    write_secret(value.get(), before, &inner, masking, out)?;
                } else {
                    write(value.get(), before, &inner, masking, out)?;
                }
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_secret(
    json: &str,
    stored: Option<&str>,
    field: &str,
    masking: &mut Masking<'_>,
    out: &mut String,
) -> Result<(), serde_json::Error> {
    let level = Level::of(json)?;
    match masking {
        Masking::Mask => {
            let nothing = json.trim() == "null" || matches!(&level, Level::Text(t) if t.is_empty());
            if nothing {
                out.push_str(json.trim());
            } else {
                out.push('"');
                out.push_str(MASK);
                out.push('"');
            }
            Ok(())
        }
        Masking::Restore(errors) if matches!(&level, Level::Text(text) if text == MASK) => {
            match stored {
                Some(stored) => out.push_str(stored),
                None => {
                    errors.push(FieldError::new(
                        field,
                        "is masked, and no secret is stored that it could stand for",
                    ));
                }
            }
            Ok(())
        }
        Masking::Restore(_) => write(json, stored, field, masking, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_numbers_keep_their_digits() {
        for (json, masked) in [
            (
                r#"{"pjlink": {"password": "admin", "port": 4352}}"#,
                r#"{"pjlink": {"password": "***", "port": 4352}}"#,
            ),
            (
                r#"{"snmp": {"community": "s3", "auth_key": "k", "privKey": "x", "version": "3"}}"#,
                r#"{"snmp": {"community": "***", "auth_key": "***", "privKey": "***", "version": "3"}}"#,
            ),
            (
                r#"{"snmp": {"v3": {"user": "u", "auth_protocol": "MD5", "auth_password": "a", "priv_protocol": "DES", "priv_password": "p"}}}"#,
                r#"{"snmp": {"v3": {"user": "u", "auth_protocol": "MD5", "auth_password": "***", "priv_protocol": "DES", "priv_password": "***"}}}"#,
            ),
            (
                r#"{"x": [{"Token": {"a": 1}}, 123456789012345678901234567890, 1.0], "password": ""}"#,
                r#"{"x": [{"Token": "***"}, 123456789012345678901234567890, 1.0], "password": ""}"#,
            ),
            (
                r#"{"password": null, "monkey": "no"}"#,
                r#"{"password": null, "monkey": "no"}"#,
            ),
            (
                r#"{"pjlink": {"pasword": "admin", "prot": 4352}, "snmp": {"Comunity": "c", "v3": {"auth_pasword": "a", "auth_protcol": "SHA"}}}"#,
                r#"{"pjlink": {"pasword": "***", "prot": 4352}, "snmp": {"Comunity": "***", "v3": {"auth_pasword": "***", "auth_protcol": "SHA"}}}"#,
            ),
            ("null", "null"),
            ("{}", "{}"),
        ] {
            assert_eq!(mask(json), masked);
        }
        assert_eq!(mask("{broken"), "\"***\"");
    }

    #[test]
    fn a_mask_keeps_the_stored_secret() {
        let stored = r#"{"pjlink": {"password": "admin", "port": 1}, "list": [{"key": 7}]}"#;
        for (sent, kept) in [
            (
                r#"{"pjlink":{"password":"***","port":2},"list":[{"key":"***"}]}"#,
                r#"{"pjlink": {"password": "admin", "port": 2}, "list": [{"key": 7}]}"#,
            ),
            (
                r#"{"pjlink":{"password":"new"}}"#,
                r#"{"pjlink": {"password": "new"}}"#,
            ),
            (r#"{"pjlink":{"port":1e2}}"#, r#"{"pjlink": {"port": 1e2}}"#),
            // A mask elsewhere is a text like any other.
            (r#"{"note":"***"}"#, r#"{"note": "***"}"#),
        ] {
            assert_eq!(restore(sent, Some(stored), "driver_config").unwrap(), kept);
        }
    }

    #[test]
    fn what_cannot_be_stored_is_named() {
        for (sent, said) in [
            (
                r#"{"snmp":{"community":"***"}}"#,
                "driver_config.snmp.community: is masked, and no secret is stored that it could stand for",
            ),
            (
                r#"{"a":["x\u0000"]}"#,
                "driver_config.a[0]: has a NUL character",
            ),
            (
                r#"{"a\u0000":1}"#,
                "driver_config: has a name with a NUL character",
            ),
        ] {
            let errors = restore(sent, None, "driver_config").unwrap_err();
            assert_eq!(errors[0].to_string(), said);
        }
        assert!(restore(r#"{"a":"\ud800"}"#, None, "x").is_err());
    }
}
