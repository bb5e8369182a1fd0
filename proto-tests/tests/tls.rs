//! The agent and the backend with a proxy between them that speaks TLS: the
//! configurations of `docs/proxy` as they are, but for names, ports and paths.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod backend_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use av_proto_tests::authority::Authority;
use av_proto_tests::pg::Database;
use av_proto_tests::process::{Agent, Backend, Process, free_port, http, signal, workspace};
use backend_support::{TOKEN, add_site};
use postgres::Client;
use serde_json::json;
use tempfile::TempDir;

/// The number of a client certificate that is not good any more.
const REVOKED: u64 = 66;

/// The header field in which both configurations give a certificate's subject.
const SUBJECT: &str = "X-Client-Certificate-Subject";

/// A backend behind a proxy, and the site "Paris".
struct Scene {
    proxy: Process,
    backend: Backend,
    sql: Client,
    /// Of the proxy's own certificate.
    authority: Authority,
    /// Of the agents' certificates.
    agents: Authority,
    port: u16,
    dir: TempDir,
    _db: Database<'static>,
}

#[derive(Clone, Copy, PartialEq)]
enum Proxy {
    /// In one process, which ends with the test.
    Nginx,
    /// As it runs on a machine: its worker is another one after a reload.
    NginxWithWorker,
    Caddy,
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: scripts/install-packages.sh {name}"))
}

/// Replaces each text, all of which must be there.
fn replaced(mut text: String, pairs: &[(&str, String)]) -> String {
    for (old, new) in pairs {
        assert!(text.contains(old), "no {old:?} in\n{text}");
        text = text.replace(old, new);
    }
    text
}

