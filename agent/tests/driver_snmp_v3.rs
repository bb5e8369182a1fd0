//! Version 3 against a real net-snmp agent: every protocol, wrong passwords,
//! restarts, and a network that tampers with datagrams.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod snmp_support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use av_agent::finding::Finding;
use av_agent::snmp::Snmp;
use av_proto::driver::{SnmpCipher, SnmpHash};
use av_proto::verdict::Status;
use serde_json::{Value, json};

use snmp_support::{Snmpd, driver, probe, settings};

const AUTH: &str = "auth-Word-1";
const PRIVACY: &str = "priv-Word-1";

/// A user for every pair of protocols, named after it, in net-snmp's words.
fn config() -> String {
    let mut config = "sysDescr a v3 agent\n\
         createUser nobody\nrouser nobody noauth\n\
         view interfaces included .1.3.6.1.2.1.2\n"
        .to_owned();
    for (hash_name, hash) in SnmpHash::ALL {
        let net_snmp = match hash {
            SnmpHash::Sha1 => "SHA",
            _ => hash_name,
        };
        config += &format!("createUser {hash_name} {net_snmp} {AUTH}\nrouser {hash_name} auth\n");
        for (cipher_name, cipher) in SnmpCipher::ALL {
            let net_snmp_cipher = match cipher {
                SnmpCipher::Aes128 => "AES",
                _ => cipher_name,
            };
            let user = format!("{hash_name}.{cipher_name}");
            config += &format!(
                "createUser {user} {net_snmp} {AUTH} {net_snmp_cipher} {PRIVACY}\n\
                 rouser {user} priv\n"
            );
        }
    }
    config
}

fn ask(driver: &Snmp, address: SocketAddr, v3: &Value) -> Finding {
    ask_within(driver, address, v3, 20.0)
}

fn ask_within(driver: &Snmp, address: SocketAddr, v3: &Value, timeout_s: f64) -> Finding {
    let settings = settings(&json!({
        "version": "3", "v3": v3, "port": address.port(), "timeout_s": timeout_s, "retries": 1,
    }));
    let found = probe(driver, address.ip(), &settings);
    let shown = format!("{found:?} {settings:?}");
    for secret in [AUTH, PRIVACY] {
        assert!(!shown.contains(secret), "a password is shown");
    }
    found
}

fn pair(hash: &str, cipher: &str) -> Value {
    json!({
        "user": format!("{hash}.{cipher}"),
        "auth_protocol": hash, "auth_password": AUTH,
        "priv_protocol": cipher, "priv_password": PRIVACY,
    })
}

fn assert_read(found: &Finding, case: &str) {
    assert_eq!(found.status, Status::Online, "{case}: {found:?}");
    assert_eq!(found.detail, None, "{case}");
    assert_eq!(found.metrics["sys_descr"], "a v3 agent", "{case}");
    assert!(found.metrics["sys_uptime"].is_u64(), "{case}");
}

#[test]
fn every_protocol() {
    let snmpd = Snmpd::start(config().as_bytes());
    let driver = driver();
    let nobody = json!({"user": "nobody"});
    assert_read(&ask(&driver, snmpd.v4, &nobody), "noAuthNoPriv");
    for (hash, _) in SnmpHash::ALL {
        let user = json!({"user": hash, "auth_protocol": hash, "auth_password": AUTH});
        assert_read(&ask(&driver, snmpd.v4, &user), hash);
        for (cipher, _) in SnmpCipher::ALL {
            let user = pair(hash, cipher);
            let case = format!("{hash} with {cipher}");
            assert_read(&ask(&driver, snmpd.v4, &user), &case);
        }
    }
    assert_read(&ask(&driver, snmpd.v6, &pair("SHA-256", "AES-128")), "IPv6");
}

#[test]
fn what_the_agent_does_not_accept_is_told() {
    let snmpd = Snmpd::start(config().as_bytes());
    let driver = driver();
    let good = pair("SHA-256", "AES-128");
    let with = |field: &str, value: &str| {
        let mut user = good.clone();
        user[field] = value.into();
        user
    };
    for (case, user, said) in [
        (
            "user",
            with("user", "stranger"),
            "agent refuses: it does not know the user (usmStatsUnknownUserNames)",
        ),
        (
            "authentication password",
            with("auth_password", "something else"),
            "agent refuses: wrong authentication password or protocol (usmStatsWrongDigests)",
        ),
        (
            "authentication protocol",
            with("auth_protocol", "SHA-512"),
            "agent refuses: wrong authentication password or protocol (usmStatsWrongDigests)",
        ),
        (
            "privacy where the user has none",
            with("user", "SHA-256"),
            "agent refuses: the user may not ask at this security level (usmStatsUnsupportedSecLevels)",
        ),
        (
            "less than the user must",
            with("level", "authNoPriv"),
            "agent refuses: authorizationError (16): check the community's rights",
        ),
    ] {
        let found = ask(&driver, snmpd.v4, &user);
        assert_eq!(found.status, Status::Online, "{case}");
        assert_eq!(found.detail.as_deref(), Some(said), "{case}");
        assert_eq!(found.metrics["snmp_ok"], false, "{case}");
        assert!(found.metrics["sys_descr"].is_null(), "{case}");
        // It is not held against the right one.
        assert_read(&ask(&driver, snmpd.v4, &good), case);
    }
}

