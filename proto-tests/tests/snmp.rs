//! The SNMP driver against simulated agents: readings, tables, thresholds, old
//! versions, and many devices at a time.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test are outside what clippy takes for one"
)]
#![allow(
    clippy::panic,
    reason = "the helpers of a test are outside what clippy takes for one"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use av_agent::driver::Reply;
use av_agent::finding::Finding;
use av_agent::snmp::Snmp;
use av_agent::supervisor::Health;
use av_proto::driver::{DriverSettings, Sections, SnmpSettings};
use av_proto::verdict::Status;
use av_proto_tests::snmp_sim::{Agent, integer, serve, text, unsigned};
use serde_json::{Value, json};

fn settings(section: &Value, port: u16) -> SnmpSettings {
    let mut section = section.clone();
    section["port"] = port.into();
    if section.get("timeout_s").is_none() {
        section["timeout_s"] = 20.into();
    }
    let sections: Sections = serde_json::from_str(&json!({"snmp": section}).to_string()).unwrap();
    match DriverSettings::parse("snmp", &sections) {
        Ok(DriverSettings::Snmp(settings)) => settings,
        other => panic!("{other:?}"),
    }
}

/// Ports of a free UDP socket each: the simulated agents take them over.
fn free(addresses: &[Ipv4Addr]) -> Vec<SocketAddr> {
    let sockets: Vec<UdpSocket> = addresses
        .iter()
        .map(|ip| UdpSocket::bind((*ip, 0)).unwrap())
        .collect();
    let address = |socket: &UdpSocket| socket.local_addr().unwrap();
    sockets.iter().map(address).collect()
}

