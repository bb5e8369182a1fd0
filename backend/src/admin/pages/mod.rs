//! The pages of the web interface.

use super::Admin;
use super::context::{Call, Request};
use crate::answer::Answer;

/// A page or file for anybody: `GET /login`, `GET /setup/{code}`, style sheets
/// and scripts. `None` where the path is none of these.
pub(super) fn public(_admin: &Admin, _request: &Request<'_>) -> Option<Answer> {
    None
}

/// A page for a user who is logged in; `None` where there is none at the path.
pub(super) fn route(_admin: &Admin, _call: &Call<'_>) -> Option<Answer> {
    None
}
