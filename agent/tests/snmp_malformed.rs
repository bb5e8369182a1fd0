//! Whatever an agent sends, a probe ends with an observation.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of a test are outside what clippy takes for one"
)]
#![allow(
    clippy::panic,
    reason = "the helpers of a test are outside what clippy takes for one"
)]

mod snmp_support;

use av_agent::finding::Finding;
use av_agent::snmp::replay;
use av_proto::driver::SnmpSettings;
use av_proto::verdict::Status;
use proptest::prelude::*;
use serde_json::json;

use snmp_support::settings;

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let head = match u8::try_from(content.len()).unwrap() {
        short @ 0..=0x7f => vec![tag, short],
        long => vec![tag, 0x81, long],
    };
    [head.as_slice(), content].concat()
}

fn variable(oid: &[u8], value: Vec<u8>) -> Vec<u8> {
    tlv(0x30, &[tlv(6, oid), value].concat())
}

fn pdu(kind: u8, id: u8, error: [u8; 2], variables: &[Vec<u8>]) -> Vec<u8> {
    let parts = [
        tlv(2, &[id]),
        tlv(2, &error[..1]),
        tlv(2, &error[1..]),
        tlv(0x30, &variables.concat()),
    ];
    tlv(kind, &parts.concat())
}

fn message(version: u8, pdu: &[u8]) -> Vec<u8> {
    tlv(
        0x30,
        &[&tlv(2, &[version])[..], &tlv(4, b"public"), pdu].concat(),
    )
}

/// A message of version 3, unprotected.
fn v3(id: u8, engine: &[u8], pdu: &[u8]) -> Vec<u8> {
    let header = [
        tlv(2, &[id]),
        tlv(2, &[0x7f, 0xff]),
        tlv(4, &[0]),
        tlv(2, &[3]),
    ];
    let security = [
        tlv(4, engine),
        tlv(2, &[1]),
        tlv(2, &[5]),
        tlv(4, b""),
        tlv(4, b""),
        tlv(4, b""),
    ];
    let scoped = [&tlv(4, engine)[..], &tlv(4, b""), pdu].concat();
    let parts = [
        tlv(2, &[3]),
        tlv(0x30, &header.concat()),
        tlv(4, &tlv(0x30, &security.concat())),
        tlv(0x30, &scoped),
    ];
    tlv(0x30, &parts.concat())
}

const DESCR: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 1, 0];
const UPTIME: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 3, 0];
/// usmStatsUnknownEngineIDs.0
const UNKNOWN_ENGINE: &[u8] = &[0x2b, 6, 1, 6, 3, 15, 1, 1, 4, 0];
/// ifDescr.1, ifOperStatus.1
const ROW: [&[u8]; 2] = [
    &[0x2b, 6, 1, 2, 1, 2, 2, 1, 2, 1],
    &[0x2b, 6, 1, 2, 1, 2, 2, 1, 8, 1],
];

fn base() -> Vec<Vec<u8>> {
    vec![
        variable(DESCR, tlv(4, b"Switch X")),
        variable(UPTIME, tlv(0x43, &[1, 0])),
    ]
}

fn column() -> SnmpSettings {
    settings(&json!({"oids": [
        {"oid": "1.3.6.1.2.1.2.2.1.8.*", "name": "state", "type": "enum",
         "values": {"1": "up"}, "label_oid": "1.3.6.1.2.1.2.2.1.2.*"}
    ]}))
}

fn user() -> SnmpSettings {
    settings(&json!({"version": "3", "v3": {"user": "u"}}))
}

/// Good exchanges, one for each version and one with a table.
fn exchanges() -> Vec<(SnmpSettings, Vec<Vec<u8>>)> {
    let engine = b"an engine";
    let report = pdu(
        0xa8,
        0,
        [0, 0],
        &[variable(UNKNOWN_ENGINE, tlv(0x41, &[1]))],
    );
    let rows = [
        variable(ROW[1], tlv(2, &[1])),
        variable(ROW[0], tlv(4, b"lo")),
        variable(ROW[1], vec![0x82, 0]),
        variable(ROW[0], vec![0x82, 0]),
    ];
    vec![
        (
            settings(&json!({"version": "1"})),
            vec![message(0, &pdu(0xa2, 1, [0, 0], &base()))],
        ),
        (
            settings(&json!({})),
            vec![message(1, &pdu(0xa2, 1, [0, 0], &base()))],
        ),
        (
            column(),
            vec![
                message(1, &pdu(0xa2, 1, [0, 0], &base())),
                message(1, &pdu(0xa2, 2, [0, 0], &rows)),
            ],
        ),
        (
            user(),
            vec![
                v3(1, engine, &report),
                v3(2, engine, &pdu(0xa2, 2, [0, 0], &base())),
            ],
        ),
    ]
}

