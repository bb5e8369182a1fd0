//! Who gets in: the real backend, a real database.

mod admin_support;

use admin_support::{
    Browser, Office, PASSWORD, add_user, assert_error, bad_fields, cookie, log_in, user_command,
};
use av_proto_tests::pg::Database;
use av_proto_tests::process::{Answer, Backend, backend_command};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// The code of the last set-up link that a backend printed.
fn setup_code(backend: &Backend) -> String {
    backend.process.wait_for("a set-up link is printed", || {
        let log = backend.process.log();
        let (_, rest) = log.rsplit_once("/setup/")?;
        rest.split_once('\n').map(|(code, _)| code.to_owned())
    })
}

fn set_up(backend: &Backend, code: &str, name: &str, password: &str) -> Answer {
    backend.request(
        "POST",
        &format!("/setup/{code}"),
        &[JSON],
        Some(
            json!({"name": name, "password": password})
                .to_string()
                .as_bytes(),
        ),
    )
}

#[test]
fn the_first_user_is_made_with_a_link_that_works_once() {
    let db = Database::create();
    let backend = Backend::start(&db.url());
    let code = setup_code(&backend);
    assert_eq!(code.len(), 64);
    let stored: String = db
        .connect()
        .query_one("SELECT string_agg(digest, ' ') FROM setup_links", &[])
        .unwrap()
        .get(0);
    assert!(stored.starts_with("sha256:") && !stored.contains(&code));

    assert_eq!(set_up(&backend, "wrong", "anna", PASSWORD).status, 404);
    let weak = set_up(&backend, &code, " ", "short");
    assert_eq!(weak.status, 422, "{weak:?}");
    assert_eq!(bad_fields(&weak), ["name", "password"]);

    let made = set_up(&backend, &code, "anna", PASSWORD);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["role"], "admin");
    let cookie = cookie(&made);
    let me = backend.request("GET", "/admin/me", &[("Cookie", &cookie)], None);
    assert_eq!(me.json()["name"], "anna");

    assert_eq!(set_up(&backend, &code, "eve", PASSWORD).status, 404);
    // A backend that starts now prints no link.
    let second = Backend::start(&db.url());
    assert!(!second.process.log().contains("/setup/"));
    // And a link that was left over is worth nothing.
    db.execute(&format!(
        "INSERT INTO setup_links (digest) VALUES ('sha256:' || encode(sha256('{code}'), 'hex'))"
    ));
    assert_eq!(set_up(&second, &code, "eve", PASSWORD).status, 404);
}

#[test]
fn users_are_added_by_the_command_line() {
    let db = Database::create();
    let generated = user_command(&db, &["add", "Anna", "--role", "admin", "--generate"], "");
    assert!(generated.status.success(), "{generated:?}");
    let password = String::from_utf8(generated.stdout).unwrap();
    assert_eq!(password.trim_end().len(), 32);
    for (args, said) in [
        (
            &["add", "anna", "--generate"][..],
            "there is a user \"anna\" already",
        ),
        (&["add", ""], "name: is empty"),
        (&["add", "bob"], "has less than 10 characters"),
        (
            &["add", "bob", "--password-stdin"],
            "has less than 10 characters",
        ),
        (&["password", "nobody"], "there is no user \"nobody\""),
    ] {
        let output = user_command(&db, args, "short\n");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(said), "{stderr}");
    }
    let nothing = user_command(&db, &["add", "bob"], "");
    assert_eq!(nothing.status.code(), Some(1));
    let stderr = String::from_utf8(nothing.stderr).unwrap();
    assert!(stderr.contains("--generate makes one"), "{stderr}");
    let backend = Backend::start(&db.url());
    assert!(!backend.process.log().contains("/setup/"));
    let browser = log_in(&backend, "ANNA", password.trim_end());
    assert_eq!(browser.status, 200, "{browser:?}");

    // A new password ends what was open.
    let old = cookie(&browser);
    // From a pipe it is one line; what follows is not looked at.
    let changed = user_command(&db, &["password", "Anna"], &format!("{PASSWORD}\nx\n"));
    assert!(changed.status.success(), "{changed:?}");
    assert_eq!(changed.stdout, b"", "who knows it needs no copy of it");
    let me = backend.request("GET", "/admin/me", &[("Cookie", &old)], None);
    assert_eq!(me.status, 401);
    assert_eq!(log_in(&backend, "Anna", PASSWORD).status, 200);
    let list = user_command(&db, &["list"], "");
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains("Anna  admin"), "{list}");
}

