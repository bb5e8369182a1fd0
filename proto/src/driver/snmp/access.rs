//! Who asks: `version`, `community` and `v3`.

use serde::Deserialize;
use serde_json::Value;

use crate::FieldError;
use crate::secret::Secret;

/// RFC 3414, 11.2.
const PASSWORD_MIN: usize = 8;
/// `SnmpAdminString` of a user's name (RFC 3414, 5).
const USER_MAX: usize = 32;
/// `SnmpAdminString` (RFC 3411, 5).
const CONTEXT_MAX: usize = 255;

/// The version of SNMP, and what opens the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnmpAccess {
    /// Version 1 (RFC 1157).
    V1 {
        /// Sent in clear.
        community: Secret,
    },
    /// Version 2c (RFC 1901).
    V2c {
        /// Sent in clear.
        community: Secret,
    },
    /// Version 3 with the user-based security model (RFC 3414).
    V3(SnmpUser),
}

/// A user of version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpUser {
    /// At most 32 bytes; sent in clear.
    pub name: String,
    /// `""` is the default context.
    pub context: String,
    /// What protects the messages.
    pub security: SnmpSecurity,
}

/// A security level of RFC 3411, 3.4.3, with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnmpSecurity {
    /// Nothing is protected.
    NoAuthNoPriv,
    /// Messages are authentic and may be read by anybody.
    AuthNoPriv(SnmpAuth),
    /// Messages are authentic and encrypted.
    AuthPriv(SnmpAuth, SnmpPriv),
}

/// How messages are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpAuth {
    /// The protocol.
    pub hash: SnmpHash,
    /// At least 8 characters.
    pub password: Secret,
}

/// How messages are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnmpPriv {
    /// The protocol.
    pub cipher: SnmpCipher,
    /// At least 8 characters.
    pub password: Secret,
}

/// An authentication protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnmpHash {
    /// HMAC-MD5-96 (RFC 3414, 6).
    Md5,
    /// HMAC-SHA-96 (RFC 3414, 7).
    Sha1,
    /// HMAC-128-SHA-224 (RFC 7860).
    Sha224,
    /// HMAC-192-SHA-256 (RFC 7860).
    Sha256,
    /// HMAC-256-SHA-384 (RFC 7860).
    Sha384,
    /// HMAC-384-SHA-512 (RFC 7860).
    Sha512,
}

impl SnmpHash {
    /// Each with the name that the configuration has for it.
    pub const ALL: [(&'static str, Self); 6] = [
        ("MD5", Self::Md5),
        ("SHA-1", Self::Sha1),
        ("SHA-224", Self::Sha224),
        ("SHA-256", Self::Sha256),
        ("SHA-384", Self::Sha384),
        ("SHA-512", Self::Sha512),
    ];

    fn named(text: &str) -> Option<Self> {
        match plain(text).as_str() {
            // net-snmp's and most devices' name for it.
            "SHA" => Some(Self::Sha1),
            word => find(&Self::ALL, word),
        }
    }
}

/// A privacy protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnmpCipher {
    /// CBC-DES (RFC 3414, 8).
    Des,
    /// CFB128-AES-128 (RFC 3826).
    Aes128,
    /// AES with a key of 192 bits, lengthened as the Blumenthal draft has it:
    /// no RFC says how, and this is what net-snmp does.
    Aes192,
    /// AES with a key of 256 bits, lengthened in the same way.
    Aes256,
}

