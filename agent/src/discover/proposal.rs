//! From what was seen of an address to what it is and how to watch it: pure.

use std::collections::BTreeSet;

use av_proto::driver::Profile;
use av_proto::suggestion::{EVIDENCE_MAX, Found, LINE_MAX_CHARS, WORD_MAX_CHARS};
use av_proto::text::excerpt;
use serde_json::json;

use super::maker::{Mac, Makers};
use crate::pjlink::refusal::Refusal;

/// The PJLink port (JBMIA, PJLink specification, section 2).
pub const PJLINK_PORT: u16 = 4352;

/// What was seen of one address.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Round trip of an ICMP echo, in milliseconds.
    pub echo_ms: Option<f64>,
    /// Its interface.
    pub mac: Option<Mac>,
    /// What it says of itself over SNMP.
    pub snmp: Option<SnmpEvidence>,
    /// What it says of itself over PJLink.
    pub pjlink: Option<PjlinkEvidence>,
    /// It answered the search of PJLink class 2.
    pub searched: bool,
    /// TCP ports that take connections.
    pub ports: BTreeSet<u16>,
}

/// The system group of MIB-2 (RFC 3418).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SnmpEvidence {
    /// `sysDescr.0`.
    pub description: String,
    /// `sysObjectID.0`, dotted.
    pub object_id: Option<String>,
    /// Whether the community was another than `public`, which a proposal must
    /// not hold.
    pub own_community: bool,
}

/// What a projector says over PJLink.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PjlinkEvidence {
    /// `INF1`: the manufacturer.
    pub manufacturer: Option<String>,
    /// `INF2`: the product.
    pub product: Option<String>,
    /// `NAME`.
    pub name: Option<String>,
    /// Why it tells nothing.
    pub refusal: Option<Refusal>,
}

impl Evidence {
    /// Whether anything is there at all.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.echo_ms.is_some()
            || self.mac.is_some()
            || self.snmp.is_some()
            || self.pjlink.is_some()
            || self.searched
            || !self.ports.is_empty()
    }
}

/// What is proposed for an address of which this was seen. `drivers` are the
/// agent's own.
#[must_use]
pub fn propose(ip: &str, evidence: &Evidence, makers: &Makers, drivers: &[&str]) -> Found {
    let pjlink = evidence.pjlink.as_ref();
    let snmp = evidence.snmp.as_ref();
    let said = |text: Option<&String>| {
        text.map(|text| excerpt(text.trim(), WORD_MAX_CHARS))
            .filter(|text| !text.is_empty())
    };
    let vendor = said(pjlink.and_then(|it| it.manufacturer.as_ref()))
        .map(|vendor| known_vendor(&vendor).map_or(vendor, str::to_owned))
        .or_else(|| {
            let snmp = snmp?;
            known_vendor(&snmp.description)
                .or_else(|| enterprise(snmp.object_id.as_deref()?))
                .map(str::to_owned)
        })
        .or_else(|| Some(excerpt(makers.of(evidence.mac?)?, WORD_MAX_CHARS)));
    let model = said(pjlink.and_then(|it| it.product.as_ref()))
        .or_else(|| model(&snmp?.description).map(|model| excerpt(&model, WORD_MAX_CHARS)));
    let name = said(pjlink.and_then(|it| it.name.as_ref())).or_else(|| {
        match (&vendor, &model) {
            (Some(vendor), Some(model)) if !model.starts_with(vendor.as_str()) => {
                Some(format!("{vendor} {model}"))
            }
            (_, Some(model)) => Some(model.clone()),
            (Some(vendor), None) => Some(vendor.clone()),
            (None, None) => None,
        }
        .map(|name| excerpt(&name, WORD_MAX_CHARS))
    });
    let (driver, driver_config) = match driver(evidence, drivers) {
        Some((driver, config)) => (Some(driver.to_owned()), config),
        None => (None, None),
    };
    Found {
        ip: ip.to_owned(),
        mac: evidence.mac.map(|mac| mac.to_string()),
        vendor,
        model,
        name,
        device_type: device_type(evidence).map(str::to_owned),
        driver,
        driver_config,
        evidence: lines(evidence, makers),
    }
}

