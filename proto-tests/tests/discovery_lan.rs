//! `av-agent discover` in a network of its own: net-snmp's agent as an APC
//! power strip, a projector that answers PJLink's search, and a device that
//! answers nothing but ARP. What is found is suggested to a real backend, an
//! administrator decides, and the agent then watches what was accepted.
//!
//! The network is made of network namespaces, which need util-linux
//! (`unshare`, `nsenter`) and iproute2, and no privileges. The backend is
//! outside; a Unix socket, which belongs to no network, leads to it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of a test are outside what clippy takes for one"
)]

mod admin_support;

use std::io::{self, BufRead, BufReader};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use admin_support::Office;
use av_proto_tests::own_program;
use av_proto_tests::process::{Process, binary};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the strip says of itself, as APC's do.
const STRIP: &str = "APC Web/SNMP Management Card (MB:v4.1.0 PF:v6.9.6 MN:AP8853 HR:02)";
/// `masterSwitchrPDU2` of PowerNet-MIB.
const STRIP_OBJECT_ID: &str = "1.3.6.1.4.1.318.1.3.4.6";
/// Of a maker that the agent knows: Extron.
const MUTE_MAC: &str = "00:05:a6:00:00:02";

/// The near end has two networks. In the second the kernel asks for no
/// addresses (`arp off`): what is found there was asked for by the agent.
const NETWORK: &str = r#"
    ip link set lo up
    ip link add near type veth peer name far
    ip link add near2 type veth peer name far2 address "$MUTE_MAC"
    unshare --net sleep infinity &
    far=$!
    until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
    ip link set far netns "$far"
    ip link set far2 netns "$far"
    ip address add 10.8.0.1/29 dev near
    ip address add 10.8.1.1/29 dev near2
    ip link set near up
    ip link set near2 arp off up
    nsenter --target "$far" --net sh -euc '
        ip link set lo up
        ip address add 10.8.0.3/29 dev far
        ip address add 10.8.0.4/29 dev far
        ip address add 10.8.1.2/29 dev far2
        ip link set far up
        ip link set far2 up'
    echo "$far"
    read -r end || true
    kill "$far"
"#;

/// From a TCP port of the namespace to a Unix socket.
const RELAY: &str = r"
import asyncio, sys
async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def serve(reader, writer):
    from_there, to_there = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(carry(reader, to_there), carry(from_there, writer))
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 8000)
    print('relay ready', flush=True)
    await server.serve_forever()
asyncio.run(main())
";

/// The two namespaces; they end with the shell that holds them.
struct Lan {
    holder: Child,
    far: String,
}