/// Runs a command at a terminal of its own, and types each answer once its
/// question is there and the terminal shows nothing of what is typed. Prints
/// what the terminal showed; ends as the command does.
const AT_A_TERMINAL: &str = r#"
import os, pty, select, sys, termios, time
answers, command = sys.argv[1].split("|"), sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(command[0], command)
shown, asked, end = b"", 0, time.monotonic() + 120
while time.monotonic() < end:
    if select.select([terminal], [], [], 0.02)[0]:
        try:
            more = os.read(terminal, 4096)
        except OSError:
            break
        if not more:
            break
        shown += more
    hidden = not termios.tcgetattr(terminal)[3] & termios.ECHO
    if asked < len(answers) and shown.count(b": ") > asked and hidden:
        os.write(terminal, answers[asked].encode() + b"\n")
        asked += 1
sys.stdout.buffer.write(shown)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[test]
fn at_a_terminal_the_password_is_asked_for_and_not_shown() {
    let db = Database::create();
    let at_a_terminal = |answers: &str| {
        let command = backend_command(&db.url());
        let mut terminal = std::process::Command::new("python3");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => terminal.env(name, value),
                None => terminal.env_remove(name),
            };
        }
        let output = terminal
            .args(["-c", AT_A_TERMINAL, answers])
            .arg(command.get_program())
            .args(command.get_args())
            .args(["user", "add", "Anna", "--role", "admin"])
            .output()
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), shown)
    };
    for (answers, said) in [
        ("short".to_owned(), "has less than 10 characters"),
        (
            format!("{PASSWORD}|{PASSWORD}!"),
            "the two passwords are not the same",
        ),
    ] {
        let (code, shown) = at_a_terminal(&answers);
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains(said), "{shown}");
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    let (code, shown) = at_a_terminal(&format!("{PASSWORD}|{PASSWORD}"));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Password of \"Anna\": "), "{shown}");
    assert!(shown.contains("The same again: "), "{shown}");
    assert!(shown.contains("is added"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    let backend = Backend::start(&db.url());
    assert_eq!(log_in(&backend, "Anna", PASSWORD).status, 200);
}

#[test]
fn a_session_lives_in_a_cookie_that_scripts_and_other_sites_do_not_get() {
    let db = Database::create();
    add_user(&db, "anna", "editor");
    let backend = Backend::start(&db.url());
    let answer = log_in(&backend, "anna", PASSWORD);
    let set = &answer.headers["set-cookie"];
    for part in ["av_session=", "; Path=/", "; HttpOnly", "; SameSite=Lax"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let cookie = cookie(&answer);
    let (_, value) = cookie.split_once('=').unwrap();
    assert_eq!(value.len(), 64);
    let stored: String = db
        .connect()
        .query_one("SELECT digest FROM sessions", &[])
        .unwrap()
        .get(0);
    assert!(stored.starts_with("sha256:") && !stored.contains(value));

    // An old session, and one that was not used for long, have ended.
    let me = || {
        backend
            .request("GET", "/admin/me", &[("Cookie", &cookie)], None)
            .status
    };
    assert_eq!(me(), 200);
    for (ended, again) in [
        (
            "last_used_at = now() - interval '13 hours'",
            "last_used_at = now()",
        ),
        (
            "expires_at = now()",
            "expires_at = now() + interval '1 day'",
        ),
    ] {
        db.execute(&format!("UPDATE sessions SET {ended}"));
        assert_eq!(me(), 401, "{ended}");
        db.execute(&format!("UPDATE sessions SET {again}"));
        assert_eq!(me(), 200);
    }

    let browser = Browser::log_in(&backend, "anna");
    let out = browser.send("POST", "/logout", &[("X-CSRF-Token", &browser.csrf)], None);
    assert_eq!(out.status, 204, "{out:?}");
    assert!(out.headers["set-cookie"].contains("Max-Age=0"));
    assert_eq!(browser.send("GET", "/admin/me", &[], None).status, 401);
    assert_eq!(me(), 200, "the other session goes on");
}

#[test]
fn behind_tls_the_cookie_is_secure_and_the_proxy_names_the_address() {
    let db = Database::create();
    add_user(&db, "anna", "viewer");
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_BEHIND_TLS", "1");
    });
    backend.wait_until_healthy();
    let body = json!({"name": "anna", "password": PASSWORD}).to_string();
    let answer = backend.request(
        "POST",
        "/login",
        &[JSON, ("X-Forwarded-For", "203.0.113.9, 198.51.100.7")],
        Some(body.as_bytes()),
    );
    let set = &answer.headers["set-cookie"];
    assert!(
        set.starts_with("__Host-av_session=") && set.contains("; Secure"),
        "{set}"
    );
    let ip: String = db
        .connect()
        .query_one("SELECT ip FROM sessions", &[])
        .unwrap()
        .get(0);
    // The last one is the proxy's own word, the first anybody's.
    assert_eq!(ip, "198.51.100.7");

    // Some proxies add the port.
    let body = json!({"name": "anna", "password": "wrong password"}).to_string();
    for entry in ["203.0.113.9:51234", "203.0.113.1, [2001:db8::5]:443"] {
        let headers = [JSON, ("X-Forwarded-For", entry)];
        let answer = backend.request("POST", "/login", &headers, Some(body.as_bytes()));
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let row = db
        .connect()
        .query_one(
            "SELECT string_agg(ip, ' ' ORDER BY id), string_agg(sender, ' ' ORDER BY id)
               FROM login_attempts",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "203.0.113.9 2001:db8::5");
    assert_eq!(row.get::<_, &str>(1), "203.0.113.9 2001:db8::/64");
}

#[test]
fn a_network_of_ipv6_is_one_sender() {
    let db = Database::create();
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_BEHIND_TLS", "1");
    });
    backend.wait_until_healthy();
    let sent = |path: &str, from: &str, body: &Value| {
        let body = body.to_string();
        let headers = [JSON, ("X-Forwarded-For", from)];
        let answer = backend.request("POST", path, &headers, Some(body.as_bytes()));
        if answer.status == 429 {
            assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        }
        answer.status
    };
    // Each user and each address once.
    let log_in = |n: usize, from: &str| {
        let body = json!({"name": format!("user{n}"), "password": "Summer2026!"});
        sent("/login", from, &body)
    };
    let of_network = |n: usize| format!("2001:db8:1:1::{n:x}");
    for n in 0..30 {
        assert_eq!(log_in(n, &of_network(n)), 401, "{n}");
    }
    for n in 30..35 {
        assert_eq!(log_in(n, &of_network(n)), 429, "{n}");
    }
    assert_eq!(log_in(35, "2001:db8:1:2::1"), 401);
    // What is refused is not written down.
    let counted = || -> i64 {
        let query = "SELECT count(*) FROM login_attempts WHERE sender = '2001:db8:1:1::/64'";
        db.connect().query_one(query, &[]).unwrap().get(0)
    };
    assert_eq!(counted(), 30);
    // What is written as IPv6 and is none is told apart.
    assert_eq!(log_in(36, "::ffff:192.0.2.7"), 401);
    let query = "SELECT count(*) FROM login_attempts WHERE sender = '192.0.2.7'";
    let mapped: i64 = db.connect().query_one(query, &[]).unwrap().get(0);
    assert_eq!(mapped, 1);

    let code = |n: usize, from: &str| {
        let body = json!({"code": format!("AAAAA-{n:05}")});
        sent("/enroll", from, &body)
    };
    for n in 0..10 {
        assert_eq!(code(n, &of_network(n)), 404, "{n}");
    }
    assert_eq!(code(10, &of_network(10)), 429);
    assert_eq!(code(11, "2001:db8:1:2::1"), 404);
}

