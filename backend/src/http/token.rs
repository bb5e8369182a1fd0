//! `POST /token/renew`: an agent whose token was renewed fetches another.

use av_proto::text::one_line;
use serde_json::json;

use super::site_token::CHALLENGE;
use crate::admin::random_hex;
use crate::answer::Answer;
use crate::guesses::Guess;
use crate::store::Store;
use crate::store::sites::TokenDigest;
use crate::store::tokens::Fetch;

/// Answers with a token of the agent's own. The one that it came with opens
/// the site until the new one is first used, or its grace is over: an answer
/// that is lost on the way cuts nobody off.
pub(super) fn renew(store: &Store, presented: Guess<'_>) -> Answer {
    let token = match random_hex() {
        Ok(token) => token,
        Err(error) => {
            log::error!("no random numbers: {error}");
            return Answer::error(500, "the system has no random numbers");
        }
    };
    match store.fetch_site_token(
        &TokenDigest::of(presented.token()),
        &TokenDigest::of(&token),
    ) {
        Ok(Fetch::Fetched { site, old_until }) => {
            presented.right();
            log::info!("the agent of site {} fetches a new token", one_line(&site));
            Answer::json(
                200,
                &json!({"site_token": token, "old_valid_until": old_until}),
            )
        }
        Ok(Fetch::NotAsked) => {
            presented.right();
            Answer::error(409, "nobody asked for another token")
        }
        Ok(Fetch::Unknown) => presented.wrong(
            Answer::error(401, "X-Site-Token is missing or wrong")
                .with("WWW-Authenticate", CHALLENGE),
        ),
        Err(error) => error.into(),
    }
}
