//! The PJLink driver against the simulated projectors, which were written
//! from the standard and not from it.

// The helpers of a test are outside what clippy takes for one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it cannot have")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use av_agent::config::{ActiveConfig, BackendUrl, Identity};
use av_agent::driver::{Drivers, ProbeNow, probe_once};
use av_agent::finding::Finding;
use av_agent::pjlink::notices::Notices;
use av_agent::pjlink::search::Search;
use av_agent::supervisor::Health;
use av_proto::config::{Device, SiteConfig, SiteParts};
use av_proto::schedule::zone;
use av_proto::secret::Secret;
use av_proto::verdict::Status;
use av_proto_tests::pjlink_sim::{Class2, Config, Faults, Level, Power, Projector, State};
use crossbeam_channel::bounded;
use serde_json::{Value, json};

/// Longer than any machine is slow, where no test waits for its end.
const PATIENT_S: f64 = 30.0;

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// One of class 2 on a port of its own.
fn class2(change: impl FnOnce(&mut Config)) -> Projector {
    let mut config = Config::new(any());
    config.state.class2 = Some(Class2 {
        filter_hours: Some(321),
        mac: [2, 0, 0, 0, 0, 0x2a],
        ..Class2::default()
    });
    config.state.lamp_hours = vec![1234, 99];
    change(&mut config);
    Projector::start(config).unwrap()
}

fn device(projector: &Projector, pjlink: Value) -> String {
    let mut pjlink = pjlink;
    pjlink["port"] = projector.addr().port().into();
    json!({
        "ip": projector.addr().ip().to_string(),
        "name": "P",
        "driver": "pjlink",
        "driver_config": {"pjlink": pjlink},
    })
    .to_string()
}

fn probe(drivers: &Drivers, projector: &Projector, pjlink: Value) -> Finding {
    let utc = zone("UTC").unwrap();
    let document = device(projector, pjlink);
    let device = Device::parse(&document, &utc, &mut Vec::new()).unwrap();
    probe_once(drivers, &device)
}

#[test]
fn all_of_class_2_is_learnt_over_one_connection() {
    let projector = class2(|config| {
        config.password = Some("admin".to_owned());
        config.state.errors.filter = Level::Warning;
        config.state.other = "bay 7".to_owned();
    });
    let drivers = Drivers::start(&Health::default());
    let settings = json!({"password": "admin", "timeout_s": PATIENT_S});
    let found = probe(&drivers, &projector, settings);
    assert_eq!(found.status, Status::Online, "{found:?}");
    assert_eq!(found.detail.as_deref(), Some("on, filter warning"));
    assert_eq!(
        Value::Object(found.metrics),
        json!({
            "pjlink_ok": true,
            "pjlink_port": projector.addr().port(),
            "pjlink_auth": true,
            "pjlink_class": 2,
            "pjlink_power": 1,
            "pjlink_power_label": "on",
            "pjlink_error": null,
            "pjlink_errors": {"fan": "ok", "lamp": "ok", "temperature": "ok", "cover": "ok",
                "filter": "warning", "other": "ok"},
            "pjlink_lamps": [{"hours": 1234, "on": true}, {"hours": 99, "on": true}],
            "pjlink_lamp_hours": 1234,
            "pjlink_filter_hours": 321,
            "pjlink_input": "31",
            "pjlink_input_name": "Entrée 31",
            "pjlink_inputs": ["11", "12", "21", "31", "32", "51"],
            "pjlink_signal": true,
            "pjlink_resolution": "1920x1080",
            "pjlink_resolution_recommended": "1920x1200",
            "pjlink_mute": {"picture": false, "sound": false},
            "pjlink_frozen": false,
            "pjlink_name": "Projecteur",
            "pjlink_manufacturer": "SIMULATED",
            "pjlink_model": "PJ-1",
            "pjlink_info": "bay 7",
            "pjlink_serial_number": "SIM-0001",
            "pjlink_software_version": "1.00",
            "pjlink_lamp_models": ["SIM-LAMP"],
            "pjlink_filter_models": ["SIM-FILTER"],
        })
    );
    let counters = projector.counters();
    assert_eq!((counters.connections, counters.commands), (1, 20));
}

