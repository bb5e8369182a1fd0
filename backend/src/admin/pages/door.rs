//! Log-in, and the first user.

use askama::Template;

use super::i18n::Lang;
use super::{Admin, Request, show};
use crate::answer::Answer;
use crate::store::Condition;
use crate::store::sites::TokenDigest;

#[derive(Template)]
#[template(path = "door.html")]
struct Door<'a> {
    lang: Lang,
    /// The code of a set-up link; `None` to log in.
    setup: Option<&'a str>,
    name: &'a str,
    problem: String,
    next: &'a str,
}

#[derive(Template)]
#[template(path = "gone.html")]
struct Gone {
    lang: Lang,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct Waiting {
    lang: Lang,
    text: String,
}

/// In place of any page while the database cannot be used.
pub(super) fn waiting(request: &Request<'_>, condition: &Condition) -> Answer {
    let lang = lang(request);
    let text = match condition {
        Condition::Migrating(_) => lang.t("waiting.migration").to_owned(),
        Condition::Blocked(_) | Condition::Foreign { .. } => lang.t("waiting.failed").to_owned(),
        Condition::Incomplete(what) => lang.with("waiting.incomplete", what),
        Condition::Unreachable(_) | Condition::Ready { .. } => lang.t("error.store").to_owned(),
    };
    show(503, &Waiting { lang, text })
}

fn lang(request: &Request<'_>) -> Lang {
    Lang::accepted(request.headers.get("accept-language"))
}

/// `GET /login`.
pub(super) fn log_in(request: &Request<'_>) -> Answer {
    let lang = lang(request);
    let problem = match request.query.get("error") {
        Some("blocked") => lang.t("login.blocked"),
        Some("busy") => lang.t("login.busy"),
        Some(_) => lang.t("login.wrong"),
        None => "",
    };
    show(
        200,
        &Door {
            lang,
            setup: None,
            name: "",
            problem: problem.to_owned(),
            next: request.query.get("next").unwrap_or_default(),
        },
    )
}

/// `GET /setup/{code}`.
pub(super) fn set_up(admin: &Admin, request: &Request<'_>, code: &str) -> Answer {
    let lang = lang(request);
    match admin.store.setup_link_works(&TokenDigest::of(code)) {
        Ok(true) => {}
        Ok(false) => return show(404, &Gone { lang }),
        Err(error) => return error.into(),
    }
    let problem: Vec<&str> = request
        .query
        .get("error")
        .unwrap_or_default()
        .split(',')
        .filter_map(|field| match field {
            "name" => Some(lang.t("setup.name")),
            "password" => Some(lang.t("setup.password")),
            _ => None,
        })
        .collect();
    show(
        200,
        &Door {
            lang,
            setup: Some(code),
            name: "",
            problem: problem.join(" "),
            next: "",
        },
    )
}
