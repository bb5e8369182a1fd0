//! Users and their roles.

use askama::Template;

use super::html::Frame;
use super::{Admin, Call, Problem, admins_frame, show};
use crate::answer::Answer;
use crate::store::users::{Role, User};

#[derive(Template)]
#[template(path = "users.html")]
struct Page {
    f: Frame,
    users: Vec<User>,
    roles: [Role; 3],
}

/// `GET /users`.
pub(super) fn page(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let f = admins_frame(call, "users")?;
    let users = admin.store.users()?;
    Ok(show(
        200,
        &Page {
            f,
            users,
            roles: [Role::Viewer, Role::Editor, Role::Admin],
        },
    ))
}