impl Scene {
    fn start(proxy: Proxy, certificates: bool) -> Self {
        let db = Database::create();
        let backend = Backend::spawn(&db.url(), |command| {
            command.env("AV_BEHIND_TLS", "1");
            if certificates {
                command.env("AV_CLIENT_CERT_HEADER", SUBJECT);
            }
        });
        backend.wait_until_healthy();
        let mut sql = db.connect();
        let site = add_site(&mut sql, "Paris", TOKEN);
        // Without a device there is nothing to report.
        sql.execute(
            "INSERT INTO devices (site_id, name, ip, driver) VALUES ($1, 'Switch', '127.0.0.1', 'ping')",
            &[&site],
        )
        .unwrap();
        let dir = tempfile::Builder::new()
            .prefix("av-tls-")
            .tempdir()
            .unwrap();
        let port = free_port();
        let (authority, agents) = (Authority::new(), Authority::new());
        let (certificate, key) = authority.issue(&["localhost"], 1);
        fs::write(dir.path().join("fullchain.pem"), certificate).unwrap();
        fs::write(dir.path().join("privkey.pem"), key).unwrap();
        fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        fs::write(dir.path().join("agents-ca.pem"), agents.pem()).unwrap();
        fs::write(
            dir.path().join("agents-crl.pem"),
            agents.revocations(&[REVOKED]),
        )
        .unwrap();
        let proxy = start(proxy, certificates, &dir, port, &backend.url);
        let scene = Self {
            proxy,
            backend,
            sql,
            authority,
            agents,
            port,
            dir,
            _db: db,
        };
        scene.proxy.wait_for("the proxy listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        scene
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// An agent of Paris that trusts the proxy's authority.
    fn agent(&self) -> Agent {
        let mut agent = Agent::new(&json!({
            "site_name": "Paris", "site_token": TOKEN,
            "backend_url": format!("https://localhost:{}", self.port),
        }));
        agent.set("AV_CA_FILE", &self.path("ca.pem"));
        agent
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Everything that the proxy wrote down.
    fn logs(&self) -> String {
        let mut text = self.proxy.log();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
        text
    }
}

fn start(proxy: Proxy, certificates: bool, dir: &TempDir, port: u16, backend: &str) -> Process {
    let here = dir.path().display().to_string();
    let name = match proxy {
        Proxy::Nginx | Proxy::NginxWithWorker => "nginx.conf",
        Proxy::Caddy => "Caddyfile",
    };
    let text = fs::read_to_string(workspace().join("docs/proxy").join(name)).unwrap();
    let text = if certificates {
        replaced(text, &[("\n#cert#", "\n".to_owned())])
    } else {
        text
    };
    let backend = backend.strip_prefix("http://").unwrap().to_owned();
    let text = replaced(
        text,
        &[("127.0.0.1:8000", backend), ("/etc/ssl/av", here.clone())],
    );
    match proxy {
        Proxy::Nginx | Proxy::NginxWithWorker => {
            // All that `localhost` may be; nginx ends where there is no IPv6.
            let loopback6 = match std::net::TcpListener::bind("[::1]:0") {
                Ok(_) => format!("    listen [::1]:{port} ssl;\n"),
                Err(_) => String::new(),
            };
            let text = replaced(
                text,
                &[
                    (
                        "    listen 80;\n",
                        format!("    listen 127.0.0.1:{};\n", free_port()),
                    ),
                    ("    listen [::]:80;\n", String::new()),
                    (
                        "    listen 443 ssl",
                        format!("    listen 127.0.0.1:{port} ssl"),
                    ),
                    ("    listen [::]:443 ssl;\n", loopback6),
                    ("av.example.org", "localhost".to_owned()),
                    ("/var/log/nginx", here.clone()),
                ],
            );
            fs::write(dir.path().join("site.conf"), text).unwrap();
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|name| format!("{name}_temp_path {here}/{name};"))
                .concat();
            // Where there is no worker, nothing outlives the process.
            let processes = match proxy {
                // A worker of root's is of a user who may not look into the folder.
                Proxy::NginxWithWorker => "worker_processes 1; user root root;",
                _ => "master_process off;",
            };
            // Only root may open the log that nginx has for a server without one.
            let main = format!(
                "daemon off; {processes} pid {here}/nginx.pid; error_log {here}/main.log;\n\
                 events {{}}\nhttp {{ access_log off; {temporary} include {here}/site.conf; }}\n"
            );
            let main_file = dir.path().join("nginx.conf");
            fs::write(&main_file, main).unwrap();
            let mut command = Command::new(program("nginx"));
            command.arg("-p").arg(&here).arg("-c").arg(main_file);
            Process::spawn(command)
        }
        Proxy::Caddy => {
            let text = replaced(
                text,
                &[
                    (
                        "\n{\n",
                        "\n{\n\tadmin off\n\tauto_https disable_redirects\n".to_owned(),
                    ),
                    ("\nav.example.org {", format!("\nlocalhost:{port} {{")),
                    ("/var/log/caddy", here.clone()),
                ],
            );
            let file = dir.path().join("Caddyfile");
            fs::write(&file, text).unwrap();
            let mut command = Command::new(program("caddy"));
            command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(file)
                .env("XDG_DATA_HOME", dir.path().join("data"))
                .env("XDG_CONFIG_HOME", dir.path().join("config"));
            Process::spawn(command)
        }
    }
}

fn wait_reported(scene: &mut Scene, agent: &Agent) {
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config updated successfully!", 1);
    process.wait_for("the backend has a report", || {
        let reported = "SELECT count(*) FROM site_agents WHERE last_report_at IS NOT NULL";
        let count: i64 = scene.sql.query_one(reported, &[]).unwrap().get(0);
        (count == 1).then_some(())
    });
}

fn syncs_and_reports(proxy: Proxy) {
    let mut scene = Scene::start(proxy, false);
    // An authority that nobody named is refused in words.
    let mut stranger = Agent::new(&json!({
        "site_name": "Paris", "site_token": TOKEN,
        "backend_url": format!("https://localhost:{}", scene.port),
    }));
    let other = Authority::new();
    stranger.set("AV_CA_FILE", &scene.file("other.pem", &other.pem()));
    stranger.start();
    let process = stranger.process.as_ref().unwrap();
    process.wait_for_log(
        "is of an authority that is not trusted here; AV_CA_FILE names one",
        1,
    );
    let logs = scene.logs();
    let asked = ["\"GET /config", "\"uri\":\"/config"];
    assert!(!asked.iter().any(|line| logs.contains(line)), "{logs}");
    // Once it is named, the agent needs no restart.
    scene.file("other.pem", &scene.authority.pem());
    wait_reported(&mut scene, &stranger);
    drop(stranger);

    // The system's authorities.
    let mut agent = scene.agent();
    agent.unset("AV_CA_FILE");
    agent.set("SSL_CERT_FILE", &scene.path("ca.pem"));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("✅ Config updated successfully!", 1);
    process.wait_for_log("✅ Config is up-to-date", 2);

    // Another name than that of the certificate.
    let mut elsewhere = Agent::new(&json!({
        "site_name": "Paris", "site_token": TOKEN,
        "backend_url": format!("https://127.0.0.1:{}", scene.port),
    }));
    elsewhere.set("AV_CA_FILE", &scene.path("ca.pem"));
    elsewhere.start();
    let process = elsewhere.process.as_ref().unwrap();
    // Caddy has no certificate for a client that names no host.
    let said = match proxy {
        Proxy::Nginx | Proxy::NginxWithWorker => "certificate is that of another name",
        Proxy::Caddy => "❌ Config sync failed: backend not reachable",
    };
    process.wait_for_log(said, 1);

    // The proxy says from where a request is, and nobody who asks can.
    let client = Https::new(&scene);
    let login = |forged: &str| {
        client.send(
            "POST",
            "/login",
            &[
                ("X-Forwarded-For", forged),
                ("Content-Type", "application/json"),
            ],
            br#"{"name":"nobody","password":"wrong"}"#,
        )
    };
    assert_eq!(login("203.0.113.7").0, 401);
    let addresses = "SELECT string_agg(DISTINCT ip, ' ') FROM login_attempts";
    let seen: String = scene.sql.query_one(addresses, &[]).unwrap().get(0);
    // By whichever of the machine's own addresses it came.
    for address in seen.split(' ') {
        let address: std::net::IpAddr = address.parse().unwrap();
        assert!(address.is_loopback(), "{seen}");
    }
    // A body that is too large is refused by the backend's own words.
    let large = vec![b' '; 9 << 20];
    let headers = [
        ("X-Site-Token", TOKEN),
        ("Content-Type", "application/json"),
    ];
    // The proxy has the answer before it has the whole body. Caddy then closes
    // the connection, and a client that is still sending may miss it.
    let answered = (0..20).find_map(|_| client.try_send("POST", "/ingest", &headers, &large).ok());
    let (status, body) = answered.expect("one of 20 tries sees the answer");
    assert_eq!(status, 413, "{body}");
    assert!(body.contains("\"error\""), "{body}");
    // An earlier agent's path works, and stands in no log.
    let (status, _) = client.send("GET", &format!("/config/{TOKEN}"), &[], b"");
    assert_eq!(status, 200);
    scene.proxy.wait_for("the access log is written", || {
        scene.logs().contains("/config/...").then_some(())
    });
    assert!(!scene.logs().contains(TOKEN), "a token is in a proxy's log");
    assert!(!scene.backend.process.log().contains(TOKEN));
    // Neither is it in what the proxy says of its own errors.
    scene.backend.process.kill();
    let (status, _) = client.send("GET", "/config", &[("X-Site-Token", TOKEN)], b"");
    assert_eq!(status, 502);
    scene.proxy.wait_for("the error is logged", || {
        scene.logs().contains("502").then_some(())
    });
    assert!(!scene.logs().contains(TOKEN), "a token is in a proxy's log");
}

fn demands_certificates(proxy: Proxy) {
    let mut scene = Scene::start(proxy, true);
    let mut agent = scene.agent();
    agent.start();
    let process = agent.process.as_ref().unwrap();
    let refused = "the backend answered 403: a valid client certificate is demanded of agents";
    process.wait_for_log(refused, 1);

    // One of an authority that is not that of the agents.
    let (certificate, key) = scene.authority.issue(&["paris"], 2);
    agent.set("AV_CLIENT_CERT", &scene.file("paris.pem", &certificate));
    agent.set("AV_CLIENT_KEY", &scene.file("paris.key", &key));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    let said = match proxy {
        Proxy::Nginx | Proxy::NginxWithWorker => refused,
        Proxy::Caddy => "❌ Config sync failed: backend not reachable",
    };
    process.wait_for_log(said, 1);
    // One that was revoked; Caddy knows no lists.
    if proxy == Proxy::Nginx {
        let (certificate, key) = scene.agents.issue(&["paris"], REVOKED);
        agent.set("AV_CLIENT_CERT", &scene.file("revoked.pem", &certificate));
        agent.set("AV_CLIENT_KEY", &scene.file("revoked.key", &key));
        agent.start();
        agent.process.as_ref().unwrap().wait_for_log(refused, 1);
        agent.set("AV_CLIENT_CERT", &scene.path("paris.pem"));
        agent.set("AV_CLIENT_KEY", &scene.path("paris.key"));
        agent.start();
    }
    // That of another site, with this one's token.
    let (lyon, lyon_key) = scene.agents.issue_to("Lyon", 4);
    scene.file("paris.key", &lyon_key);
    scene.file("paris.pem", &lyon);
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log(
        "the backend answered 403: the client certificate is not that of this token's site",
        1,
    );
    let said = "a request for site Paris has the client certificate of Lyon: refused";
    scene.backend.process.wait_for_log(said, 1);
    let intruder = Https::with_certificate(&scene, &lyon, &lyon_key);
    for (method, path) in AGENT_ROUTES {
        let path = path.replace("TOKEN", TOKEN);
        // What it sends of a certificate itself counts for nothing.
        let headers = [("X-Site-Token", TOKEN), (SUBJECT, "CN=Paris")];
        let (status, body) = intruder.send(method, &path, &headers, b"{}");
        assert_eq!(status, 403, "{method} {path}: {body}");
        assert!(body.contains("this token's site"), "{path}: {body}");
        let (status, _) = Https::new(&scene).send(method, &path, &headers, b"{}");
        assert_eq!(status, 403, "{method} {path} without a certificate");
        // Past the proxy there is no certificate, and no header is believed
        // twice.
        for fields in [&headers[..1], &[headers[0], headers[1], headers[1]]] {
            let answer = scene.backend.request(method, &path, fields, Some(b"{}"));
            assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
        }
    }
    // A token that opens nothing is told so as ever.
    let (status, _) = intruder.send("GET", "/config", &[("X-Site-Token", "no such")], b"");
    assert_eq!(status, 404);

    // Its own, and no restart.
    let (certificate, key) = scene.agents.issue_to("Paris", 3);
    scene.file("paris.key", &key);
    scene.file("paris.pem", &certificate);
    wait_reported(&mut scene, &agent);
    let own = Https::with_certificate(&scene, &certificate, &key);
    for (method, path) in AGENT_ROUTES {
        let path = path.replace("TOKEN", TOKEN);
        let (status, body) = own.send(method, &path, &[("X-Site-Token", TOKEN)], b"{}");
        assert_ne!(status, 403, "{method} {path}: {body}");
    }
    // People need none.
    let (status, _) = Https::new(&scene).send("GET", "/login", &[], b"");
    assert_eq!(status, 200);
}

/// What an agent asks for with its token.
const AGENT_ROUTES: [(&str, &str); 5] = [
    ("GET", "/config"),
    ("GET", "/config/TOKEN"),
    ("POST", "/ingest"),
    ("POST", "/suggestions"),
    ("POST", "/token/renew"),
];

/// Requests over TLS, as a browser or script sends them.
struct Https {
    agent: ureq::Agent,
    base: String,
}

impl Https {
    fn new(scene: &Scene) -> Self {
        Self::with(scene, None)
    }

    fn with_certificate(scene: &Scene, certificate: &str, key: &str) -> Self {
        let certificate = ureq::tls::Certificate::from_pem(certificate.as_bytes()).unwrap();
        let key = ureq::tls::PrivateKey::from_pem(key.as_bytes()).unwrap();
        Self::with(
            scene,
            Some(ureq::tls::ClientCert::new_with_certs(&[certificate], key)),
        )
    }

    fn with(scene: &Scene, certificate: Option<ureq::tls::ClientCert>) -> Self {
        let ca = scene.authority.pem();
        let ca = ureq::tls::Certificate::from_pem(ca.as_bytes()).unwrap();
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]))
            .client_cert(certificate)
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .build();
        Self {
            agent: agent.into(),
            base: format!("https://localhost:{}", scene.port),
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String) {
        self.try_send(method, path, headers, body).unwrap()
    }

    fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, String), ureq::Error> {
        let url = format!("{}{path}", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = if method == "GET" {
            self.agent.run(request.body(())?)?
        } else {
            self.agent.run(request.body(body)?)?
        };
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), text))
    }
}

#[test]
fn through_nginx_an_agent_syncs_and_reports() {
    syncs_and_reports(Proxy::Nginx);
}

#[test]
fn through_caddy_an_agent_syncs_and_reports() {
    syncs_and_reports(Proxy::Caddy);
}

#[test]
fn nginx_demands_a_client_certificate() {
    demands_certificates(Proxy::Nginx);
}

#[test]
fn caddy_demands_a_client_certificate() {
    demands_certificates(Proxy::Caddy);
}

impl Drop for Scene {
    /// A worker outlives a master that is killed.
    fn drop(&mut self) {
        let workers = workers(self);
        self.proxy.kill();
        for worker in workers {
            let _ = signal("KILL", worker);
        }
    }
}

/// The process ids of the proxy's workers.
fn workers(scene: &Scene) -> Vec<String> {
    let master = scene.proxy.id();
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_reload_of_nginx_ends_the_session_of_a_revoked_agent() {
    const NUMBER: u64 = 7;
    let mut scene = Scene::start(Proxy::NginxWithWorker, true);
    let (certificate, key) = scene.agents.issue_to("Paris", NUMBER);
    let mut agent = scene.agent();
    agent.set("AV_CLIENT_CERT", &scene.file("paris.pem", &certificate));
    agent.set("AV_CLIENT_KEY", &scene.file("paris.key", &key));
    agent.start();
    wait_reported(&mut scene, &agent);
    // The same certificate in a client that keeps its connection and its
    // session.
    let client = Https::with_certificate(&scene, &certificate, &key);
    let headers = [("X-Site-Token", TOKEN)];
    for _ in 0..2 {
        assert_eq!(client.send("GET", "/config", &headers, b"").0, 200);
    }
    let before = workers(&scene);
    assert!(!before.is_empty());
    scene.file(
        "agents-crl.pem",
        &scene.agents.revocations(&[REVOKED, NUMBER]),
    );
    // The list is read at a reload.
    assert_eq!(client.send("GET", "/config", &headers, b"").0, 200);
    scene.proxy.signal("HUP");
    scene.proxy.wait_for("the workers are others", || {
        let now = workers(&scene);
        (!now.is_empty() && now.iter().all(|worker| !before.contains(worker))).then_some(())
    });
    // The first word on a connection that was closed meanwhile may be lost.
    let (status, body) = client
        .try_send("GET", "/config", &headers, b"")
        .or_else(|_| client.try_send("GET", "/config", &headers, b""))
        .unwrap();
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("a valid client certificate is demanded"));
    let process = agent.process.as_ref().unwrap();
    let refused = "the backend answered 403: a valid client certificate is demanded of agents";
    process.wait_for_log(refused, 1);
    // Another certificate of the same site is as good as ever.
    let (certificate, key) = scene.agents.issue_to("Paris", NUMBER + 1);
    let other = Https::with_certificate(&scene, &certificate, &key);
    assert_eq!(other.send("GET", "/config", &headers, b"").0, 200);
}

#[test]
fn files_that_cannot_serve_are_said_and_the_agent_runs() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, _) = authority.issue(&["paris"], 1);
    let (_, key) = authority.issue(&["paris"], 1);
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let mut agent = Agent::new(&json!({
        "site_name": "Paris", "site_token": TOKEN, "backend_url": "https://localhost:9",
    }));
    agent.set("AV_CA_FILE", &file("ca.pem", &authority.pem()));
    agent.set("AV_CLIENT_CERT", &file("paris.pem", &certificate));
    agent.set("AV_CLIENT_KEY", &file("paris.key", &key));
    agent.start();
    let process = agent.process.as_ref().unwrap();
    process.wait_for_log("AV_CLIENT_KEY: ", 1);
    let log = process.log();
    assert!(log.contains("is not the key of "), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    let page = process.wait_for("its page answers", || {
        http("GET", &agent.url, &[], None).ok()
    });
    assert_eq!(page.status, 200);
    assert!(Path::new(&dir.path().join("paris.key")).exists());
}