#[test]
fn wrong_tokens_are_counted_by_all_backends_together() {
    let db = Database::create();
    let spawn = || {
        let backend = Backend::spawn(&db.url(), |command| {
            command.env("AV_BEHIND_TLS", "1");
        });
        backend.wait_until_healthy();
        backend
    };
    let (one, two) = (spawn(), spawn());
    let present = |backend: &Backend, n: usize, from: &str| {
        let headers = [
            ("X-Site-Token", &*format!("guess-{n}")),
            ("X-Forwarded-For", from),
        ];
        backend.request("GET", "/config", &headers, None)
    };
    for n in 0..60 {
        let from = format!("2001:db8:1:1::{n:x}");
        let answer = present([&one, &two][n % 2], n, &from);
        assert_eq!(answer.status, 404, "{n}: {answer:?}");
    }
    for backend in [&one, &two] {
        let blocked = present(backend, 60, "2001:db8:1:1::ffff");
        assert_error(&blocked, 429, "too many tokens from here were wrong");
        let seconds: u64 = blocked.headers["retry-after"].parse().unwrap();
        assert!((1..=600).contains(&seconds), "{seconds}");
        assert_eq!(present(backend, 61, "2001:db8:1:2::1").status, 404);
    }
}

#[test]
fn log_ins_take_few_threads_and_leave_the_others_to_agents() {
    let db = Database::create();
    let backend = Backend::spawn(&db.url(), |command| {
        command.env("AV_BEHIND_TLS", "1");
    });
    backend.wait_until_healthy();
    db.execute("INSERT INTO sites (name, token) VALUES ('Paris', 'paris-by-hand')");
    let poll = || {
        let token = ("X-Site-Token", "paris-by-hand");
        backend.request("GET", "/config", &[token], None).status
    };
    assert_eq!(poll(), 200);
    let statuses = std::thread::scope(|scope| {
        // Of as many senders and users: none of them is blocked.
        let tries: Vec<_> = (0..64)
            .map(|n| {
                let backend = &backend;
                scope.spawn(move || {
                    let body = json!({"name": format!("user{n}"), "password": "x"}).to_string();
                    let from = format!("192.0.2.{n}");
                    let headers = [JSON, ("X-Forwarded-For", &from)];
                    let answer = backend.request("POST", "/login", &headers, Some(body.as_bytes()));
                    if answer.status == 503 {
                        assert_eq!(answer.headers["retry-after"], "2", "{answer:?}");
                    }
                    answer.status
                })
            })
            .collect();
        while !tries.iter().all(|one| one.is_finished()) {
            assert_eq!(poll(), 200);
        }
        let answers = tries.into_iter().map(|one| one.join().unwrap());
        answers.collect::<Vec<u16>>()
    });
    let tried = statuses.iter().filter(|status| **status == 401).count();
    let busy = statuses.iter().filter(|status| **status == 503).count();
    // Two at work, and three that wait.
    assert!(tried >= 5, "{statuses:?}");
    assert_eq!(tried + busy, statuses.len(), "{statuses:?}");
    // Only what was looked at is counted.
    let query = "SELECT count(*) FROM login_attempts";
    let counted: i64 = db.connect().query_one(query, &[]).unwrap().get(0);
    assert_eq!(usize::try_from(counted).unwrap(), tried);
}