/// The driver that tells most, and its settings where the defaults do not do.
/// No setting is a secret: a password and a community are for an
/// administrator to enter.
fn driver(
    evidence: &Evidence,
    drivers: &[&str],
) -> Option<(&'static str, Option<serde_json::Value>)> {
    let web = evidence.ports.iter().find(|port| [80, 443].contains(port));
    let any = evidence.ports.first();
    [
        (
            "pjlink",
            (evidence.pjlink.is_some() || evidence.searched).then_some(None),
        ),
        ("snmp", evidence.snmp.as_ref().map(snmp_settings)),
        ("ping", evidence.echo_ms.is_some().then_some(None)),
        (
            "tcp",
            web.or(any).map(|port| Some(json!({"tcp": {"port": port}}))),
        ),
        // It is there, and answers nothing: an echo may be let through later.
        ("ping", evidence.is_alive().then_some(None)),
    ]
    .into_iter()
    .filter(|(driver, _)| drivers.contains(driver))
    .find_map(|(driver, config)| Some((driver, config?)))
}

/// The shipped profile for such equipment, where there is one.
fn snmp_settings(snmp: &SnmpEvidence) -> Option<serde_json::Value> {
    let profile = Profile::name_for(snmp.object_id.as_deref()?)?;
    Some(json!({"snmp": {"profile": profile}}))
}

fn device_type(evidence: &Evidence) -> Option<&'static str> {
    if evidence.pjlink.is_some() || evidence.searched {
        return Some("projector");
    }
    let description = evidence.snmp.as_ref()?.description.to_lowercase();
    [
        ("projector", "projector"),
        ("printer", "printer"),
        ("jetdirect", "printer"),
        ("laserjet", "printer"),
        ("switch", "switch"),
        ("ups", "ups"),
        ("pdu", "pdu"),
        ("display", "display"),
    ]
    .into_iter()
    .find(|(word, _)| has_word(&description, word))
    .map(|(_, device_type)| device_type)
}

/// Makers as descriptions name them.
const VENDORS: &[(&str, &str)] = &[
    ("amx", "AMX"),
    ("apc", "APC"),
    ("atlona", "Atlona"),
    ("aten", "ATEN"),
    ("barco", "Barco"),
    ("benq", "BenQ"),
    ("biamp", "Biamp"),
    ("bose", "Bose"),
    ("brightsign", "BrightSign"),
    ("brother", "Brother"),
    ("canon", "Canon"),
    ("christie", "Christie"),
    ("cisco", "Cisco"),
    ("clearone", "ClearOne"),
    ("crestron", "Crestron"),
    ("cyberpower", "CyberPower"),
    ("eaton", "Eaton"),
    ("epson", "Epson"),
    ("extron", "Extron"),
    ("hewlett-packard", "HP"),
    ("hitachi", "Hitachi"),
    ("hp", "HP"),
    ("jetdirect", "HP"),
    ("kramer", "Kramer"),
    ("kyocera", "Kyocera"),
    ("lexmark", "Lexmark"),
    ("lg", "LG"),
    ("mikrotik", "MikroTik"),
    ("nec", "NEC"),
    ("netgear", "Netgear"),
    ("optoma", "Optoma"),
    ("panasonic", "Panasonic"),
    ("philips", "Philips"),
    ("polycom", "Poly"),
    ("qsc", "QSC"),
    ("raritan", "Raritan"),
    ("ricoh", "Ricoh"),
    ("samsung", "Samsung"),
    ("sharp", "Sharp"),
    ("shure", "Shure"),
    ("sony", "Sony"),
    ("tandberg", "Cisco"),
    ("ubiquiti", "Ubiquiti"),
    ("viewsonic", "ViewSonic"),
    ("vivitek", "Vivitek"),
    ("xerox", "Xerox"),
    ("yamaha", "Yamaha"),
    ("zyxel", "Zyxel"),
];

/// The maker whose name stands first in the text.
fn known_vendor(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    VENDORS
        .iter()
        .filter_map(|(word, vendor)| Some((word_at(&text, word)?, *vendor)))
        .min()
        .map(|(_, vendor)| vendor)
}

/// Where `word` stands in `text` with no letter or digit around it.
fn word_at(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        ![before, after]
            .into_iter()
            .flatten()
            .any(char::is_alphanumeric)
    })
}

fn has_word(text: &str, word: &str) -> bool {
    word_at(text, word).is_some()
}