impl Lan {
    /// `None` where the system lets nobody make a network.
    fn make() -> Option<Self> {
        let unshare = ["--user", "--map-root-user", "--net"];
        let possible = Command::new("unshare").args(unshare).arg("true").output();
        if !possible.as_ref().is_ok_and(|made| made.status.success()) {
            eprintln!("SKIPPED: this system lets nobody make a network namespace: {possible:?}");
            return None;
        }
        let mut holder = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-euc", NETWORK])
            .env("MUTE_MAC", MUTE_MAC)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut far = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut far)
            .unwrap();
        let far = far.trim().to_owned();
        assert!(!far.is_empty(), "the network was not made");
        Some(Self { holder, far })
    }

    /// A command in the namespace of this process.
    fn enter(process: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", process, "--user", "--net"])
            .arg("--preserve-credentials")
            .arg(program);
        command
    }

    fn near(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Self::enter(&self.holder.id().to_string(), program)
    }

    fn far(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Self::enter(&self.far, program)
    }

    /// net-snmp's agent at 10.8.0.3.
    fn strip(&self, folder: &Path) -> Process {
        let config = folder.join("snmpd.conf");
        let text = format!(
            "agentAddress udp:10.8.0.3:161\nrocommunity public\n\
             sysDescr {STRIP}\nsysObjectID .{STRIP_OBJECT_ID}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = self.far("/usr/sbin/snmpd");
        command
            .args(["-f", "-C", "-Loe", "-I", "-smux", "-c"])
            .arg(&config)
            .arg("-p")
            .arg(folder.join("pid"))
            .env("SNMP_PERSISTENT_DIR", folder.join("state"))
            .env("MIBS", "");
        let strip = Process::spawn(command);
        strip.wait_for_log("NET-SNMP version", 1);
        strip
    }

    /// A projector of class 2 at 10.8.0.4. It answers a search as the standard
    /// has it: after a while, and to port 4352.
    fn projector(&self) -> Process {
        let mut command = self.far(own_program!("pjlink-sim"));
        command
            .args(["--listen", "10.8.0.4:4352", "--class2"])
            .args(["--fault", "slow-search=1500"])
            .args(["--manufacturer", "EPSON", "--product", "EB-L730U"]);
        Process::spawn(command)
    }

    fn agent(&self, arguments: &[&str], config: &Path) -> Output {
        self.near(binary("av-agent"))
            .args(arguments)
            .args(["--rate", "200", "--search-wait", "4"])
            .env("AGENT_CONFIG", config)
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn discover(&self, network: &str, config: &Path) -> Vec<Value> {
        let output = self.agent(&["discover", network, "--json"], config);
        assert!(output.status.success(), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["found"].as_array().unwrap().clone()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // The end of its input ends the shell, and that the other namespace.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Leads each connection of a Unix socket to the backend.
fn lead(socket: &Path, backend: String) {
    let listener = UnixListener::bind(socket).unwrap();
    let carry = |mut from: UnixStream, mut to: TcpStream| {
        let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        thread::spawn(move || {
            let _ = io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Write);
        });
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if let Ok(to) = TcpStream::connect(&backend) {
                carry(stream, to);
            }
        }
    });
}

#[track_caller]
fn at<'a>(found: &'a [Value], ip: &str) -> &'a Value {
    found
        .iter()
        .find(|one| one["ip"] == ip)
        .unwrap_or_else(|| panic!("no {ip} in {found:?}"))
}