#[test]
fn without_a_proxy_nobody_names_the_own_address() {
    let db = Database::create();
    add_user(&db, "anna", "viewer");
    let backend = Backend::start(&db.url());
    let body = json!({"name": "anna", "password": PASSWORD}).to_string();
    backend.request(
        "POST",
        "/login",
        &[JSON, ("X-Forwarded-For", "198.51.100.7")],
        Some(body.as_bytes()),
    );
    let ip: String = db
        .connect()
        .query_one("SELECT ip FROM sessions", &[])
        .unwrap()
        .get(0);
    assert_eq!(ip, "127.0.0.1");
}

#[test]
fn a_form_logs_in_and_goes_on_to_one_of_our_pages() {
    let db = Database::create();
    add_user(&db, "anna", "viewer");
    let backend = Backend::start(&db.url());
    let post = |body: &str| backend.request("POST", "/login", &[FORM], Some(body.as_bytes()));
    let form = "name=anna&password=correct+horse+battery";
    for (next, location) in [
        ("", "/"),
        ("&next=%2Fsites%2F3", "/sites/3"),
        ("&next=%2F%2Fevil.example%2F", "/"),
        ("&next=https%3A%2F%2Fevil.example%2F", "/"),
    ] {
        let answer = post(&format!("{form}{next}"));
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(answer.headers["location"], location);
        assert!(answer.headers.contains_key("set-cookie"));
    }
    let wrong = post("name=anna&password=wrong&next=%2Falerts");
    assert_eq!(wrong.status, 303);
    assert_eq!(
        wrong.headers["location"],
        "/login?error=credentials&next=%2Falerts"
    );
    assert!(!wrong.headers.contains_key("set-cookie"));
    // A page for users sends everybody else to the log-in, and back.
    let page = backend.get("/sites/3");
    assert_eq!(
        (page.status, page.headers["location"].as_str()),
        (303, "/login?next=%2Fsites%2F3")
    );
    let api = backend.get("/admin/sites");
    assert_error(&api, 401, "log in");
    assert!(api.headers["www-authenticate"].starts_with("Bearer"));
}