/// Private enterprise numbers (IANA) under 1.3.6.1.4.1.
const ENTERPRISES: &[(u32, &str)] = &[
    (9, "Cisco"),
    (11, "HP"),
    (116, "Hitachi"),
    (119, "NEC"),
    (122, "Sony"),
    (236, "Samsung"),
    (253, "Xerox"),
    (258, "Panasonic"),
    (318, "APC"),
    (367, "Ricoh"),
    (476, "Vertiv"),
    (534, "Eaton"),
    (641, "Lexmark"),
    (674, "Dell"),
    (1182, "Yamaha"),
    (1248, "Epson"),
    (1347, "Kyocera"),
    (1531, "QSC"),
    (1602, "Canon"),
    (2001, "Oki"),
    (2385, "Sharp"),
    (2435, "Brother"),
    (3212, "Crestron"),
    (3797, "BenQ"),
    (3808, "CyberPower"),
    (4526, "Netgear"),
    (5596, "Cisco"),
    (6036, "Bose"),
    (6574, "Synology"),
    (7824, "LG"),
    (8942, "AMX"),
    (12827, "Barco"),
    (13742, "Raritan"),
    (13885, "Poly"),
    (14988, "MikroTik"),
    (18026, "Extron"),
    (18334, "Konica Minolta"),
    (19125, "Planar"),
    (21317, "ATEN"),
    (21831, "ClearOne"),
    (24681, "QNAP"),
    (25766, "Christie"),
    (31682, "Audinate"),
    (33790, "InFocus"),
    (41112, "Ubiquiti"),
    (43369, "BrightSign"),
    (44457, "Biamp"),
    (45986, "Kramer"),
    (49563, "Shure"),
    (50545, "Maxell"),
    (53829, "LG"),
];

/// The maker that a `sysObjectID` names.
fn enterprise(object_id: &str) -> Option<&'static str> {
    let number: u32 = object_id
        .trim_start_matches('.')
        .strip_prefix("1.3.6.1.4.1.")?
        .split('.')
        .next()?
        .parse()
        .ok()?;
    ENTERPRISES
        .iter()
        .find(|(known, _)| *known == number)
        .map(|(_, vendor)| *vendor)
}

/// The model out of a `sysDescr`, where it has one of the forms that makers
/// use: a tag (`PID:`, `MN:`), or the words after the maker's name.
fn model(description: &str) -> Option<String> {
    for (tag, ends) in [("PID:", &[',', ';'][..]), ("MN:", &[' ', ',', ')'][..])] {
        if let Some((_, rest)) = description.split_once(tag) {
            let model = rest.split(ends).next().unwrap_or_default().trim();
            if !model.is_empty() {
                return Some(model.to_owned());
            }
        }
    }
    let lower = description.to_lowercase();
    // An address in a lower-case text may be none in the text itself.
    if !description.is_ascii() {
        return None;
    }
    let (at, word) = VENDORS
        .iter()
        .filter_map(|(word, _)| Some((word_at(&lower, word)?, *word)))
        .min()?;
    let rest = description.get(at + word.len()..)?;
    let words: Vec<&str> = rest
        .split([',', ';', '(', '/', '\n', '\r'])
        .next()?
        .split_whitespace()
        .filter(|word| {
            !["corp.", "corporation", "inc.", "ltd.", "co."].contains(&word.to_lowercase().as_str())
        })
        .take(3)
        .collect();
    // A model has a digit; without one these are words of a sentence.
    let model = words.join(" ");
    model.chars().any(|c| c.is_ascii_digit()).then_some(model)
}

