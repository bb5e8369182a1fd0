//! One's own account: the password, and API tokens.

use askama::Template;

use super::html::Frame;
use super::{Admin, Call, Problem, frame, show};
use crate::answer::Answer;
use crate::store::sessions::ApiToken;

#[derive(Template)]
#[template(path = "account.html")]
struct Page {
    f: Frame,
    tokens: Vec<ApiToken>,
}

/// `GET /account`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let tokens = admin.store.api_tokens(call.caller.user_id)?;
    let f = frame(call, "account");
    Ok(show(200, &Page { f, tokens }))
}