#[test]
fn failed_log_ins_are_limited_by_all_backends_together() {
    let db = Database::create();
    add_user(&db, "anna", "viewer");
    add_user(&db, "bob", "viewer");
    let (one, two) = (Backend::start(&db.url()), Backend::start(&db.url()));
    for (i, backend) in [&one, &two, &one, &two, &one].into_iter().enumerate() {
        let name = if i % 2 == 0 { "anna" } else { "ANNA" };
        assert_error(
            &log_in(backend, name, "wrong password"),
            401,
            "the name or the password",
        );
    }
    // Even the right password is not looked at now.
    let blocked = log_in(&two, "anna", PASSWORD);
    assert_error(&blocked, 429, "too many log-ins failed");
    let seconds: u64 = blocked.headers["retry-after"].parse().unwrap();
    assert!((1..=900).contains(&seconds), "{seconds}");
    // Another user is not hindered, and a user who does not exist is told
    // nothing else.
    assert_eq!(log_in(&two, "bob", PASSWORD).status, 200);
    assert_error(
        &log_in(&two, "nobody", PASSWORD),
        401,
        "the name or the password",
    );

    // From one address only so many, whoever they are for.
    db.execute("DELETE FROM login_attempts");
    db.execute(
        "INSERT INTO login_attempts (user_name, ip)
         SELECT 'user' || i, '127.0.0.1' FROM generate_series(1, 30) i",
    );
    assert_eq!(log_in(&one, "bob", PASSWORD).status, 429);
    db.execute("UPDATE login_attempts SET at = at - interval '16 minutes'");
    assert_eq!(log_in(&one, "bob", PASSWORD).status, 200);
    // Against one user from everywhere.
    db.execute(
        "INSERT INTO login_attempts (user_name, ip)
         SELECT 'bob', '10.0.0.' || i FROM generate_series(1, 60) i",
    );
    assert_eq!(log_in(&one, "bob", PASSWORD).status, 429);
    assert_eq!(log_in(&one, "anna", PASSWORD).status, 200);
    // No password, right or wrong, is in the log.
    for backend in [&one, &two] {
        let log = backend.process.log();
        assert!(log.contains("a log-in failed for"), "{log}");
        assert!(
            !log.contains("wrong password") && !log.contains(PASSWORD),
            "{log}"
        );
    }
}