#[test]
fn a_laser_in_standby_is_well() {
    let projector = class2(|config| {
        config.state = State {
            power: Power::Standby,
            sleeps_in_standby: true,
            lamp_hours: Vec::new(),
            class2: Some(Class2 {
                filter_hours: None,
                lamp_models: String::new(),
                ..Class2::default()
            }),
            ..State::default()
        };
    });
    let drivers = Drivers::start(&Health::default());
    let found = probe(&drivers, &projector, json!({"timeout_s": PATIENT_S}));
    assert_eq!(found.detail.as_deref(), Some("standby"), "{found:?}");
    assert_eq!(found.metrics["pjlink_ok"], true);
    assert_eq!(found.metrics["pjlink_serial_number"], "SIM-0001");
    for absent in [
        "pjlink_lamp_hours",
        "pjlink_filter_hours",
        "pjlink_resolution",
        "pjlink_input_name",
        "pjlink_lamp_models",
    ] {
        assert!(!found.metrics.contains_key(absent), "{absent}");
    }
}

#[test]
fn whatever_a_projector_does_a_probe_ends_and_what_can_be_learnt_is() {
    let brief = json!({"password": "admin", "timeout_s": 1});
    let drivers = Drivers::start(&Health::default());
    for (fault, status, power) in [
        ("close-after-answer", Status::Online, Some(1)),
        ("slow-greeting=300", Status::Online, Some(1)),
        ("slow-answers=100", Status::Online, Some(1)),
        ("pieces=1", Status::Online, Some(1)),
        ("upper-case", Status::Online, Some(1)),
        ("lower-case", Status::Online, Some(1)),
        ("close-before-answer", Status::Online, None),
        ("garbage-answers", Status::Online, None),
        ("endless-answers", Status::Online, None),
        ("erra-greeting", Status::Online, None),
        ("garbage-greeting", Status::Offline, None),
        ("silent", Status::Offline, None),
        ("refuse", Status::Offline, None),
    ] {
        let mut faults = Faults::default();
        faults.add(fault).unwrap();
        let projector = class2(|config| {
            config.password = Some("admin".to_owned());
            config.faults = faults;
        });
        let found = probe(&drivers, &projector, brief.clone());
        assert_eq!(found.status, status, "{fault}: {found:?}");
        assert_eq!(found.metrics["pjlink_power"].as_i64(), power, "{fault}");
        assert_eq!(found.metrics["pjlink_ok"], power.is_some(), "{fault}");
    }
}

#[test]
fn a_wrong_password_never_locks_a_projector() {
    let projector = class2(|config| {
        config.password = Some("admin".to_owned());
        config.faults.lock_after = Some(3);
    });
    let drivers = Drivers::start(&Health::default());
    for _ in 0..20 {
        let settings = json!({"password": "wrong", "timeout_s": PATIENT_S});
        let found = probe(&drivers, &projector, settings);
        assert_eq!(found.status, Status::Online, "{found:?}");
        assert_eq!(
            found.metrics["pjlink_error"],
            "authentication failed (ERRA): check the password"
        );
    }
    assert_eq!(projector.counters().wrong_passwords, 2);
    let settings = json!({"password": "admin", "timeout_s": PATIENT_S});
    let found = probe(&drivers, &projector, settings);
    assert_eq!(found.metrics["pjlink_ok"], true, "{found:?}");
}

/// The standard lets a projector begin its answer after 2 s, which is what the
/// time-out is where none is configured.
#[test]
fn answers_as_slow_as_the_standard_allows_are_read() {
    let projector = class2(|config| {
        config.faults.answer_delay = Duration::from_millis(2100);
    });
    let drivers = Drivers::start(&Health::default());
    let found = probe(&drivers, &projector, json!({}));
    assert_eq!(found.status, Status::Online, "{found:?}");
    assert_eq!(found.metrics["pjlink_ok"], true, "{found:?}");
    assert_eq!(found.metrics["pjlink_power"], 1);
    assert_eq!(found.metrics["pjlink_errors"]["lamp"], "ok");
    assert_eq!(found.metrics["pjlink_lamp_hours"], 1234);
}

