//! What the tests of the SNMP driver share: the driver, and net-snmp's agent.

// Each test is a program of its own and uses a part of this.
#![allow(dead_code, clippy::expect_used)]

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use av_agent::driver::Reply;
use av_agent::finding::Finding;
use av_agent::snmp::Snmp;
use av_agent::supervisor::Health;
use av_proto::driver::{DriverSettings, Sections, SnmpSettings};
use av_proto::verdict::Status;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A community that every [`Snmpd`] knows, besides those of its test.
const READY: &str = "is-it-ready";

pub fn driver() -> Snmp {
    Snmp::start(&Health::default())
}

/// The settings of a `driver_config.snmp`.
pub fn settings(section: &Value) -> SnmpSettings {
    let config = json!({"snmp": section}).to_string();
    let sections: Sections = serde_json::from_str(&config).unwrap();
    match DriverSettings::parse("snmp", &sections) {
        Ok(DriverSettings::Snmp(settings)) => settings,
        other => panic!("{other:?}"),
    }
}

pub fn probe(driver: &Snmp, ip: IpAddr, settings: &SnmpSettings) -> Finding {
    Reply::wait(|reply| driver.ask(ip, settings, reply))
}

/// A net-snmp agent of our own, on IPv4 and IPv6 loopback.
pub struct Snmpd {
    process: Child,
    pub v4: SocketAddr,
    pub v6: SocketAddr,
    pub folder: TempDir,
}

impl Snmpd {
    /// `config` is what `snmpd.conf` has beside the addresses.
    pub fn start(config: &[u8]) -> Self {
        let free = |host: &str| {
            let socket = UdpSocket::bind(format!("{host}:0")).unwrap();
            socket.local_addr().unwrap()
        };
        let (v4, v6) = (free("127.0.0.1"), free("[::1]"));
        let folder = tempfile::tempdir().unwrap();
        let head = format!(
            "agentAddress udp:127.0.0.1:{},udp6:[::1]:{}\nrocommunity {READY} 127.0.0.1\n",
            v4.port(),
            v6.port()
        );
        fs::write(
            folder.path().join("snmpd.conf"),
            [head.as_bytes(), config].concat(),
        )
        .unwrap();
        let process = run(folder.path());
        let mut snmpd = Self {
            process,
            v4,
            v6,
            folder,
        };
        snmpd.wait();
        snmpd
    }

    fn wait(&mut self) {
        let settings = settings(&json!({
            "community": READY, "port": self.v4.port(), "timeout_s": 0.3, "retries": 0,
        }));
        let driver = driver();
        let limit = Instant::now() + Duration::from_secs(60);
        while probe(&driver, self.v4.ip(), &settings).status != Status::Online {
            let ended = self.process.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < limit,
                "snmpd does not serve ({ended:?}):\n{}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it in an orderly way, so that it saves its state, and starts it
    /// again on the same ports after `between`.
    pub fn restart(&mut self, between: impl FnOnce(&Path)) {
        // By the shell: a minimal Debian has no program `kill`.
        let status = Command::new("/bin/sh")
            .args(["-c", &format!("kill {}", self.process.id())])
            .status()
            .unwrap();
        assert!(status.success());
        self.process.wait().unwrap();
        between(self.folder.path());
        self.process = run(self.folder.path());
        self.wait();
    }
}

fn run(folder: &Path) -> Child {
    let program = ["/usr/sbin/snmpd", "/usr/local/sbin/snmpd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("there is no snmpd: install the Debian package snmpd");
    let log = fs::File::create(folder.join("log")).unwrap();
    Command::new(program)
        .args(["-f", "-C", "-Loe", "-I", "-smux", "-c"])
        .arg(folder.join("snmpd.conf"))
        .arg("-p")
        .arg(folder.join("pid"))
        .env("SNMP_PERSISTENT_DIR", folder.join("state"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
