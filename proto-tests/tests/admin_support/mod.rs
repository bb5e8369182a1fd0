//! What the tests of the administrator's API share.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code, of which each test file uses a part"
)]

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::sync::Mutex;

use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend, backend_command};
use postgres::Client;
use serde_json::{Value, json};

/// The password of every user of these tests.
pub const PASSWORD: &str = "correct horse battery";

/// A database, a backend on it, and a user of each role with an API token.
pub struct Office {
    pub backend: Backend,
    pub sql: Mutex<Client>,
    pub db: Database<'static>,
    pub viewer: String,
    pub editor: String,
    pub admin: String,
}

/// `av-backend user ...` with this on its standard input.
pub fn user_command(db: &Database<'_>, args: &[&str], input: &str) -> Output {
    let mut child = backend_command(&db.url())
        .arg("user")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Adds a user by the command line.
#[track_caller]
pub fn add_user(db: &Database<'_>, name: &str, role: &str) {
    let output = user_command(
        db,
        &["add", name, "--role", role, "--password-stdin"],
        &format!("{PASSWORD}\n"),
    );
    assert!(output.status.success(), "{output:?}");
}

/// A browser that is logged in.
pub struct Browser<'a> {
    backend: &'a Backend,
    pub cookie: String,
    pub csrf: String,
}

impl<'a> Browser<'a> {
    /// Logs in with the password of these tests.
    #[track_caller]
    pub fn log_in(backend: &'a Backend, name: &str) -> Self {
        let answer = log_in(backend, name, PASSWORD);
        assert_eq!(answer.status, 200, "{answer:?}");
        Self {
            backend,
            cookie: cookie(&answer),
            csrf: answer.json()["csrf"].as_str().unwrap().to_owned(),
        }
    }

    /// Sends a request with the cookie, and the given header fields.
    #[track_caller]
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut all = vec![("Cookie", self.cookie.as_str())];
        all.extend_from_slice(headers);
        self.backend.request(method, path, &all, body)
    }
}

/// `NAME=VALUE` of the cookie that an answer sets.
#[track_caller]
pub fn cookie(answer: &Answer) -> String {
    answer.headers["set-cookie"]
        .split(';')
        .next()
        .unwrap()
        .to_owned()
}

/// `POST /login` as JSON.
#[track_caller]
pub fn log_in(backend: &Backend, name: &str, password: &str) -> Answer {
    backend.request(
        "POST",
        "/login",
        &[("Content-Type", "application/json")],
        Some(
            json!({"name": name, "password": password})
                .to_string()
                .as_bytes(),
        ),
    )
}

impl Office {
    pub fn open() -> Self {
        let db = Database::create();
        for role in ["viewer", "editor", "admin"] {
            add_user(&db, role, role);
        }
        let backend = Backend::start(&db.url());
        let token = |name: &str| {
            let browser = Browser::log_in(&backend, name);
            let answer = browser.send(
                "POST",
                "/admin/tokens",
                &[
                    ("Content-Type", "application/json"),
                    ("X-CSRF-Token", &browser.csrf),
                ],
                Some(br#"{"name": "tests"}"#),
            );
            assert_eq!(answer.status, 201, "{answer:?}");
            answer.json()["token"].as_str().unwrap().to_owned()
        };
        let (viewer, editor, admin) = (token("viewer"), token("editor"), token("admin"));
        let sql = Mutex::new(db.connect());
        Self {
            backend,
            sql,
            db,
            viewer,
            editor,
            admin,
        }
    }

    /// A request with a token, header fields and a body of bytes.
    #[track_caller]
    pub fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        self.backend.request(method, path, &all, body)
    }

    /// The editor's request with a JSON body.
    #[track_caller]
    pub fn edit(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        self.send(
            &self.editor,
            method,
            path,
            &all,
            Some(body.to_string().as_bytes()),
        )
    }

    /// The editor's `GET`, which must be 200.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.send(&self.editor, "GET", path, &[], None);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Adds a site by the API; answers its id and token.
    #[track_caller]
    pub fn site(&self, name: &str) -> (i64, String) {
        let answer = self.edit("POST", "/admin/sites", &[], &json!({"name": name}));
        assert_eq!(answer.status, 201, "{answer:?}");
        let site = answer.json();
        (
            site["id"].as_i64().unwrap(),
            site["token"].as_str().unwrap().to_owned(),
        )
    }

    /// The first column of the first row.
    #[track_caller]
    pub fn one<T: for<'a> postgres::types::FromSql<'a>>(&self, query: &str) -> T {
        self.sql
            .lock()
            .unwrap()
            .query_one(query, &[])
            .unwrap()
            .get(0)
    }
}

/// Checks that an answer is a JSON error that says this.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, said: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(said), "{error:?} does not say {said:?}");
}

/// The names of the fields that an answer says are not valid.
#[track_caller]
pub fn bad_fields(answer: &Answer) -> Vec<String> {
    answer.json()["fields"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer:?}"))
        .iter()
        .map(|field| field["field"].as_str().unwrap().to_owned())
        .collect()
}