/// What was seen, in lines for a person.
fn lines(evidence: &Evidence, makers: &Makers) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(ms) = evidence.echo_ms {
        lines.push(format!("answers ping in {ms:.1} ms"));
    }
    if let Some(pjlink) = &evidence.pjlink {
        let parts: Vec<&str> = [&pjlink.manufacturer, &pjlink.product, &pjlink.name]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        lines.push(match (parts.is_empty(), pjlink.refusal) {
            (false, _) => format!("PJLink: {}", parts.join(", ")),
            (true, Some(Refusal::PasswordWanted)) => "PJLink: wants a password".to_owned(),
            (true, Some(Refusal::WrongPassword)) => {
                "PJLink: refuses the password that was tried".to_owned()
            }
            (true, None) => "PJLink: answers".to_owned(),
        });
    }
    if evidence.searched {
        lines.push("answers the PJLink search (class 2)".to_owned());
    }
    if let Some(snmp) = &evidence.snmp {
        lines.push(format!("SNMP sysDescr: {}", snmp.description));
        lines.extend(
            snmp.object_id
                .as_ref()
                .map(|id| format!("SNMP sysObjectID: {id}")),
        );
        if snmp.own_community {
            lines.push("SNMP community: not public, enter it".to_owned());
        }
    }
    if let Some(mac) = evidence.mac {
        lines.push(match makers.of(mac) {
            Some(maker) => format!("MAC {mac}: {maker}"),
            None if mac.is_local() => format!("MAC {mac}: given locally"),
            None => format!("MAC {mac}"),
        });
    }
    if !evidence.ports.is_empty() {
        let ports: Vec<String> = evidence.ports.iter().map(u16::to_string).collect();
        lines.push(format!("TCP ports open: {}", ports.join(", ")));
    }
    lines
        .iter()
        .take(EVIDENCE_MAX)
        .map(|line| excerpt(line, LINE_MAX_CHARS))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: [&str; 4] = ["ping", "snmp", "pjlink", "tcp"];

    fn makers() -> Makers {
        Makers::load()
    }

    fn snmp(description: &str, object_id: Option<&str>) -> Evidence {
        Evidence {
            snmp: Some(SnmpEvidence {
                description: description.to_owned(),
                object_id: object_id.map(str::to_owned),
                own_community: false,
            }),
            ..Evidence::default()
        }
    }

    fn projector(manufacturer: &str, product: &str, name: &str) -> Evidence {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Evidence {
            echo_ms: Some(0.5),
            pjlink: Some(PjlinkEvidence {
                manufacturer: text(manufacturer),
                product: text(product),
                name: text(name),
                refusal: manufacturer.is_empty().then_some(Refusal::PasswordWanted),
            }),
            ports: [80, PJLINK_PORT].into(),
            ..Evidence::default()
        }
    }

    #[test]
    fn vendor_model_and_driver_follow_from_what_was_seen() {
        let mac = |text: &str, evidence: Evidence| Evidence {
            mac: Mac::parse(text),
            ..evidence
        };
        let echo = || Evidence {
            echo_ms: Some(1.0),
            ..Evidence::default()
        };
        let ports = |ports: &[u16]| Evidence {
            ports: ports.iter().copied().collect(),
            ..Evidence::default()
        };
        let table: Vec<(Evidence, [Option<&str>; 5])> = vec![
            (
                projector("EPSON", "EB-L730U", "Salle 101"),
                [
                    Some("Epson"),
                    Some("EB-L730U"),
                    Some("Salle 101"),
                    Some("projector"),
                    Some("pjlink"),
                ],
            ),
            (
                projector("Acme Optics", "X1", ""),
                [
                    Some("Acme Optics"),
                    Some("X1"),
                    Some("Acme Optics X1"),
                    Some("projector"),
                    Some("pjlink"),
                ],
            ),
            (
                mac("64:eb:8c:01:02:03", projector("", "", "")),
                [
                    Some("Epson"),
                    None,
                    Some("Epson"),
                    Some("projector"),
                    Some("pjlink"),
                ],
            ),
            (
                snmp("EPSON EB-L730U Projector", Some("1.3.6.1.4.1.1248.4.1")),
                [
                    Some("Epson"),
                    Some("EB-L730U Projector"),
                    Some("Epson EB-L730U Projector"),
                    Some("projector"),
                    Some("snmp"),
                ],
            ),
            (
                snmp(
                    "HP ETHERNET MULTI-ENVIRONMENT,SN:X,FN:1,SVCID:1,PID:HP LaserJet 400 M401dn",
                    Some(".1.3.6.1.4.1.11.2.3.9.1"),
                ),
                [
                    Some("HP"),
                    Some("HP LaserJet 400 M401dn"),
                    Some("HP LaserJet 400 M401dn"),
                    Some("printer"),
                    Some("snmp"),
                ],
            ),
            (
                snmp(
                    "APC Web/SNMP Management Card (MB:v4.1.0 PF:v6.4.0 MN:AP9630 HR:05)",
                    None,
                ),
                [
                    Some("APC"),
                    Some("AP9630"),
                    Some("APC AP9630"),
                    None,
                    Some("snmp"),
                ],
            ),
            (
                snmp(
                    "Cisco IOS Software, C2960 Software (C2960-LANBASEK9-M)",
                    Some("1.3.6.1.4.1.9.1.716"),
                ),
                [Some("Cisco"), None, Some("Cisco"), None, Some("snmp")],
            ),
            (
                snmp(
                    "Linux rack 6.1.0-18-arm64 #1 SMP aarch64",
                    Some("1.3.6.1.4.1.8072.3.2.10"),
                ),
                [None, None, None, None, Some("snmp")],
            ),
            (
                snmp("Management Card", Some("1.3.6.1.4.1.318.1.3.27")),
                [Some("APC"), None, Some("APC"), None, Some("snmp")],
            ),
            (
                // A maker's name within another word is none.
                snmp("connection server", None),
                [None, None, None, None, Some("snmp")],
            ),
            (
                mac("00:05:a6:00:00:01", echo()),
                [Some("Extron"), None, Some("Extron"), None, Some("ping")],
            ),
            (
                mac("02:00:00:00:00:01", Evidence::default()),
                [None, None, None, None, Some("ping")],
            ),
            (ports(&[23, 443]), [None, None, None, None, Some("tcp")]),
        ];
        for (evidence, [vendor, model, name, kind, driver]) in table {
            let found = propose("10.0.0.1", &evidence, &makers(), &DRIVERS);
            let said = [
                &found.vendor,
                &found.model,
                &found.name,
                &found.device_type,
                &found.driver,
            ]
            .map(|text| text.as_deref());
            assert_eq!(said, [vendor, model, name, kind, driver], "{evidence:?}");
            assert!(!found.evidence.is_empty());
        }
    }

    #[test]
    fn an_enterprise_number_names_its_maker() {
        for (object_id, maker) in [
            ("1.3.6.1.4.1.1248.4.1", Some("Epson")),
            (".1.3.6.1.4.1.2001.1.1.1", Some("Oki")),
            ("1.3.6.1.4.1.18334.1.1.2", Some("Konica Minolta")),
            ("1.3.6.1.4.1.5596.150", Some("Cisco")),
            ("1.3.6.1.4.1.25766.1", Some("Christie")),
            ("1.3.6.1.4.1.53829", Some("LG")),
            ("1.3.6.1.4.1.1", None),
            ("1.3.6.1.4.1", None),
            ("1.3.6.1.4.1.x", None),
            ("1.3.6.1.2.1.33", None),
        ] {
            assert_eq!(enterprise(object_id), maker, "{object_id}");
        }
        // Each number once, in order.
        assert!(ENTERPRISES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn only_drivers_of_this_agent_are_proposed() {
        let telnet = Evidence {
            ports: [23].into(),
            ..Evidence::default()
        };
        let found = |drivers: &[&str]| propose("10.0.0.1", &telnet, &makers(), drivers);
        assert_eq!(found(&["ping"]).driver.as_deref(), Some("ping"));
        assert_eq!(found(&[]).driver, None);
        let tcp = found(&DRIVERS);
        assert_eq!(tcp.driver_config, Some(json!({"tcp": {"port": 23}})));
    }

    #[test]
    fn a_profile_is_proposed_for_equipment_that_one_is_for() {
        for (object_id, config) in [
            (
                Some("1.3.6.1.4.1.318.1.3.4.6"),
                Some(json!({"snmp": {"profile": "pdu_apc"}})),
            ),
            (
                Some(".1.3.6.1.4.1.1248.4.1"),
                Some(json!({"snmp": {"profile": "projector_epson"}})),
            ),
            (Some("1.3.6.1.4.1.8072.3.2.10"), None),
            (Some("nonsense"), None),
            (None, None),
        ] {
            let found = propose(
                "10.0.0.1",
                &snmp("Something", object_id),
                &makers(),
                &DRIVERS,
            );
            assert_eq!(found.driver.as_deref(), Some("snmp"));
            assert_eq!(found.driver_config, config, "{object_id:?}");
        }
    }

    #[test]
    fn hostile_words_are_made_safe_and_short() {
        let long = "x\n\u{1b}[31m9".repeat(400);
        let found = propose(
            "10.0.0.1",
            &projector(&long, &long, &long),
            &makers(),
            &DRIVERS,
        );
        for text in [found.vendor, found.model, found.name]
            .into_iter()
            .flatten()
        {
            assert!(text.chars().count() <= WORD_MAX_CHARS);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        for line in found.evidence {
            assert!(line.chars().count() <= LINE_MAX_CHARS);
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        let snmp = propose(
            "10.0.0.1",
            &snmp("Étage EPSON ß 9", None),
            &makers(),
            &DRIVERS,
        );
        assert_eq!(snmp.vendor.as_deref(), Some("Epson"));
    }
}