#[test]
fn what_is_found_in_a_network_is_proposed_decided_on_and_watched() {
    let Some(lan) = Lan::make() else { return };
    let dir = TempDir::new().unwrap();
    let _strip = lan.strip(dir.path());
    let projector = lan.projector();
    let office = Office::open();
    let (site, token) = office.site("Paris");
    let socket = dir.path().join("backend");
    lead(
        &socket,
        office.backend.url.trim_start_matches("http://").to_owned(),
    );
    let mut relay = lan.near("python3");
    relay.args(["-c", RELAY]).arg(&socket);
    let relay = Process::spawn(relay);
    relay.wait_for_log("relay ready", 1);
    let config = dir.path().join("config.json");
    let text = json!({
        "site_name": "Paris", "site_token": token, "backend_url": "http://127.0.0.1:8000",
    });
    std::fs::write(&config, text.to_string()).unwrap();

    // Built before something is waited for.
    let _ = binary("av-agent");
    let found = projector.wait_for("both answer", || {
        let found = lan.discover("10.8.0.0/29", &config);
        let there = |driver: &&str| found.iter().any(|one| one["driver"] == *driver);
        ["snmp", "pjlink"].iter().all(there).then_some(found)
    });
    // This machine itself, the strip and the projector.
    assert_eq!(found.len(), 3, "{found:?}");
    let strip = at(&found, "10.8.0.3");
    assert_eq!(strip["driver"], "snmp");
    assert_eq!(
        strip["driver_config"],
        json!({"snmp": {"profile": "pdu_apc"}})
    );
    assert_eq!(strip["vendor"], "APC");
    assert_eq!(strip["model"], "AP8853");
    assert!(strip["evidence"].to_string().contains(STRIP_OBJECT_ID));
    assert_eq!(strip["ports"], json!([161]));
    let beamer = at(&found, "10.8.0.4");
    assert_eq!(beamer["driver"], "pjlink");
    assert_eq!(beamer["type"], "projector");
    assert_eq!(beamer["model"], "EB-L730U");
    let evidence = beamer["evidence"].to_string();
    assert!(evidence.contains("answers the PJLink search"), "{evidence}");
    for one in [strip, beamer] {
        assert!(one["mac"].is_string(), "{one}");
        assert!(one["ping_ms"].is_number(), "{one}");
    }

    // Only the agent asks for addresses there, and only ARP is answered.
    let found = lan.discover("10.8.1.0/29", &config);
    assert_eq!(found.len(), 2, "{found:?}");
    let mute = at(&found, "10.8.1.2");
    assert_eq!(mute["mac"], MUTE_MAC);
    assert_eq!(mute["vendor"], "Extron");
    assert_eq!(mute["ping_ms"], Value::Null);
    assert_eq!(mute["driver"], "ping");

    let suggested = lan.agent(&["discover", "10.8.0.0/29", "--suggest"], &config);
    let said = String::from_utf8_lossy(&suggested.stdout).into_owned();
    assert!(suggested.status.success(), "{suggested:?}");
    assert!(said.contains("3 new or changed, 0 known"), "{said}");
    let list = office.get("/admin/suggestions?site=Paris");
    let list = list["suggestions"].as_array().unwrap();
    let decide = |ip: &str, what: &str, body: &Value| {
        let path = format!("/admin/suggestions/{}/{what}", at(list, ip)["id"]);
        let answer = office.edit("POST", &path, &[], body);
        assert!(answer.status < 300, "{answer:?}");
        answer.json()
    };
    let device = decide("10.8.0.3", "accept", &json!({"room": "Rack"}));
    decide("10.8.0.4", "dismiss", &json!({}));
    assert_eq!(device["driver_config"]["snmp"]["profile"], "pdu_apc");

    // The agent fetches what was accepted, and nothing else, and looks at it.
    let mut agent = lan.near(binary("av-agent"));
    agent
        .env("AGENT_CONFIG", &config)
        .env("AV_STATE_DIR", dir.path().join("agent"))
        .env("AV_PAGE_LISTEN", "127.0.0.1:8001")
        .env("AV_PJLINK_NOTICES", "0.0.0.0:4352")
        .env("AV_FIRST_SYNC_S", "0")
        .env("CONFIG_SYNC_INTERVAL_MIN", "0.0166667")
        .env_remove("RUST_LOG");
    let agent = Process::spawn(agent);
    let state = agent.wait_for("the strip is online in the backend", || {
        let row = office.sql.lock().unwrap().query_opt(
            "SELECT s.status, s.verdict, s.metrics::text FROM device_states s
               JOIN devices d ON d.id = s.device_id WHERE d.ip = '10.8.0.3'",
            &[],
        );
        let row = row.unwrap()?;
        let column = |n: usize| row.get::<_, Option<String>>(n).unwrap_or_default();
        (column(0) == "online").then(|| (column(1), column(2)))
    });
    assert_eq!(state.0, "ok");
    let metrics: Value = serde_json::from_str(&state.1).unwrap();
    assert_eq!(metrics["sys_descr"], STRIP);
    // A reading of the profile: asked for, and not there in this agent.
    assert_eq!(metrics.get("pdu_model"), Some(&Value::Null), "{metrics}");
    let running: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let devices = running["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 1, "{devices:?}");
    assert_eq!(devices[0]["ip"], "10.8.0.3");
    let watched: i64 = office.one(&format!(
        "SELECT count(*) FROM devices WHERE site_id = {site}"
    ));
    assert_eq!(watched, 1);

    // It has the port to which answers come, and that hides no projector.
    agent.wait_for_log("Notices of projectors are heard on 0.0.0.0:4352", 1);
    let searched = |found: &[Value]| {
        let evidence = at(found, "10.8.0.4")["evidence"].to_string();
        evidence.contains("answers the PJLink search")
    };
    let found = lan.discover("10.8.0.4", &config);
    assert!(searched(&found), "{found:?}");
    // Whoever may not have copies of what comes is told what is missing.
    let output = lan
        .near("setpriv")
        .args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"])
        .arg(binary("av-agent"))
        .args(["discover", "10.8.0.4", "--json", "--search-wait", "3"])
        .env("AGENT_CONFIG", &config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("UDP port 4352 is another program's"),
        "{said}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = document["found"].as_array().unwrap();
    assert!(!searched(found), "{found:?}");
    assert_eq!(at(found, "10.8.0.4")["driver"], "pjlink");
}