#[test]
fn a_burst_of_guesses_is_not_one_guess() {
    let db = Database::create();
    add_user(&db, "anna", "viewer");
    let backend = Backend::start(&db.url());
    let tried = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| log_in(&backend, "anna", "wrong password").status))
            .collect();
        guesses
            .into_iter()
            .map(|guess| guess.join().unwrap())
            .filter(|status| *status == 401)
            .count()
    });
    assert_eq!(tried, 5);
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let office = Office::open();
    let browser = Browser::log_in(&office.backend, "editor");
    let host = office.backend.url.trim_start_matches("http://").to_owned();
    let own = format!("http://{host}");
    let body = br#"{"name": "Paris"}"#;
    let csrf = browser.csrf.clone();
    for (headers, status) in [
        // Nothing tells that it is ours.
        (vec![JSON], 403),
        (vec![JSON, ("Sec-Fetch-Site", "cross-site")], 403),
        (vec![JSON, ("Sec-Fetch-Site", "same-site")], 403),
        (vec![JSON, ("Origin", "http://evil.example")], 403),
        (vec![JSON, ("Origin", "null")], 403),
        (
            vec![
                ("Content-Type", "text/plain"),
                ("Sec-Fetch-Site", "same-origin"),
            ],
            403,
        ),
        (vec![("Sec-Fetch-Site", "same-origin")], 403),
        (vec![JSON, ("X-CSRF-Token", "wrong")], 403),
        // Even with the token, a foreign page is foreign.
        (
            vec![
                JSON,
                ("X-CSRF-Token", &csrf),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            403,
        ),
        (vec![JSON, ("X-CSRF-Token", &csrf)], 201),
        // And even our own page has to prove that it is.
        (vec![JSON, ("Sec-Fetch-Site", "same-origin")], 403),
        (vec![JSON, ("Origin", &own)], 403),
        (vec![JSON, ("X-CSRF-Token", &csrf), ("Origin", &own)], 409),
    ] {
        let answer = browser.send("POST", "/admin/sites", &headers, Some(body));
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
    // Nothing that changes something does without.
    let document = office.backend.get("/openapi.json").json();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{id}", "1")
            .replace("{revision}", "1")
            .replace("{other}", "1");
        if !path.starts_with("/admin/") {
            continue;
        }
        for method in item.as_object().unwrap().keys() {
            if method == "get" {
                continue;
            }
            let method = method.to_uppercase();
            let own = [JSON, ("Sec-Fetch-Site", "same-origin")];
            let answer = browser.send(&method, &path, &own, Some(b"{}"));
            assert_error(&answer, 403, "CSRF");
            let bare = browser.send(&method, &path, &[], None);
            assert_error(&bare, 403, "CSRF");
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
    // A form carries the token as a field.
    let out = |form: &str| browser.send("POST", "/logout", &[FORM], Some(form.as_bytes()));
    assert_eq!(out("_csrf=wrong").status, 403);
    assert_eq!(out("").status, 403);
    assert_eq!(out(&format!("_csrf={csrf}")).headers["location"], "/login");
    // Nobody is logged in as somebody else by a foreign page.
    let forged = office.backend.request(
        "POST",
        "/login",
        &[JSON, ("Origin", "http://evil.example")],
        Some(
            json!({"name": "editor", "password": PASSWORD})
                .to_string()
                .as_bytes(),
        ),
    );
    assert_eq!(forged.status, 403);
}

#[test]
fn tokens_work_until_they_end() {
    let office = Office::open();
    assert!(office.editor.starts_with("avt_"));
    let stored: String = office.one("SELECT string_agg(digest, ' ') FROM api_tokens");
    assert!(!stored.contains(office.editor.trim_start_matches("avt_")));
    assert_eq!(office.get("/admin/me")["name"], "editor");

    for value in ["Bearer avt_wrong", "Bearer ", "Basic YTpi", "avt_x"] {
        let answer = office
            .backend
            .request("GET", "/admin/me", &[("Authorization", value)], None);
        assert_error(&answer, 401, "API token");
    }
    let made = office.edit(
        "POST",
        "/admin/tokens",
        &[],
        &json!({"name": "script", "expires_in_days": 1}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let id = made.json()["id"].as_i64().unwrap();
    let me = |office: &Office| office.send(&token, "GET", "/admin/me", &[], None).status;
    assert_eq!(me(&office), 200);
    let twice = office.edit("POST", "/admin/tokens", &[], &json!({"name": "script"}));
    assert_error(&twice, 409, "name");
    let bad = office.edit(
        "POST",
        "/admin/tokens",
        &[],
        &json!({"name": "", "expires_in_days": 0}),
    );
    assert_eq!(bad_fields(&bad), ["name", "expires_in_days"]);

    office.db.execute(&format!(
        "UPDATE api_tokens SET expires_at = now() WHERE id = {id}"
    ));
    assert_eq!(me(&office), 401);
    office.db.execute(&format!(
        "UPDATE api_tokens SET expires_at = NULL WHERE id = {id}"
    ));
    assert_eq!(me(&office), 200);

    // Nobody revokes another's.
    let path = format!("/admin/tokens/{id}");
    assert_eq!(
        office
            .send(&office.admin, "DELETE", &path, &[], None)
            .status,
        404
    );
    let list = office.get("/admin/tokens")["tokens"].to_string();
    assert!(list.contains("script") && !list.contains(&token) && !list.contains("sha256"));
    assert_eq!(
        office
            .send(&office.editor, "DELETE", &path, &[], None)
            .status,
        204
    );
    assert_eq!(me(&office), 401);
}

#[test]
fn each_role_does_what_it_may() {
    let office = Office::open();
    let (site, _) = office.site("Paris");
    let site_path = format!("/admin/sites/{site}");
    let import = format!("/admin/import?site_id={site}");
    for (method, path, viewer, editor, admin) in [
        ("GET", "/admin/sites", 200, 200, 200),
        ("GET", "/admin/devices", 200, 200, 200),
        ("GET", site_path.as_str(), 200, 200, 200),
        ("POST", "/admin/sites", 403, 422, 422),
        ("PUT", &site_path, 403, 428, 428),
        ("DELETE", &site_path, 403, 403, 428),
        ("POST", "/admin/devices", 403, 422, 422),
        ("POST", &import, 403, 422, 422),
        ("GET", "/admin/users", 403, 403, 200),
        ("POST", "/admin/users", 403, 403, 422),
        ("GET", "/admin/audit", 403, 403, 200),
        ("POST", "/admin/tokens", 422, 422, 422),
        ("GET", "/admin/nothing", 404, 404, 404),
        ("POST", "/admin/nothing", 403, 404, 404),
    ] {
        for (token, status) in [
            (&office.viewer, viewer),
            (&office.editor, editor),
            (&office.admin, admin),
        ] {
            let body: Option<&[u8]> = (method != "GET" && method != "DELETE").then_some(b"{}");
            let answer = office.send(token, method, path, &[JSON], body);
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        }
        // And nobody nothing.
        let body: Option<&[u8]> = (method != "GET" && method != "DELETE").then_some(b"{}");
        let answer = office.backend.request(method, path, &[JSON], body);
        assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
    }
}

#[test]
fn an_administrator_manages_users_and_cannot_lock_everybody_out() {
    let office = Office::open();
    let send = |method: &str, path: &str, body: Value| {
        office.send(
            &office.admin,
            method,
            path,
            &[JSON],
            Some(body.to_string().as_bytes()),
        )
    };
    let made = send(
        "POST",
        "/admin/users",
        json!({"name": "Zoé", "role": "viewer", "password": PASSWORD}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.body.contains("argon2"));
    let path = made.headers["location"].clone();
    assert_error(
        &send(
            "POST",
            "/admin/users",
            json!({"name": "zoé", "role": "viewer", "password": PASSWORD}),
        ),
        409,
        "name",
    );
    let bad = send(
        "POST",
        "/admin/users",
        json!({"name": "x\u{7}", "role": "god", "password": "x"}),
    );
    assert_eq!(bad.status, 422);
    assert_eq!(bad_fields(&bad), ["name", "role", "password"]);
    assert_eq!(
        send("PATCH", &path, json!({"role": "editor"})).json()["role"],
        "editor"
    );
    // A new password closes the sessions.
    let browser = Browser::log_in(&office.backend, "Zoé");
    assert_eq!(
        send("PATCH", &path, json!({"password": "another password"})).status,
        200
    );
    assert_eq!(browser.send("GET", "/admin/me", &[], None).status, 401);
    assert_eq!(
        log_in(&office.backend, "Zoé", "another password").status,
        200
    );
    assert_eq!(send("DELETE", &path, json!({})).status, 204);
    assert_eq!(send("GET", &path, json!({})).status, 404);

    let users = office
        .send(&office.admin, "GET", "/admin/users", &[], None)
        .json();
    let admin = users["users"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["name"] == "admin")
        .unwrap();
    let path = format!("/admin/users/{}", admin["id"]);
    assert_error(
        &send("PATCH", &path, json!({"role": "viewer"})),
        409,
        "last administrator",
    );
    assert_error(&send("DELETE", &path, json!({})), 409, "last administrator");

    let audit = office
        .send(&office.admin, "GET", "/admin/audit?limit=1000", &[], None)
        .json();
    let actions: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    for action in [
        "login",
        "token.add",
        "user.add",
        "user.update",
        "user.delete",
    ] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
    assert_eq!(audit["entries"][0]["actor"], "admin");
    assert_eq!(audit["entries"][0]["origin"], "api");
    assert_eq!(audit["entries"][0]["ip"], "127.0.0.1");
    assert!(!audit.to_string().contains("password\":\""));
}

#[test]
fn a_user_changes_the_own_password() {
    let office = Office::open();
    let browser = Browser::log_in(&office.backend, "viewer");
    let other = Browser::log_in(&office.backend, "viewer");
    let put = |old: &str, new: &str| {
        browser.send(
            "PUT",
            "/admin/me/password",
            &[JSON, ("X-CSRF-Token", &browser.csrf)],
            Some(json!({"old": old, "new": new}).to_string().as_bytes()),
        )
    };
    assert_eq!(bad_fields(&put("wrong", "a new password")), ["old"]);
    assert_eq!(bad_fields(&put(PASSWORD, "short")), ["new"]);
    assert_eq!(put(PASSWORD, "a new password").status, 204);
    assert_eq!(browser.send("GET", "/admin/me", &[], None).status, 200);
    assert_eq!(other.send("GET", "/admin/me", &[], None).status, 401);
    // Guessing the old one is limited as the log-in is.
    for _ in 0..5 {
        assert_eq!(put("wrong", "a new password").status, 422);
    }
    assert_eq!(put("a new password", "yet another one").status, 429);
}

#[test]
fn a_stranger_sends_no_large_body() {
    let office = Office::open();
    let large = vec![b' '; 32 << 10];
    assert_eq!(
        office
            .backend
            .request("POST", "/login", &[JSON], Some(&large))
            .status,
        413
    );
    assert_eq!(
        office
            .backend
            .request("POST", "/admin/devices", &[JSON], Some(&large))
            .status,
        401
    );
}