fn run(settings: &SnmpSettings, datagrams: &[Vec<u8>]) -> Finding {
    let datagrams: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    replay(settings, &datagrams)
}

#[test]
fn the_exchanges_are_good() {
    for (settings, datagrams) in exchanges() {
        let found = run(&settings, &datagrams);
        assert_eq!(found.status, Status::Online);
        assert_eq!(found.detail, None, "{settings:?}");
        assert_eq!(found.metrics["sys_descr"], "Switch X");
        assert_eq!(found.metrics["sys_uptime"], 256);
        // Without the last one nothing is claimed to be whole.
        let found = run(&settings, &datagrams[..datagrams.len() - 1]);
        assert!(found.detail.is_some());
    }
    let (settings, datagrams) = exchanges().swap_remove(2);
    let found = run(&settings, &datagrams);
    assert_eq!(found.metrics["state"], json!({"lo": "up"}));
}

#[test]
fn what_is_no_answer_is_named() {
    let good = |kind, id| message(1, &pdu(kind, id, [0, 0], &base()));
    let mut nested = tlv(0x30, &[]);
    for _ in 0..60 {
        nested = tlv(0x30, &nested);
    }
    let with = |variables: &[Vec<u8>]| message(1, &pdu(0xa2, 1, [0, 0], variables));
    let malformed = "answers from port 161 are not valid SNMP";
    let other = "answers from port 161 are not SNMP v2c responses";
    let request = "answers from port 161 are not to our request (wrong request id)";
    for (case, bytes, said) in [
        ("empty", vec![], malformed),
        ("text", b"hello".to_vec(), malformed),
        ("only a tag", vec![0x30], malformed),
        ("indefinite length", vec![0x30, 0x80, 0, 0], malformed),
        (
            "length beyond any",
            [&[0x30, 0x88][..], &[0xff; 9]].concat(),
            malformed,
        ),
        (
            "length beyond the end",
            vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0],
            malformed,
        ),
        ("nested without end", nested, malformed),
        (
            "uptime of no bytes",
            with(&[variable(UPTIME, tlv(0x43, &[]))]),
            malformed,
        ),
        (
            "an integer of no bytes in what is no sequence",
            with(&[tlv(4, &[tlv(6, DESCR), tlv(2, &[])].concat())]),
            malformed,
        ),
        (
            "an identifier of no bytes",
            with(&[variable(&[], tlv(4, b""))]),
            malformed,
        ),
        (
            "an identifier without end",
            with(&[variable(&[0x2b, 0x80], tlv(4, b""))]),
            malformed,
        ),
        (
            "a variable without a value",
            with(&[tlv(0x30, &tlv(6, DESCR))]),
            malformed,
        ),
        (
            "an address of five bytes",
            with(&[variable(DESCR, tlv(0x40, &[1; 5]))]),
            malformed,
        ),
        (
            "an integer of nine bytes",
            with(&[variable(DESCR, tlv(2, &[1; 9]))]),
            malformed,
        ),
        (
            "no variables at all",
            message(1, &tlv(0xa2, &tlv(2, &[1]))),
            malformed,
        ),
        (
            "version 1",
            message(0, &pdu(0xa2, 1, [0, 0], &base())),
            other,
        ),
        (
            "version 7",
            message(7, &pdu(0xa2, 1, [0, 0], &base())),
            other,
        ),
        ("a request", good(0xa0, 1), other),
        ("a report", good(0xa8, 1), other),
        ("a trap", good(0xa7, 1), other),
        ("another request's", good(0xa2, 2), request),
        (
            "another community",
            tlv(
                0x30,
                &[tlv(2, &[1]), tlv(4, b"x"), pdu(0xa2, 1, [0, 0], &base())].concat(),
            ),
            "answers from port 161 carry another community",
        ),
    ] {
        let found = run(&settings(&json!({})), &[bytes]);
        assert_eq!(found.status, Status::Offline, "{case}");
        assert_eq!(found.detail.as_deref(), Some(said), "{case}");
        assert_eq!(found.metrics["snmp_ok"], false, "{case}");
    }
}

