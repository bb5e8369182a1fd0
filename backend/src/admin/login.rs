//! Log-in, log-out, and the first user.

use av_proto::FieldError;
use av_proto::text::one_line;
use av_service::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::Admin;
use super::access::{self, Access};
use super::context::{Request, Role};
use super::input::{check_name, invalid, invalid_field, read_json};
use super::password::{self, Busy, Turn};
use crate::answer::Answer;
use crate::store::StoreError;
use crate::store::actor::Actor;
use crate::store::attempts::{Attempt, Try};
use crate::store::sites::TokenDigest;
use crate::url::{Query, encode};

/// The most characters of a user's name.
pub(super) const NAME_MAX: usize = 100;

/// Says what is wrong with the name of a user.
///
/// # Errors
/// The field `name`.
pub fn check_user_name(name: &str) -> Result<(), FieldError> {
    let mut errors = Vec::new();
    check_name(&mut errors, "name", name, NAME_MAX);
    errors.pop().map_or(Ok(()), Err)
}

/// `POST /login`, `POST /logout`, `POST /setup/{code}`; the pages before them
/// are the web interface's.
pub(super) fn route(
    admin: &Admin,
    request: &Request<'_>,
    access: &Access,
    body: &[u8],
) -> Option<Answer> {
    if request.method != Method::Post {
        return match request.path.as_slice() {
            ["logout"] => Some(only_post()),
            ["login"] | ["setup", _] if request.method != Method::Get => Some(
                Answer::error(405, "only GET, HEAD and POST are allowed here")
                    .with("Allow", "GET, HEAD, POST"),
            ),
            _ => None,
        };
    }
    let answer = match request.path.as_slice() {
        ["login"] => log_in(admin, request, body),
        ["logout"] => log_out(admin, request, access, body),
        ["setup", code] => set_up(admin, request, code, body),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn only_post() -> Answer {
    Answer::error(405, "only POST is allowed here").with("Allow", "POST")
}

/// A name and a password, from a form or as JSON.
#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    /// The page to show next, of a form.
    #[serde(skip)]
    next: Option<String>,
    #[serde(skip)]
    by_form: bool,
}

impl Credentials {
    fn read(request: &Request<'_>, body: &[u8]) -> Result<Self, Answer> {
        if request.headers.media_type() != "application/x-www-form-urlencoded" {
            return read_json(body);
        }
        let form = std::str::from_utf8(body)
            .ok()
            .and_then(Query::parse)
            .ok_or_else(|| Answer::error(400, "the form is not UTF-8"))?;
        let field = |name: &str| form.get(name).unwrap_or_default().to_owned();
        Ok(Self {
            name: field("name"),
            password: field("password"),
            next: form.get("next").map(str::to_owned),
            by_form: true,
        })
    }
}

fn log_in(admin: &Admin, request: &Request<'_>, body: &[u8]) -> Result<Answer, Answer> {
    access::check_page(admin, request)?;
    let given = Credentials::read(request, body)?;
    let name = given.name.trim();
    let ip = admin.address(request);
    let refuse = |status: u16, word: &str, said: &str| {
        if given.by_form {
            let next = given
                .next
                .as_deref()
                .map_or_else(String::new, |next| format!("&next={}", encode(next)));
            Answer::see_other(format!("/login?error={word}{next}"))
        } else {
            Answer::error(status, said)
        }
    };
    if name.is_empty() || name.chars().count() > NAME_MAX || name.contains('\0') {
        return Ok(refuse(
            401,
            "credentials",
            "the name or the password is wrong",
        ));
    }
    // The same counter however a name is spelled.
    let counted = name.to_lowercase();
    let turn = match begin_password(admin, &counted, &ip) {
        Ok(turn) => turn,
        Err(NoTurn::Blocked(seconds)) => {
            if admin.news.is_news(&format!("log-ins from {ip}")) {
                log::warn!(
                    "too many log-ins failed for {} from {ip}; more are answered with 429",
                    one_line(name)
                );
            }
            let said = format!("too many log-ins failed; try again in {seconds} s");
            return Ok(refuse(429, "blocked", &said).with("Retry-After", seconds.to_string()));
        }
        Err(NoTurn::Busy(busy)) => {
            return Ok(refuse(503, "busy", &busy.to_string())
                .with("Retry-After", Busy::RETRY_AFTER_S.to_string()));
        }
        Err(NoTurn::Store(error)) => return Err(error.into()),
    };
    let known = admin.store.password_hash(name)?;
    let stored = known.as_ref().map(|(_, hash)| hash.as_str());
    let right = turn.verify(&given.password, stored);
    drop(turn);
    let (Some((user_id, _)), true) = (known, right) else {
        log::warn!("a log-in failed for {} from {ip}", one_line(name));
        return Ok(refuse(
            401,
            "credentials",
            "the name or the password is wrong",
        ));
    };
    let cookie = new_secret("")?;
    let actor = Actor {
        name: name.to_owned(),
        origin: "web",
        ip,
    };
    let digest = TokenDigest::of(&cookie);
    admin
        .store
        .start_session(&actor, user_id, &counted, &digest)?;
    admin.known.add_person(&digest);
    let answer = if given.by_form {
        Answer::see_other(local_path(given.next.as_deref()))
    } else {
        let role = admin
            .store
            .user(user_id)?
            .map_or(Role::Viewer, |user| user.role);
        Answer::json(
            200,
            &json!({"id": user_id, "name": name, "role": role, "csrf": access::csrf_token(&cookie)}),
        )
    };
    Ok(answer.with("Set-Cookie", admin.set_cookie(&cookie)))
}

/// Why a password is not looked at.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// Too many failed: not before this number of seconds is over.
    Blocked(i64),
    /// Too many others are being looked at.
    Busy(Busy),
    /// The database does not answer.
    Store(StoreError),
}

