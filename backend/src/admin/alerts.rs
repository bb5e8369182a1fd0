//! Routes of alerts.

use super::Admin;
use super::context::Call;
use crate::answer::Answer;

/// Answers where the path is one of these; `None` where it is not.
pub(super) fn route(_admin: &Admin, _call: &Call<'_>) -> Option<Answer> {
    None
}
