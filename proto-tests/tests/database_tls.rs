//! TLS from the backend to a PostgreSQL that takes nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use av_proto_tests::authority::Authority;
use av_proto_tests::pg::Cluster;
use av_proto_tests::process::{Backend, backend_command};
use tempfile::TempDir;

/// A server that is known by this name, and speaks TLS alone over TCP.
fn server(authority: &Authority, name: &str) -> Cluster {
    let (certificate, key) = authority.server_pem(&[name]);
    Cluster::start_with(|data: &Path| {
        write(data.join("server.crt"), certificate).unwrap();
        write(data.join("server.key"), key).unwrap();
        set_permissions(data.join("server.key"), Permissions::from_mode(0o600)).unwrap();
        // The test's own way in, which starts the server, is the database
        // "postgres".
        write(
            data.join("pg_hba.conf"),
            "host postgres all 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 trust\n",
        )
        .unwrap();
        "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n".to_owned()
    })
}

fn migrate(url: &str) -> Output {
    backend_command(url).arg("migrate").output().unwrap()
}

fn authority_file(dir: &TempDir, name: &str, authority: &Authority) -> PathBuf {
    let file = dir.path().join(name);
    write(&file, authority.pem()).unwrap();
    file
}

#[test]
fn what_each_sslmode_demands_is_proved_or_nothing_is_said() {
    let (ours, others) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let ours_file = authority_file(&dir, "ours.pem", &ours);
    let others_file = authority_file(&dir, "others.pem", &others);
    let named = server(&ours, "127.0.0.1");
    let misnamed = server(&ours, "db.example.org");
    for (cluster, options, said) in [
        (&named, String::new(), Some("no encryption")),
        (&named, "?sslmode=disable".to_owned(), Some("no encryption")),
        (&named, "?sslmode=require".to_owned(), None),
        (&misnamed, "?sslmode=require".to_owned(), None),
        (
            &named,
            "?sslmode=verify-full".to_owned(),
            Some("invalid peer certificate"),
        ),
        (
            &named,
            format!("?sslmode=verify-full&sslrootcert={}", ours_file.display()),
            None,
        ),
        (
            &misnamed,
            format!("?sslmode=verify-full&sslrootcert={}", ours_file.display()),
            Some("not valid for name"),
        ),
        (
            &misnamed,
            format!("?sslmode=verify-ca&sslrootcert={}", ours_file.display()),
            None,
        ),
        (
            &named,
            format!("?sslmode=verify-ca&sslrootcert={}", others_file.display()),
            Some("invalid peer certificate"),
        ),
        (
            &named,
            format!("?sslmode=require&sslrootcert={}", others_file.display()),
            Some("invalid peer certificate"),
        ),
        (
            &named,
            "?sslmode=verify-full&sslrootcert=/nowhere/ca.pem".to_owned(),
            Some("sslrootcert /nowhere/ca.pem"),
        ),
    ] {
        let database = cluster.create_database();
        let output = migrate(&format!("{}{options}", database.url()));
        let stderr = String::from_utf8_lossy(&output.stderr);
        match said {
            None => assert!(output.status.success(), "{options}: {stderr}"),
            Some(said) => {
                assert_eq!(output.status.code(), Some(1), "{options}");
                // A machine without authorities says so instead.
                let none = options == "?sslmode=verify-full"
                    && stderr.contains("no certificate of an authority");
                assert!(stderr.contains(said) || none, "{options}: {stderr}");
            }
        }
    }
}

#[test]
fn every_connection_of_a_backend_is_encrypted() {
    let ours = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let file = authority_file(&dir, "ours.pem", &ours);
    let cluster = server(&ours, "127.0.0.1");
    let database = cluster.create_database();
    let backend = Backend::start(&format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        database.url(),
        file.display()
    ));
    backend
        .process
        .wait_for_log("listening for changed configurations", 1);
    let mut sql = postgres::Client::connect(&cluster.url("postgres"), postgres::NoTls).unwrap();
    let rows = sql
        .query(
            "SELECT a.application_name, s.ssl, s.version
               FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
              WHERE a.application_name LIKE 'av-backend%'",
            &[],
        )
        .unwrap();
    assert!(rows.len() >= 2, "{rows:?}");
    for row in &rows {
        assert!(row.get::<_, bool>(1), "{rows:?}");
        assert_eq!(row.get::<_, String>(2), "TLSv1.3");
    }
    assert_eq!(backend.get("/health").status, 200);
}