impl From<StoreError> for NoTurn {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Takes the turn to look at a password, and counts the try. One that is
/// refused costs no hash, no lock and no write.
pub(super) fn begin_password<'a>(
    admin: &'a Admin,
    user: &str,
    ip: &str,
) -> Result<Turn<'a>, NoTurn> {
    let what = Try::Password(user);
    let allowed = |attempt| match attempt {
        Attempt::Allowed => Ok(()),
        Attempt::Blocked(seconds) => Err(NoTurn::Blocked(seconds)),
    };
    allowed(admin.store.may_try(what, ip)?)?;
    let turn = admin.passwords.turn().map_err(NoTurn::Busy)?;
    allowed(admin.store.begin_try(what, ip)?)?;
    Ok(turn)
}

fn log_out(
    admin: &Admin,
    request: &Request<'_>,
    access: &Access,
    body: &[u8],
) -> Result<Answer, Answer> {
    if let Some(caller) = access.caller() {
        access::check_forgery(admin, request, caller, body)?;
    }
    if let Some(cookie) = admin.cookie(&request.headers) {
        admin.store.end_session(&TokenDigest::of(cookie))?;
    }
    let answer = if request.headers.media_type() == "application/x-www-form-urlencoded" {
        Answer::see_other("/login")
    } else {
        Answer::done()
    };
    Ok(answer.with("Set-Cookie", admin.set_cookie("")))
}

fn set_up(admin: &Admin, request: &Request<'_>, code: &str, body: &[u8]) -> Result<Answer, Answer> {
    access::check_page(admin, request)?;
    let digest = TokenDigest::of(code);
    let gone = || Answer::error(404, "this link does not work, or not any more");
    if !admin.store.setup_link_works(&digest)? {
        return Err(gone());
    }
    let given = Credentials::read(request, body)?;
    let name = given.name.trim();
    let mut errors = Vec::new();
    check_name(&mut errors, "name", name, NAME_MAX);
    errors.extend(password::check(name, &given.password).err());
    if !errors.is_empty() {
        if given.by_form {
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            return Ok(Answer::see_other(format!(
                "/setup/{}?error={}",
                encode(code),
                fields.join(",")
            )));
        }
        return Err(invalid(&errors));
    }
    let hash = hash_password(admin, &given.password)?;
    let cookie = new_secret("")?;
    let actor = Actor {
        name: name.to_owned(),
        origin: "web",
        ip: admin.address(request),
    };
    let user = admin
        .store
        .set_up(&digest, &actor, &hash, &TokenDigest::of(&cookie))?
        .ok_or_else(gone)?;
    log::info!("the first user is made: {}", one_line(&user.name));
    let answer = if given.by_form {
        Answer::see_other("/")
    } else {
        Answer::json(
            201,
            &json!({"id": user.id, "name": user.name, "role": user.role,
                    "csrf": access::csrf_token(&cookie)}),
        )
    };
    Ok(answer.with("Set-Cookie", admin.set_cookie(&cookie)))
}

/// Hashes a password that was checked.
pub(super) fn hash_password(admin: &Admin, password: &str) -> Result<String, Answer> {
    admin.passwords.turn()?.hash(password).map_err(|error| {
        log::error!("{error}");
        Answer::error(500, "the password could not be hashed")
    })
}

/// A secret of 256 random bits, in hex behind a prefix.
pub(super) fn new_secret(prefix: &str) -> Result<String, Answer> {
    random_hex()
        .map(|hex| format!("{prefix}{hex}"))
        .map_err(|error| {
            log::error!("no random numbers: {error}");
            Answer::error(500, "the operating system gives no random numbers")
        })
}

/// 256 random bits, in hex.
pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    use std::fmt::Write as _;
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The page to show next: one of ours, never another site's.
fn local_path(next: Option<&str>) -> String {
    match next {
        Some(path)
            if path.starts_with('/')
                && !path.starts_with("//")
                && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') =>
        {
            path.to_owned()
        }
        _ => "/".to_owned(),
    }
}

/// A password that a user chooses, checked and hashed.
pub(super) fn chosen_password(
    admin: &Admin,
    user_name: &str,
    given: &str,
) -> Result<String, Answer> {
    password::check(user_name, given)
        .map_err(|error| invalid_field(&error.field, error.problem))?;
    hash_password(admin, given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_come_next() {
        for (next, page) in [
            (None, "/"),
            (Some("/sites/3?x=1"), "/sites/3?x=1"),
            (Some("//evil.example"), "/"),
            (Some("/\\evil.example"), "/"),
            (Some("https://evil.example"), "/"),
            (Some("/a\r\nSet-Cookie: x"), "/"),
            (Some("/é"), "/"),
        ] {
            assert_eq!(local_path(next), page, "{next:?}");
        }
    }

    #[test]
    fn secrets_have_256_bits() {
        let secret = random_hex().unwrap();
        assert_eq!(secret.len(), 64);
        assert_ne!(secret, random_hex().unwrap());
    }
}