#[test]
fn a_refusal_that_comes_late_is_told_as_one_and_remembered() {
    let projector = class2(|config| {
        config.password = Some("admin".to_owned());
        config.faults.answer_delay = Duration::from_millis(2100);
    });
    let drivers = Drivers::start(&Health::default());
    for _ in 0..3 {
        let found = probe(&drivers, &projector, json!({"password": "wrong"}));
        assert_eq!(
            found.metrics["pjlink_error"],
            "authentication failed (ERRA): check the password"
        );
    }
    assert_eq!(projector.counters().wrong_passwords, 2);
}

#[test]
fn a_command_that_is_not_answered_costs_its_connection_and_nothing_else() {
    let projector = class2(|config| {
        config.faults.ignores.insert("ERST".to_owned());
    });
    let drivers = Drivers::start(&Health::default());
    let found = probe(&drivers, &projector, json!({"timeout_s": 1}));
    let detail = "on, lamps 1234 h and 99 h; no answer to ERST within 2 s";
    assert_eq!(found.detail.as_deref(), Some(detail), "{found:?}");
    assert_eq!(found.metrics["pjlink_filter_models"], json!(["SIM-FILTER"]));
    let counters = projector.counters();
    assert_eq!((counters.connections, counters.commands), (2, 20));
}

#[test]
fn a_search_finds_projectors_of_class_2() {
    // In place of the standard's, which may be somebody else's here.
    let free = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let projectors: Vec<Projector> = (1..=3)
        .map(|n| {
            class2(|config| {
                config.listen = format!("127.0.62.{n}:0").parse().unwrap();
                // The last one answers to where the question came from.
                config.search_port = (n < 3).then_some(port);
                if let Some(class2) = &mut config.state.class2 {
                    class2.mac = [2, 0, 0, 0, 0, n];
                }
            })
        })
        .collect();
    let class1 = Projector::start(Config::new(any())).unwrap();
    let targets: Vec<SocketAddr> = projectors
        .iter()
        .chain([&class1])
        .map(Projector::addr)
        .collect();
    let mut search = Search::at(port).unwrap();
    for target in targets {
        search.ask(target);
    }
    let mut found: Vec<(IpAddr, String)> = search
        .finish(Duration::from_secs(2))
        .unwrap()
        .into_iter()
        .map(|found| (found.ip, found.mac.to_string()))
        .collect();
    found.sort();
    let expected: Vec<(IpAddr, String)> = (1..=3)
        .map(|n| {
            (
                IpAddr::from([127, 0, 62, n]),
                format!("02:00:00:00:00:0{n}"),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_change_at_the_projector_has_it_probed() {
    let projector_ip: IpAddr = "127.0.62.9".parse().unwrap();
    let document = json!({"ip": projector_ip, "name": "P", "driver": "pjlink"});
    let parts = SiteParts {
        site_name: "S",
        ..SiteParts::default()
    };
    let devices = [serde_json::value::to_raw_value(&document).unwrap()];
    let handle = Arc::new(ArcSwap::from_pointee(ActiveConfig {
        identity: Identity {
            site_token: Secret::new("t"),
            previous_token: None,
            backend_url: BackendUrl::parse("http://backend").unwrap(),
        },
        site: SiteConfig::validate(&parts, &devices).unwrap(),
        hash: None,
        applied_at: None,
    }));
    let (running, stop) = bounded(0);
    let (probe_now, wishes) = ProbeNow::channel();
    let mut notices = Notices::listen(any(), handle, probe_now, stop).unwrap();
    let listening = notices.local_addr().unwrap();
    let thread = thread::spawn(move || notices.run());

    let projector = class2(|config| {
        config.listen = SocketAddr::new(projector_ip, 0);
        config.notify = Some(listening);
    });
    let next = || wishes.recv_timeout(Duration::from_secs(30));
    assert_eq!(next(), Ok(projector_ip), "it comes to the network");
    projector.update(|state| state.power = Power::Standby);
    assert_eq!(next(), Ok(projector_ip), "its power changes");
    projector.update(|state| {
        state.errors.lamp = Level::Error;
        state.input = "11".to_owned();
    });
    assert_eq!((next(), next()), (Ok(projector_ip), Ok(projector_ip)));
    drop(running);
    thread.join().unwrap();
}
