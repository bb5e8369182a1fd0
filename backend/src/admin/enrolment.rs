//! The first enrolment of an agent, without a file edited in the rack: a code
//! that an editor reads out, and the token that an agent gets for it.

use av_proto::text::one_line;
use av_service::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::context::{Call, Request};
use super::input::{id, read_json};
use super::login::new_secret;
use super::{Admin, sites};
use crate::answer::Answer;
use crate::store::actor::Actor;
use crate::store::enrolments::Enrolment;
use crate::store::sites::TokenDigest;

/// Letters and digits that nobody takes for another, on paper or read out:
/// without 0, O, 1, I, L and U.
const ALPHABET: &[u8; 30] = b"23456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 30^10 codes: 49 bits.
const CODE_LENGTH: usize = 10;

/// Answers where the path is `sites/{id}/enrolment`.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let ["sites", site, "enrolment"] = call.path else {
        return None;
    };
    let site = id(site).unwrap_or_default();
    let answer = match call.method {
        Method::Get => show(admin, site),
        Method::Post => open(admin, call, site),
        _ => Err(call.only("GET, HEAD, POST")),
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn show(admin: &Admin, site: i64) -> Result<Answer, Answer> {
    sites::find(admin, site)?;
    let until = admin.store.enrolment_open_until(site)?;
    Ok(Answer::json(200, &json!({ "valid_until": until })))
}

fn open(admin: &Admin, call: &Call<'_>, site: i64) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {}
    if !call.body.trim_ascii().is_empty() {
        read_json::<Body>(call.body)?;
    }
    let code = new_code().map_err(|error| {
        log::error!("no random numbers: {error}");
        Answer::error(500, "the operating system gives no random numbers")
    })?;
    let until = admin
        .store
        .open_enrolment(&call.caller.actor(), site, &TokenDigest::of(&code))?
        .ok_or_else(sites::unknown)?;
    log::info!("site {site} has a code with which its agent can enrol");
    let (first, second) = code.split_at(CODE_LENGTH / 2);
    // Shown this once: only its digest is kept.
    Ok(Answer::json(
        201,
        &json!({"code": format!("{first}-{second}"), "valid_until": until}),
    ))
}

/// `POST /enroll`, of an agent that has no token yet.
pub(super) fn enrol(admin: &Admin, request: &Request<'_>, body: &[u8]) -> Option<Answer> {
    if request.path != ["enroll"] {
        return None;
    }
    if request.method != Method::Post {
        return Some(Answer::error(405, "only POST is allowed here").with("Allow", "POST"));
    }
    Some(take(admin, request, body).unwrap_or_else(|refusal| refusal))
}

fn take(admin: &Admin, request: &Request<'_>, body: &[u8]) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    struct Body {
        code: String,
    }
    let given: Body = read_json(body)?;
    let actor = Actor {
        name: "agent".to_owned(),
        origin: "enrolment",
        ip: admin.address(request),
    };
    let token = new_secret("")?;
    // What cannot be a code is counted as a wrong one: no text tells more
    // than another.
    let code = TokenDigest::of(&typed(&given.code));
    match admin.store.enrol(&actor, &code, &TokenDigest::of(&token))? {
        Enrolment::Done { site_id, site } => {
            admin.known.add_agent(&TokenDigest::of(&token));
            log::info!(
                "the agent of site {site_id} ({}) enrols from {}",
                one_line(&site),
                actor.ip
            );
            Ok(Answer::json(
                200,
                &json!({"site_name": site, "site_token": token}),
            ))
        }
        Enrolment::Unknown => {
            log::warn!(
                "somebody tried to enrol with a wrong code from {}",
                actor.ip
            );
            Err(Answer::error(
                404,
                "this code is wrong, was used, or its 15 minutes are over",
            ))
        }
        Enrolment::Blocked(seconds) => {
            log::warn!("too many wrong codes: {} may not enrol now", actor.ip);
            Err(Answer::error(
                429,
                &format!("too many codes were wrong; try again in {seconds} s"),
            )
            .with("Retry-After", seconds.to_string()))
        }
    }
}

/// A code as it is kept, from one as somebody typed it.
fn typed(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(2 * CODE_LENGTH)
        .map(|c| c.to_ascii_uppercase())
        .collect()
}

fn new_code() -> Result<String, getrandom::Error> {
    let mut code = String::with_capacity(CODE_LENGTH);
    while code.len() < CODE_LENGTH {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        code.extend(bytes.iter().filter_map(|byte| letter(*byte)));
        code.truncate(CODE_LENGTH);
    }
    Ok(code)
}

/// The letter of a random byte; none for those that would make the first
/// letters likelier than the last.
fn letter(byte: u8) -> Option<char> {
    let length = u8::try_from(ALPHABET.len()).ok()?;
    let fair = u8::MAX - u8::MAX % length;
    (byte < fair)
        .then(|| ALPHABET.get(usize::from(byte % length)))
        .flatten()
        .map(|letter| char::from(*letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_as_likely() {
        let mut counts = [0; 128];
        for byte in 0..=u8::MAX {
            if let Some(letter) = letter(byte) {
                counts[letter as usize] += 1;
            }
        }
        assert!(ALPHABET.iter().all(|l| counts[usize::from(*l)] == 8));
        assert_eq!(counts.iter().sum::<i32>(), 240);
        let code = new_code().unwrap();
        assert_eq!(code.len(), CODE_LENGTH);
        assert_ne!(code, new_code().unwrap());
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for (text, code) in [
            ("ABCDE-23456", "ABCDE23456"),
            (" abcde 23456 ", "ABCDE23456"),
            ("abcde\u{2010}23456", "ABCDE23456"),
            ("", ""),
        ] {
            assert_eq!(typed(text), code);
        }
        assert_eq!(typed(&"A".repeat(10_000)).len(), 20);
    }
}
