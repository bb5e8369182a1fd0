//! Who made a network interface, by the first three bytes of its address.

use std::collections::HashMap;
use std::fmt;
use std::fs;

/// A MAC address (IEEE 802, 48 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `aa:bb:cc:dd:ee:ff`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.trim().split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    fn oui(self) -> [u8; 3] {
        [self.0[0], self.0[1], self.0[2]]
    }

    /// Whether it was given by an administrator or a program, and says
    /// nothing of its maker.
    #[must_use]
    pub fn is_local(self) -> bool {
        self.0[0] & 0b10 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Makers of audio-visual equipment, as the IEEE's public list has them.
const MAKERS: &[(&str, &[u32])] = &[
    ("AMX", &[0x00609f]),
    ("APC", &[0x00c0b7]),
    ("Atlona", &[0xb898b0]),
    ("ATEN", &[0x001074]),
    ("Audinate", &[0x001dc1]),
    (
        "Barco",
        &[0x000063, 0x0004a5, 0x000d0a, 0x00504b, 0x005083, 0x00c067],
    ),
    (
        "BenQ",
        &[0x00039d, 0x0017ca, 0x001e21, 0x1ce192, 0x64e220, 0x8065e9],
    ),
    ("Biamp", &[0x784501]),
    ("Bose", &[0x000c8a, 0x0452c7, 0x2c41a1]),
    ("BrightSign", &[0x90ac3f]),
    ("Christie", &[0x001ad7]),
    ("Cisco", &[0x0011d0, 0x0016a5, 0x005060, 0x00e02a]),
    ("ClearOne", &[0x009079]),
    ("Crestron", &[0x00107f, 0xc44268]),
    ("Digital Projection", &[0x4022ed]),
    (
        "Epson",
        &[
            0x000048, 0x0026ab, 0x381a52, 0x389d92, 0x44d244, 0x50579c, 0x64eb8c, 0x9caed3,
            0xa4d73c, 0xa4ee57, 0xac1826, 0xb0e892, 0xdccd2f, 0xe0bb9e, 0xf82551, 0xf8d027,
        ],
    ),
    ("Extron", &[0x0005a6]),
    ("Global Cache", &[0x000c1e]),
    ("Hitachi", &[0x001f67]),
    ("Kramer", &[0x001d56]),
    ("Lantronix", &[0x00204a, 0x0080a3]),
    ("LG", &[0x00e091]),
    ("LifeSize", &[0x0013fa]),
    ("Lutron", &[0x000fe7, 0x0021ec, 0x7cfe28]),
    ("Moxa", &[0x0090e8]),
    ("NEC", &[0x00004c]),
    (
        "Panasonic",
        &[0x0080f0, 0x0404b8, 0x080023, 0x4c364e, 0xb8208e],
    ),
    ("Poly", &[0x0004f2, 0x00e0db, 0x64167f]),
    ("QSC", &[0x006074, 0x58856e]),
    ("Raritan", &[0x000d5d]),
    ("Raspberry Pi", &[0xb827eb, 0xdca632]),
    ("Samsung", &[0x0000f0]),
    ("Sennheiser", &[0x001b66]),
    ("Sharp", &[0x08001f]),
    ("Shure", &[0x000edd, 0xd834ee]),
    ("Sonos", &[0x000e58, 0x5caafd, 0x949f3e, 0xb8e937]),
    ("Sony", &[0x00014a, 0x080046]),
    ("WolfVision", &[0x000c92]),
    ("Yamaha", &[0x00a0de, 0xac44f2]),
];

/// Where Debian's `ieee-data` keeps the whole list.
const SYSTEM_LIST: &str = "/usr/share/ieee-data/oui.txt";
/// It has 6 MB; a file that is much larger is something else.
const SYSTEM_LIST_MAX_BYTES: u64 = 64 << 20;

/// The makers, by the first three bytes.
#[derive(Debug, Default)]
pub struct Makers(HashMap<[u8; 3], String>);

impl Makers {
    /// The built-in list, and the system's where there is one.
    #[must_use]
    pub fn load() -> Self {
        let mut makers = Self::default();
        let size = fs::metadata(SYSTEM_LIST).map(|metadata| metadata.len());
        if size.is_ok_and(|size| size <= SYSTEM_LIST_MAX_BYTES) {
            if let Ok(bytes) = fs::read(SYSTEM_LIST) {
                makers.read_system(&String::from_utf8_lossy(&bytes));
            }
        }
        makers.read_built_in();
        makers
    }

    fn read_built_in(&mut self) {
        for (maker, prefixes) in MAKERS {
            for prefix in *prefixes {
                let [_, a, b, c] = prefix.to_be_bytes();
                self.0.insert([a, b, c], (*maker).to_owned());
            }
        }
    }

    /// Lines such as `00-10-7F   (hex)  CRESTRON ELECTRONICS, INC.`
    fn read_system(&mut self, text: &str) {
        for line in text.lines() {
            if let Some((prefix, maker)) = line.split_once("(hex)") {
                let padded = format!("{}-00-00-00", prefix.trim());
                if let Some(mac) = Mac::parse(&padded) {
                    self.0.insert(mac.oui(), maker.trim().to_owned());
                }
            }
        }
    }

    /// Who made it, where that is known.
    #[must_use]
    pub fn of(&self, mac: Mac) -> Option<&str> {
        self.0.get(&mac.oui()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("00:10:7F:01:02:03", Some("00:10:7f:01:02:03")),
            ("00-10-7f-01-02-03", Some("00:10:7f:01:02:03")),
            ("00:10:7f:01:02", None),
            ("00:10:7f:01:02:03:04", None),
            ("0:10:7f:01:02:03", None),
            ("zz:10:7f:01:02:03", None),
        ] {
            assert_eq!(
                Mac::parse(text).map(|mac| mac.to_string()).as_deref(),
                shown,
                "{text}"
            );
        }
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_local());
    }

    #[test]
    fn makers_are_known_by_the_first_bytes() {
        let mut makers = Makers::default();
        makers.read_system(
            "x\n00-10-7F   (hex)\t\tCRESTRON ELECTRONICS, INC.\r\n08-00-99   (hex)\t\tSomebody\n",
        );
        makers.read_built_in();
        for (mac, maker) in [
            ("00:10:7f:aa:bb:cc", Some("Crestron")),
            ("64:eb:8c:00:00:01", Some("Epson")),
            ("00:05:a6:00:00:01", Some("Extron")),
            ("08:00:99:00:00:01", Some("Somebody")),
            ("02:00:00:00:00:01", None),
        ] {
            assert_eq!(makers.of(Mac::parse(mac).unwrap()), maker);
        }
    }

    #[test]
    fn no_prefix_has_two_makers() {
        let mut seen = std::collections::HashSet::new();
        for prefix in MAKERS.iter().flat_map(|(_, prefixes)| *prefixes) {
            assert!(*prefix < 1 << 24 && seen.insert(prefix), "{prefix:06x}");
        }
    }
}