impl SnmpCipher {
    /// Each with the name that the configuration has for it.
    pub const ALL: [(&'static str, Self); 4] = [
        ("DES", Self::Des),
        ("AES-128", Self::Aes128),
        ("AES-192", Self::Aes192),
        ("AES-256", Self::Aes256),
    ];

    fn named(text: &str) -> Option<Self> {
        match plain(text).as_str() {
            "AES" => Some(Self::Aes128),
            word => find(&Self::ALL, word),
        }
    }
}

/// Without hyphens and in upper case: "sha-256", "SHA256".
fn plain(text: &str) -> String {
    let kept = text.chars().filter(|c| !matches!(c, '-' | '_' | ' '));
    kept.collect::<String>().to_ascii_uppercase()
}

fn find<T: Copy>(all: &[(&str, T)], word: &str) -> Option<T> {
    let found = all.iter().find(|(name, _)| plain(name) == word);
    found.map(|(_, it)| *it)
}

#[derive(Deserialize)]
pub(super) struct Document {
    user: Option<String>,
    level: Option<String>,
    auth_protocol: Option<String>,
    auth_password: Option<Secret>,
    priv_protocol: Option<String>,
    priv_password: Option<Secret>,
    context: Option<String>,
}

/// What the three fields say together; `None` where `errors` says why not.
/// The fields of a version that is not the chosen one are not looked at, so
/// that a form can keep them.
pub(super) fn validate(
    version: Option<&Value>,
    community: Option<Secret>,
    v3: Option<Document>,
    errors: &mut Vec<FieldError>,
) -> Option<SnmpAccess> {
    let word = version.map(|version| {
        version.as_str().map_or_else(
            || version.to_string(),
            |text| text.trim().to_ascii_lowercase(),
        )
    });
    let word = word
        .as_deref()
        .map(|word| word.strip_prefix('v').unwrap_or(word));
    match word {
        Some("1") => {
            validate_community(community, errors).map(|community| SnmpAccess::V1 { community })
        }
        None | Some("2" | "2c") => {
            validate_community(community, errors).map(|community| SnmpAccess::V2c { community })
        }
        Some("3") => match v3 {
            Some(document) => document
                .validate()
                .map_err(|bad| errors.extend(bad.into_iter().map(|error| error.under("v3"))))
                .ok()
                .map(SnmpAccess::V3),
            None => {
                errors.push(FieldError::new("v3", "is missing, and version is 3"));
                None
            }
        },
        Some(_) => {
            // `null` too: a version that is written must be one.
            let shown = version.map(ToString::to_string).unwrap_or_default();
            errors.push(FieldError::new(
                "version",
                format!("{shown} is not \"1\", \"2c\" or \"3\""),
            ));
            validate_community(community, errors);
            None
        }
    }
}

fn validate_community(community: Option<Secret>, errors: &mut Vec<FieldError>) -> Option<Secret> {
    let community = community.unwrap_or_else(|| Secret::new("public"));
    if community.expose().is_empty() {
        errors.push(FieldError::new("community", "is empty"));
        return None;
    }
    Some(community)
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Level {
    Open,
    Auth,
    AuthAndPriv,
}

impl Document {
    fn validate(self) -> Result<SnmpUser, Vec<FieldError>> {
        let mut errors = Vec::new();
        let name = self.user.unwrap_or_default();
        if name.is_empty() {
            errors.push(FieldError::new("user", "is missing"));
        } else if name.len() > USER_MAX {
            errors.push(FieldError::new(
                "user",
                format!("is longer than {USER_MAX} bytes"),
            ));
        }
        let context = self.context.unwrap_or_default();
        if context.len() > CONTEXT_MAX {
            errors.push(FieldError::new(
                "context",
                format!("is longer than {CONTEXT_MAX} bytes"),
            ));
        }
        // An empty field of a form is an absent one.
        let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let secret = |secret: Option<Secret>| secret.filter(|it| !it.expose().is_empty());
        let (auth_password, priv_password) =
            (secret(self.auth_password), secret(self.priv_password));
        let level = match given(self.level) {
            // The most that the passwords allow.
            None => match (&auth_password, &priv_password) {
                (_, Some(_)) => Some(Level::AuthAndPriv),
                (Some(_), None) => Some(Level::Auth),
                (None, None) => Some(Level::Open),
            },
            Some(text) => match plain(&text).as_str() {
                "NOAUTHNOPRIV" => Some(Level::Open),
                "AUTHNOPRIV" => Some(Level::Auth),
                "AUTHPRIV" => Some(Level::AuthAndPriv),
                _ => {
                    errors.push(FieldError::new(
                        "level",
                        format!("{text:?} is not noAuthNoPriv, authNoPriv or authPriv"),
                    ));
                    None
                }
            },
        };
        let mut auth = || {
            let hash = protocol(
                "auth_protocol",
                given(self.auth_protocol.clone()),
                SnmpHash::named,
                &SnmpHash::ALL,
                &mut errors,
            );
            let password = password("auth_password", auth_password.clone(), &mut errors);
            Some(SnmpAuth {
                hash: hash?,
                password: password?,
            })
        };
        let security = match level {
            None => None,
            Some(Level::Open) => Some(SnmpSecurity::NoAuthNoPriv),
            Some(Level::Auth) => auth().map(SnmpSecurity::AuthNoPriv),
            Some(Level::AuthAndPriv) => {
                let auth = auth();
                let cipher = protocol(
                    "priv_protocol",
                    given(self.priv_protocol.clone()),
                    SnmpCipher::named,
                    &SnmpCipher::ALL,
                    &mut errors,
                );
                let password = password("priv_password", priv_password.clone(), &mut errors);
                match (auth, cipher, password) {
                    (Some(auth), Some(cipher), Some(password)) => {
                        Some(SnmpSecurity::AuthPriv(auth, SnmpPriv { cipher, password }))
                    }
                    _ => None,
                }
            }
        };
        match security {
            Some(security) if errors.is_empty() => Ok(SnmpUser {
                name,
                context,
                security,
            }),
            _ => Err(errors),
        }
    }
}

fn protocol<T: Copy>(
    field: &str,
    given: Option<String>,
    named: fn(&str) -> Option<T>,
    all: &[(&str, T)],
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    let known = || {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let Some(text) = given else {
        errors.push(FieldError::new(
            field,
            format!("is missing: one of {}", known()),
        ));
        return None;
    };
    let found = named(&text);
    if found.is_none() {
        errors.push(FieldError::new(
            field,
            format!("{text:?} is not one of {}", known()),
        ));
    }
    found
}

fn password(field: &str, given: Option<Secret>, errors: &mut Vec<FieldError>) -> Option<Secret> {
    match given {
        None => {
            errors.push(FieldError::new(field, "is missing"));
            None
        }
        Some(secret) if secret.expose().len() < PASSWORD_MIN => {
            errors.push(FieldError::new(
                field,
                format!("is shorter than {PASSWORD_MIN} characters"),
            ));
            None
        }
        Some(secret) => Some(secret),
    }
}
