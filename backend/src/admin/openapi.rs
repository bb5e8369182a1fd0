//! `GET /openapi.json`: the API described for programs. A test compares it
//! with the routes.

use av_service::http::Method;

use super::context::Request;
use crate::answer::Answer;

const DOCUMENT: &[u8] = include_bytes!("openapi.json");

/// Answers where the path is `/openapi.json`.
pub(super) fn route(request: &Request<'_>) -> Option<Answer> {
    if request.path != ["openapi.json"] {
        return None;
    }
    Some(if request.method == Method::Get {
        Answer::embedded("application/json", DOCUMENT)
    } else {
        Answer::error(405, "only GET, HEAD are allowed here").with("Allow", "GET, HEAD")
    })
}
