//! Users, personal API tokens, one's own account, and the audit log.

use av_proto::FieldError;
use av_service::http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::context::{Call, Role};
use super::input::{check_name, id, invalid, invalid_field, number, optional_id, read_json};
use super::login::{NAME_MAX, NoTurn, begin_password, chosen_password, new_secret};
use super::{Admin, access};
use crate::answer::Answer;
use crate::store::StoreError;
use crate::store::audit::AuditFilter;
use crate::store::sites::TokenDigest;
use crate::store::users::UserRefusal;

/// Answers where the path is `users`, `tokens`, `me` or `audit`.
pub(super) fn route(admin: &Admin, call: &Call<'_>) -> Option<Answer> {
    let answer = match (call.path, &call.method) {
        (["users"], Method::Get) => users(admin),
        (["users"], Method::Post) => add_user(admin, call),
        (["users"], _) => Err(call.only("GET, HEAD, POST")),
        (["users", user], method) => {
            let Some(user) = id(user) else {
                return Some(unknown("user"));
            };
            match method {
                Method::Get => show_user(admin, user),
                Method::Patch => change_user(admin, call, user),
                Method::Delete => remove_user(admin, call, user),
                _ => Err(call.only("GET, HEAD, PATCH, DELETE")),
            }
        }
        (["tokens"], Method::Get) => tokens(admin, call),
        (["tokens"], Method::Post) => add_token(admin, call),
        (["tokens"], _) => Err(call.only("GET, HEAD, POST")),
        (["tokens", token], Method::Delete) => remove_token(admin, call, token),
        (["tokens", _], _) => Err(call.only("DELETE")),
        (["me"], Method::Get) => Ok(me(call)),
        (["me"], _) => Err(call.only("GET, HEAD")),
        (["me", "password"], Method::Put) => change_own_password(admin, call),
        (["me", "password"], _) => Err(call.only("PUT")),
        (["audit"], Method::Get) => audit(admin, call),
        (["audit"], _) => Err(call.only("GET, HEAD")),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| refusal))
}

fn unknown(what: &str) -> Answer {
    Answer::error(404, &format!("there is no such {what}"))
}

fn me(call: &Call<'_>) -> Answer {
    let caller = call.caller;
    Answer::json(
        200,
        &json!({"id": caller.user_id, "name": caller.name, "role": caller.role,
                "csrf": caller.csrf}),
    )
}

fn users(admin: &Admin) -> Result<Answer, Answer> {
    Ok(Answer::json(200, &json!({"users": admin.store.users()?})))
}

fn show_user(admin: &Admin, user: i64) -> Result<Answer, Answer> {
    let user = admin.store.user(user)?.ok_or_else(|| unknown("user"))?;
    Ok(Answer::json(200, &user))
}

fn role(text: &str) -> Result<Role, FieldError> {
    Role::parse(text).ok_or_else(|| FieldError::new("role", "is not viewer, editor or admin"))
}

fn add_user(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        role: String,
        password: String,
    }
    let body: Body = read_json(call.body)?;
    let mut errors = Vec::new();
    check_name(&mut errors, "name", &body.name, NAME_MAX);
    let role = role(&body.role).map_err(|error| errors.push(error)).ok();
    errors.extend(super::password::check(&body.name, &body.password).err());
    let (Some(role), true) = (role, errors.is_empty()) else {
        return Err(invalid(&errors));
    };
    let hash = chosen_password(admin, &body.name, &body.password)?;
    let added = admin
        .store
        .add_user(&call.caller.actor(), &body.name, role, &hash);
    match added {
        Ok(user) => {
            Ok(Answer::json(201, &user).with("Location", format!("/admin/users/{}", user.id)))
        }
        Err(StoreError::Taken(_)) => Err(conflict("name", "is that of another user")),
        Err(error) => Err(error.into()),
    }
}

/// 409, with the field that is taken.
pub(super) fn conflict(field: &str, problem: &str) -> Answer {
    Answer::json(
        409,
        &json!({"error": format!("{field}: {problem}"),
                "fields": [FieldError::new(field, problem)]}),
    )
}

fn refused(refusal: UserRefusal) -> Answer {
    match refusal {
        UserRefusal::Unknown => unknown("user"),
        UserRefusal::LastAdmin => Answer::error(
            409,
            "this is the last administrator: nobody could manage users any more",
        ),
    }
}

fn change_user(admin: &Admin, call: &Call<'_>, user: i64) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        role: Option<String>,
        password: Option<String>,
    }
    let body: Body = read_json(call.body)?;
    let role = body
        .role
        .as_deref()
        .map(role)
        .transpose()
        .map_err(|error| invalid(&[error]))?;
    let name = admin.store.user(user)?.ok_or_else(|| unknown("user"))?.name;
    let hash = body
        .password
        .map(|password| chosen_password(admin, &name, &password))
        .transpose()?;
    let changed = admin.store.change_user(
        &call.caller.actor(),
        user,
        role,
        hash.as_deref(),
        own_session(admin, call, user).as_ref(),
    )?;
    changed
        .map(|user| Answer::json(200, &user))
        .map_err(refused)
}