/// Serves `agent`, and probes it.
fn read(agent: Agent, section: &Value) -> Finding {
    let address = free(&[Ipv4Addr::LOCALHOST])[0];
    thread::spawn(move || serve(vec![(address, agent)], b"public"));
    let driver = Snmp::start(&Health::default());
    // It may take a moment until it listens.
    loop {
        let found = probe(&driver, address.ip(), &settings(section, address.port()));
        if found.status == Status::Online {
            return found;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn probe(driver: &Snmp, ip: IpAddr, settings: &SnmpSettings) -> Finding {
    Reply::wait(|reply| driver.ask(ip, settings, reply))
}

#[test]
fn readings_of_every_kind() {
    let mut agent = Agent::typical("sim");
    agent
        .set("1.3.6.1.4.1.9.1.0", integer(235))
        .set("1.3.6.1.4.1.9.2.0", text("7.25"))
        .set("1.3.6.1.4.1.9.3.0", integer(2))
        .set("1.3.6.1.4.1.9.4.0", integer(1))
        // hrPrinterDetectedErrorState: noPaper and jammed.
        .set("1.3.6.1.4.1.9.5.0", vec![4, 1, 0b0100_0100])
        .set(
            "1.3.6.1.4.1.9.6.0",
            vec![4, 6, 0, 0x1b, 0x21, 0x3c, 0x4d, 0x5e],
        )
        .set(
            "1.3.6.1.4.1.9.7.0",
            vec![0x46, 9, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        )
        .set(
            "1.3.6.1.4.1.9.8.0",
            vec![0x44, 7, 0x9f, 0x78, 4, 0x41, 0x20, 0, 0],
        )
        .set("1.3.6.1.4.1.9.9.0", vec![6, 6, 0x2b, 6, 1, 4, 1, 9])
        .set("1.3.6.1.4.1.9.10.0", vec![0x40, 4, 10, 0, 0, 1])
        .set("1.3.6.1.4.1.9.12.0", integer(30))
        .set("1.3.6.1.4.1.9.13.0", integer(120));
    for version in ["1", "2c"] {
        let found = read(
            agent.clone(),
            &json!({"version": version, "oids": [
                {"oid": "1.3.6.1.4.1.9.1.0", "name": "tenths", "scale": 0.1, "unit": "V",
                 "thresholds": {"warn": {"max": 23}}},
                {"oid": "1.3.6.1.4.1.9.2.0", "name": "written"},
                {"oid": "1.3.6.1.4.1.9.3.0", "name": "state", "type": "enum",
                 "values": {"1": "ok", "2": "bad"}, "thresholds": {"expected": ["ok"]}},
                {"oid": "1.3.6.1.4.1.9.4.0", "name": "on", "type": "bool",
                 "thresholds": {"expected": [true]}},
                {"oid": "1.3.6.1.4.1.9.5.0", "name": "errors", "type": "bits",
                 "values": {"1": "noPaper", "5": "jammed"}, "thresholds": {"expected": ["noPaper"]}},
                {"oid": "1.3.6.1.4.1.9.6.0", "name": "mac", "type": "string"},
                {"oid": "1.3.6.1.4.1.9.7.0", "name": "huge", "type": "counter"},
                {"oid": "1.3.6.1.4.1.9.8.0", "name": "floating"},
                {"oid": "1.3.6.1.4.1.9.9.0", "name": "identifier", "type": "string"},
                {"oid": "1.3.6.1.4.1.9.10.0", "name": "address", "type": "string"},
                {"oid": "1.3.6.1.4.1.9.11.0", "name": "missing", "thresholds": {"crit": {"min": 1}}},
                {"oid": "1.3.6.1.4.1.9.12.0", "name": "share", "percent_of": "1.3.6.1.4.1.9.13.0",
                 "unit": "%", "thresholds": {"warn": {"min": 50}, "crit": {"min": 30}}},
                {"oid": "1.3.6.1.2.1.1.5.0", "name": "name", "type": "gauge"}
            ]}),
        );
        assert_eq!(
            found.detail.as_deref(),
            Some(
                "critical: state is bad; critical: errors is noPaper, jammed; \
                 critical: share is 25 %, below 30 %; warning: tenths is 23.5 V, above 23 V"
            )
        );
        for (name, value) in [
            ("sys_descr", json!("Simulated display, version 1")),
            ("sys_uptime", json!(12_345)),
            ("tenths", json!(23.5)),
            ("written", json!(7.25)),
            ("state", json!(2)),
            ("state_label", json!("bad")),
            ("on", json!(true)),
            ("errors", json!("noPaper, jammed")),
            ("mac", json!("00:1b:21:3c:4d:5e")),
            ("huge", json!(u64::MAX)),
            ("floating", json!(10.0)),
            ("identifier", json!("1.3.6.1.4.1.9")),
            ("address", json!("10.0.0.1")),
            ("missing", Value::Null),
            ("share", json!(25.0)),
            // A name is no number.
            ("name", Value::Null),
        ] {
            assert_eq!(found.metrics[name], value, "{name} over {version}");
        }
    }
}

#[test]
fn tables_are_walked() {
    for version in ["1", "2c"] {
        let found = read(
            Agent::typical("sim"),
            &json!({"version": version, "profile": "interface"}),
        );
        assert_eq!(found.detail, None);
        for (name, value) in [
            ("if_oper_status", json!({"lo": "up", "eth0": "up"})),
            ("if_speed", json!({"lo": 100_000_000, "eth0": 100_000_000})),
            (
                "if_in_octets",
                json!({"lo": 4_000_000_000_u32, "eth0": 4_000_000_000_u32}),
            ),
            ("if_out_errors", json!({"lo": 1, "eth0": 1})),
        ] {
            assert_eq!(found.metrics[name], value, "{name} over {version}");
        }
    }
}

#[test]
fn a_printer_is_read_by_its_profile() {
    let mut agent = Agent::typical("printer");
    agent
        .set("1.3.6.1.2.1.25.3.5.1.1.1", integer(3))
        .set("1.3.6.1.2.1.25.3.5.1.2.1", vec![4, 1, 0b0010_0000]);
    for (row, name, most, level) in [
        ("1.1", "Black", 1000, 15),
        ("1.2", "Cyan", 1000, 500),
        // -2 is "unknown" (RFC 3805).
        ("1.3", "Waste", -2, -2),
    ] {
        let cell = |column: &str| format!("1.3.6.1.2.1.43.11.1.1.{column}.{row}");
        agent
            .set(&cell("6"), text(name))
            .set(&cell("8"), integer(most))
            .set(&cell("9"), integer(level));
    }
    let found = read(agent, &json!({"profile": "printer"}));
    assert_eq!(
        found.detail.as_deref(),
        Some(
            "critical: printer_errors of 1 is lowToner; \
             critical: printer_supply_percent of Black is 1.5 %, below 2 %"
        )
    );
    assert_eq!(found.metrics["printer_status"], json!({"1": "idle"}));
    assert_eq!(
        found.metrics["printer_supply_percent"],
        json!({"Black": 1.5, "Cyan": 50.0, "Waste": null})
    );
    assert_eq!(found.metrics["printer_pages"], json!({}));
}

#[test]
fn long_tables_end_and_small_agents_are_asked_for_less() {
    let mut agent = Agent::typical("sim");
    for row in 1..=200 {
        agent.set(&format!("1.3.6.1.4.1.9.1.{row}"), integer(row));
    }
    let section = json!({"oids": [
        {"oid": "1.3.6.1.4.1.9.1.*", "name": "rows"},
        {"oid": "1.3.6.1.2.1.1.5.0", "name": "name", "type": "string"},
    ]});
    for longest in [None, Some(200)] {
        agent.longest = longest;
        let found = read(agent.clone(), &section);
        let rows = found.metrics["rows"].as_object().unwrap();
        assert_eq!(rows.len(), 64, "the bound of a table, {longest:?}");
        assert_eq!(rows["64"], 64);
        assert_eq!(found.metrics["name"], "sim");
    }
}

#[test]
fn an_agent_that_goes_in_circles_is_left() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let mut agent = Agent::typical("sim");
    agent.set("1.3.6.1.4.1.9.1.1", integer(7));
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let mut request = buffer[..length].to_vec();
            // Whatever follows the first row, it is the first row again.
            let row = [0x2b, 6, 1, 4, 1, 9, 1, 1];
            if let Some(at) = request.windows(8).position(|it| it == row) {
                request[at + 7] = 0;
            }
            let answer = agent.answer(&request, b"public").unwrap();
            let _ = socket.send_to(&answer, from);
        }
    });
    let section = json!({"version": "1", "oids": [{"oid": "1.3.6.1.4.1.9.1.*", "name": "rows"}]});
    let driver = Snmp::start(&Health::default());
    let found = probe(&driver, address.ip(), &settings(&section, address.port()));
    assert_eq!(found.metrics["rows"], json!({"1": 7}));
}