#[test]
fn answers_that_are_odd_and_valid() {
    let answers = |variables: &[Vec<u8>]| message(1, &pdu(0xa2, 1, [0, 0], variables));
    for (case, variables, descr, detail) in [
        (
            "several lines, a C string's end",
            vec![variable(DESCR, tlv(4, b" Cisco IOS\r\n\tVersion 15 \0\0"))],
            Some("Cisco IOS Version 15"),
            None,
        ),
        (
            "hostile and not UTF-8",
            vec![variable(DESCR, tlv(4, b"Caf\xe9 \x1b[31m\xe2\x80\xae"))],
            Some("Caf\u{fffd} \u{fffd}[31m\u{fffd}"),
            None,
        ),
        (
            "not text",
            vec![variable(DESCR, tlv(4, &[0, 1, 2, 0xff]))],
            Some("00:01:02:ff"),
            None,
        ),
        (
            "nothing",
            vec![],
            None,
            Some("agent answers, but without sysDescr"),
        ),
        (
            "hidden",
            vec![variable(DESCR, tlv(0x80, &[]))],
            None,
            Some("agent answers, but has no sysDescr for this community (noSuchObject)"),
        ),
        (
            "of another type",
            vec![variable(DESCR, tlv(2, &[7]))],
            None,
            Some("agent answers, but without sysDescr"),
        ),
        (
            "of other names",
            vec![variable(&[0x2b, 6], tlv(4, b"x"))],
            None,
            Some("agent answers, but without sysDescr"),
        ),
    ] {
        let found = run(&settings(&json!({})), &[answers(&variables)]);
        assert_eq!(found.status, Status::Online, "{case}");
        assert_eq!(found.metrics["sys_descr"].as_str(), descr, "{case}");
        assert_eq!(found.detail.as_deref(), detail, "{case}");
    }
    let padded = [answers(&base()), vec![0; 9]].concat();
    assert_eq!(run(&settings(&json!({})), &[padded]).detail, None);
}

#[test]
fn version_1_is_asked_again_without_what_is_not_there() {
    let settings = settings(&json!({"version": "1", "oids": [
        {"oid": "1.3.6.1.4.1.9.1.0", "name": "missing"},
    ]}));
    let missing = pdu(0xa2, 1, [2, 3], &base());
    let rest = pdu(0xa2, 2, [0, 0], &base());
    let found = run(&settings, &[message(0, &missing), message(0, &rest)]);
    assert_eq!(found.detail, None);
    assert_eq!(found.metrics["sys_descr"], "Switch X");
    assert!(found.metrics["missing"].is_null());
}

#[test]
fn engines_that_contradict_themselves_are_left() {
    let report = |counter: u8| {
        let mut oid = UNKNOWN_ENGINE.to_vec();
        oid[8] = counter;
        pdu(0xa8, 0, [0, 0], &[variable(&oid, tlv(0x41, &[1]))])
    };
    // Another identifier each time, and a clock that is always wrong.
    let changing: Vec<Vec<u8>> = (1..=9).map(|id| v3(id, &[id; 9], &report(4))).collect();
    let late: Vec<Vec<u8>> = (1..=9)
        .map(|id| v3(id, b"an engine", &report(if id == 1 { 4 } else { 2 })))
        .collect();
    for (datagrams, said) in [
        (changing, "usmStatsUnknownEngineIDs"),
        (late, "usmStatsNotInTimeWindows"),
        (vec![v3(1, b"", &report(4))], "usmStatsUnknownEngineIDs"),
        (
            vec![
                v3(1, b"an engine", &report(4)),
                v3(2, b"an engine", &report(3)),
            ],
            "usmStatsUnknownUserNames",
        ),
        (vec![v3(1, b"an engine", &report(99))], "says nothing known"),
    ] {
        let found = run(&user(), &datagrams);
        assert_eq!(found.status, Status::Online);
        let detail = found.detail.unwrap();
        assert!(detail.contains(said), "{detail}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_end_in_an_observation(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4)
    ) {
        for (settings, _) in exchanges() {
            let found = run(&settings, &datagrams);
            prop_assert_eq!(&found.metrics["snmp_ok"], &json!(false));
        }
    }

    #[test]
    fn damaged_answers_end_in_an_observation(
        which in 0..4_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let (settings, mut datagrams) = exchanges().swap_remove(which);
        for (at, byte) in damage {
            let datagram = at.index(datagrams.len());
            let place = at.index(datagrams[datagram].len());
            datagrams[datagram][place] = byte;
        }
        if is_cut {
            let last = datagrams.last_mut().unwrap();
            last.truncate(cut.index(last.len()));
        }
        let found = run(&settings, &datagrams);
        prop_assert!(found.metrics.contains_key("snmp_ok"));
        let detail = found.detail.unwrap_or_default();
        prop_assert!(detail.chars().count() <= 280);
    }
}