/// The caller's own session, where the user is the caller: it goes on when
/// the password changes.
fn own_session(admin: &Admin, call: &Call<'_>, user: i64) -> Option<TokenDigest> {
    if user == call.caller.user_id {
        admin.cookie(call.headers).map(TokenDigest::of)
    } else {
        None
    }
}

fn remove_user(admin: &Admin, call: &Call<'_>, user: i64) -> Result<Answer, Answer> {
    admin
        .store
        .remove_user(&call.caller.actor(), user)?
        .map(|()| Answer::done())
        .map_err(refused)
}

fn change_own_password(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        old: String,
        new: String,
    }
    let body: Body = read_json(call.body)?;
    let caller = call.caller;
    // Who stole a session must not be able to try passwords here.
    let counted = caller.name.to_lowercase();
    let turn = begin_password(admin, &counted, &caller.ip).map_err(|refused| match refused {
        NoTurn::Blocked(seconds) => {
            Answer::error(429, &format!("too many tries; try again in {seconds} s"))
                .with("Retry-After", seconds.to_string())
        }
        NoTurn::Busy(busy) => busy.into(),
        NoTurn::Store(error) => error.into(),
    })?;
    let stored = admin.store.password_hash(&caller.name)?;
    let stored = stored.as_ref().map(|(_, hash)| hash.as_str());
    let right = turn.verify(&body.old, stored);
    drop(turn);
    if !right {
        return Err(invalid_field("old", "is not the password"));
    }
    super::password::check(&caller.name, &body.new)
        .map_err(|error| invalid_field("new", error.problem))?;
    let hash = chosen_password(admin, &caller.name, &body.new)?;
    admin.store.forget_attempts(&counted, &caller.ip)?;
    admin
        .store
        .change_user(
            &caller.actor(),
            caller.user_id,
            None,
            Some(&hash),
            own_session(admin, call, caller.user_id).as_ref(),
        )?
        .map(|_| Answer::done())
        .map_err(refused)
}

fn tokens(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let tokens = admin.store.api_tokens(call.caller.user_id)?;
    Ok(Answer::json(200, &json!({"tokens": tokens})))
}

fn add_token(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        expires_in_days: Option<i64>,
    }
    let body: Body = read_json(call.body)?;
    let mut errors = Vec::new();
    check_name(&mut errors, "name", &body.name, NAME_MAX);
    if body
        .expires_in_days
        .is_some_and(|days| !(1..=3650).contains(&days))
    {
        errors.push(FieldError::new(
            "expires_in_days",
            "is not between 1 and 3650",
        ));
    }
    if !errors.is_empty() {
        return Err(invalid(&errors));
    }
    let expires_at = body
        .expires_in_days
        .map(|days| Timestamp::now() + SignedDuration::from_hours(24 * days));
    let token = new_secret(access::TOKEN_PREFIX)?;
    let digest = TokenDigest::of(&token);
    let added = admin.store.add_api_token(
        &call.caller.actor(),
        call.caller.user_id,
        &body.name,
        &digest,
        expires_at,
    );
    match added {
        Ok(id) => {
            admin.known.add_person(&digest);
            Ok(Answer::json(
                201,
                &json!({"id": id, "name": body.name, "token": token, "expires_at": expires_at}),
            ))
        }
        Err(StoreError::Taken(_)) => Err(conflict("name", "is that of another of your tokens")),
        Err(error) => Err(error.into()),
    }
}

fn remove_token(admin: &Admin, call: &Call<'_>, token: &str) -> Result<Answer, Answer> {
    let removed = match id(token) {
        Some(token) => {
            admin
                .store
                .remove_api_token(&call.caller.actor(), call.caller.user_id, token)?
        }
        None => false,
    };
    if removed {
        Ok(Answer::done())
    } else {
        Err(unknown("token"))
    }
}

fn audit(admin: &Admin, call: &Call<'_>) -> Result<Answer, Answer> {
    let limit = number(call.query, "limit", 100, (1, 1000))?;
    let site = optional_id(call.query, "site_id")?;
    let before = optional_id(call.query, "before")?;
    let text = call.query.get("q").filter(|text| !text.is_empty());
    if text.is_some_and(|text| text.contains('\0')) {
        return Err(invalid_field("q", "has a NUL character"));
    }
    let filter = AuditFilter {
        site_id: site,
        before,
        text,
    };
    let entries = admin.store.audit(&filter, limit)?;
    Ok(Answer::json(200, &json!({"entries": entries})))
}