#[test]
fn hundreds_of_devices_are_in_flight_on_one_socket() {
    const DEVICES: u8 = 200;
    let ips: Vec<Ipv4Addr> = (1..=DEVICES).map(|i| Ipv4Addr::new(127, 2, 9, i)).collect();
    let addresses = free(&ips);
    // A tenth of them is silent, a tenth not there at all.
    let agents = addresses
        .iter()
        .enumerate()
        .filter(|(i, _)| i % 10 > 1)
        .map(|(_, address)| (*address, Agent::typical(&address.to_string())))
        .collect();
    let _silent: Vec<UdpSocket> = addresses
        .iter()
        .enumerate()
        .filter(|(i, _)| i % 10 == 0)
        .map(|(_, address)| UdpSocket::bind(address).unwrap())
        .collect();
    thread::spawn(move || serve(agents, b"public"));
    let driver = Snmp::start(&Health::default());
    let section = json!({"timeout_s": 3, "retries": 1, "oids": [
        {"oid": "1.3.6.1.2.1.1.5.0", "name": "name", "type": "string"},
    ]});
    // The agents listen when the last of them answers.
    let last = addresses[usize::from(DEVICES) - 1];
    let patient = settings(&section, last.port());
    while probe(&driver, last.ip(), &patient).status != Status::Online {
        thread::sleep(Duration::from_millis(20));
    }
    let (to, findings) = crossbeam_channel::unbounded();
    for (ticket, address) in addresses.iter().enumerate() {
        let settings = settings(&section, address.port());
        driver.ask(address.ip(), &settings, Reply::new(ticket, to.clone()));
    }
    drop(to);
    let mut tickets = BTreeSet::new();
    for done in findings {
        let address = addresses[done.ticket];
        let (status, name, detail) = match done.ticket % 10 {
            0 => (
                Status::Offline,
                Value::Null,
                Some(format!(
                    "no answer from port {}, or wrong community",
                    address.port()
                )),
            ),
            1 => (
                Status::Offline,
                Value::Null,
                Some(format!(
                    "port {} closed: no SNMP agent there",
                    address.port()
                )),
            ),
            _ => (Status::Online, json!(address.to_string()), None),
        };
        let found = done.finding;
        assert_eq!((found.status, found.detail), (status, detail), "{address}");
        assert_eq!(found.metrics.get("name").unwrap_or(&Value::Null), &name);
        assert!(tickets.insert(done.ticket), "answered twice");
    }
    assert_eq!(tickets.len(), usize::from(DEVICES));
}

#[test]
fn a_gauge_of_a_counter_that_wraps_stays_whole() {
    let mut agent = Agent::typical("sim");
    agent.set("1.3.6.1.4.1.9.1.0", unsigned(0x42, u32::MAX));
    let found = read(
        agent,
        &json!({"oids": [{"oid": "1.3.6.1.4.1.9.1.0", "name": "most"}]}),
    );
    assert_eq!(found.metrics["most"], u32::MAX);
}