#[test]
fn an_agent_that_cannot_decrypt_says_no_more_than_who_it_is() {
    let snmpd = Snmpd::start(config().as_bytes());
    let driver = driver();
    let good = pair("SHA-256", "AES-128");
    for field in ["priv_password", "context"] {
        let mut user = good.clone();
        user[field] = "something else".into();
        for time in ["first", "second"] {
            let found = ask_within(&driver, snmpd.v4, &user, 0.5);
            assert_eq!(found.status, Status::Online, "{field}, {time}");
            let said = "agent refuses: it says who it is, but not more: wrong privacy password or protocol, or it does not have the context";
            assert_eq!(found.detail.as_deref(), Some(said), "{field}, {time}");
            assert_eq!(found.metrics["snmp_ok"], false);
        }
        assert_read(&ask(&driver, snmpd.v4, &good), field);
    }
}

/// A network between the driver and an agent.
struct Network {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

type Tamper = Box<dyn FnMut(usize, Vec<u8>) -> Vec<Vec<u8>> + Send>;

impl Network {
    /// `tamper` gets each answer with its number, from 0, and says what
    /// arrives of it.
    fn start(agent: SocketAddr, tamper: Arc<Mutex<Tamper>>) -> Self {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        far.connect(agent).unwrap();
        far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let address = near.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
            move || {
                let mut buffer = [0; 4096];
                loop {
                    let (length, from) = near.recv_from(&mut buffer).unwrap();
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let number = requests.fetch_add(1, Ordering::SeqCst);
                    far.send(&buffer[..length]).unwrap();
                    let length = far.recv(&mut buffer).unwrap();
                    let answer = buffer[..length].to_vec();
                    for bytes in (tamper.lock().unwrap())(number, answer) {
                        near.send_to(&bytes, from).unwrap();
                    }
                }
            }
        });
        Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let waker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        waker.send_to(b"end", self.address).unwrap();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn untouched() -> Arc<Mutex<Tamper>> {
    Arc::new(Mutex::new(Box::new(|_, answer| vec![answer])))
}

#[test]
fn an_engine_is_discovered_once_and_found_again_after_a_restart() {
    let mut snmpd = Snmpd::start(config().as_bytes());
    let network = Network::start(snmpd.v4, untouched());
    let driver = driver();
    let user = pair("SHA-1", "DES");
    let ask = |case| assert_read(&ask(&driver, network.address, &user), case);
    ask("first");
    assert_eq!(network.requests(), 2, "discovery, then the request");
    ask("second");
    assert_eq!(network.requests(), 1, "the engine is known");
    // It counts its starts: our clock is out of its window.
    snmpd.restart(|_| {});
    ask("restarted");
    assert_eq!(network.requests(), 2, "once more with its new clock");
    ask("after the restart");
    assert_eq!(network.requests(), 1);
    // It has forgotten everything, and has another identifier.
    snmpd.restart(|folder| std::fs::remove_dir_all(folder.join("state")).unwrap());
    ask("reset");
    assert_eq!(network.requests(), 2, "once more to its new identifier");
    ask("after the reset");
    assert_eq!(network.requests(), 1);
}

#[test]
fn an_agent_that_forgets_how_often_it_started_is_believed() {
    let config = format!("exactEngineID 0x80001f8804617661676e74\n{}", config());
    let mut snmpd = Snmpd::start(config.as_bytes());
    snmpd.restart(|_| {});
    let driver = driver();
    let user = pair("SHA-256", "AES-256");
    assert_read(&ask(&driver, snmpd.v4, &user), "second start");
    snmpd.restart(|folder| std::fs::remove_dir_all(folder.join("state")).unwrap());
    assert_read(&ask(&driver, snmpd.v4, &user), "first start again");
    assert_read(&ask(&driver, snmpd.v4, &user), "and again");
}

#[test]
fn tampered_answers_are_not_believed() {
    let snmpd = Snmpd::start(config().as_bytes());
    let tamper = untouched();
    let network = Network::start(snmpd.v4, Arc::clone(&tamper));
    let driver = driver();
    for cipher in ["DES", "AES-128"] {
        let user = pair("SHA-512", cipher);
        // A byte of each answer is another; the right one comes after it.
        *tamper.lock().unwrap() = Box::new(|_, answer| {
            let at = answer.len() - 3;
            let mut bad = answer.clone();
            bad[at] ^= 0x40;
            vec![bad, answer]
        });
        assert_read(&ask(&driver, network.address, &user), cipher);
        *tamper.lock().unwrap() = Box::new(|_, mut answer| {
            let at = answer.len() - 3;
            answer[at] ^= 0x40;
            vec![answer]
        });
        let found = ask_within(&driver, network.address, &user, 0.5);
        let port = network.address.port();
        let said = format!(
            "answers from port {port} are not authentic: another password there, or a forger"
        );
        assert_eq!(found.status, Status::Offline);
        assert_eq!(found.detail, Some(said));
        assert!(found.metrics["sys_descr"].is_null());
    }
    // What was recorded yesterday says nothing today.
    let user = pair("SHA-512", "AES-128");
    let recorded = Arc::new(Mutex::new(Vec::new()));
    *tamper.lock().unwrap() = Box::new({
        let recorded = Arc::clone(&recorded);
        move |_, answer| {
            recorded.lock().unwrap().push(answer.clone());
            vec![answer]
        }
    });
    assert_read(&ask(&driver, network.address, &user), "recorded");
    let last = recorded.lock().unwrap().last().unwrap().clone();
    *tamper.lock().unwrap() = Box::new(move |_, _| vec![last.clone()]);
    let found = ask_within(&driver, network.address, &user, 0.5);
    assert_eq!(found.status, Status::Offline, "{found:?}");
}
