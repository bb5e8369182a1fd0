//! Canonical JSON and the hash, held against a real `python3` on thousands of
//! random documents.
//!
//! A failure prints the seed of its document: `AV_CANONICAL_SEED=<seed>` runs
//! that one alone. Without `python3` the tests fail: a contract that nobody
//! compared is not kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: the lint's own exception covers test functions only"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use av_proto::canonical::{MAX_DEPTH, canonicalize};
use av_proto::hash::{HashedDevice, HashedSite, hash_document};

/// Documents are told apart by NUL: no JSON text has one, and lines may be
/// white space inside a document.
const PRINT: &str = r#"
import json, sys
documents = sys.stdin.buffer.read().decode("utf-8").split("\0")
printed = [json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False) for text in documents]
sys.stdout.buffer.write("\0".join(printed).encode("utf-8"))
"#;

/// The contract's hash as a backend in Python computes it.
const HASH: &str = r#"
import hashlib, json, sys
documents = sys.stdin.buffer.read().decode("utf-8").split("\0")
def digest(text):
    site = json.loads(text)
    site["devices"].sort(key=lambda device: device["ip"])
    text = json.dumps(site, sort_keys=True, ensure_ascii=False)
    return hashlib.md5(text.encode("utf-8")).hexdigest()
sys.stdout.buffer.write("\0".join(map(digest, documents)).encode("utf-8"))
"#;

/// Runs Python over the documents, in one go.
fn python(program: &str, documents: &[String]) -> Vec<String> {
    let mut child = Command::new("python3")
        .args(["-I", "-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need python3: apt-get install python3");
    let mut stdin = child.stdin.take().unwrap();
    let input = documents.join("\0");
    // Python reads everything before it writes: no deadlock.
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 failed");
    let printed: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .split('\0')
        .map(str::to_owned)
        .collect();
    assert_eq!(printed.len(), documents.len());
    printed
}

/// Marsaglia's xorshift64*: small, seeded and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Spread the seed; zero is the one state that never moves.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from((self.next() >> 33) % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Random JSON texts.
struct Generator {
    random: Random,
    /// Keys used so far, to be used again: in one object they are duplicates.
    keys: Vec<String>,
}

impl Generator {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            keys: Vec::new(),
        }
    }

    fn document(&mut self) -> String {
        let mut out = String::new();
        self.space(&mut out);
        if self.random.one_in(60) {
            let depth = 100 + self.random.below(600);
            self.deep(&mut out, depth);
        } else {
            let depth = 1 + self.random.below(6);
            self.value(&mut out, depth);
        }
        self.space(&mut out);
        out
    }

    fn space(&mut self, out: &mut String) {
        if self.random.one_in(4) {
            out.push_str(
                self.random
                    .pick(&[" ", "  ", "\t", "\n", "\r\n", " \t \n "]),
            );
        }
    }

    fn value(&mut self, out: &mut String, depth: usize) {
        match self.random.below(if depth == 0 { 5 } else { 9 }) {
            0 => out.push_str(self.random.pick(&["true", "false", "null"])),
            1 => self.integer(out),
            2 | 3 => self.float(out),
            4 => {
                let text = self.text();
                self.quoted(out, &text);
            }
            5 | 6 => self.array(out, depth - 1),
            _ => self.object(out, depth - 1),
        }
    }

    fn array(&mut self, out: &mut String, depth: usize) {
        out.push('[');
        self.space(out);
        for i in 0..self.random.below(6) {
            if i > 0 {
                out.push(',');
                self.space(out);
            }
            self.value(out, depth);
            self.space(out);
        }
        out.push(']');
    }

    fn object(&mut self, out: &mut String, depth: usize) {
        out.push('{');
        self.space(out);
        for i in 0..self.random.below(8) {
            if i > 0 {
                out.push(',');
                self.space(out);
            }
            let key = self.key();
            self.quoted(out, &key);
            self.space(out);
            out.push(':');
            self.space(out);
            self.value(out, depth);
            self.space(out);
        }
        out.push('}');
    }

    /// Arrays and objects in each other, to that depth.
    fn deep(&mut self, out: &mut String, depth: usize) {
        let mut ends = Vec::new();
        for _ in 0..depth {
            if self.random.one_in(2) {
                out.push('[');
                if self.random.one_in(3) {
                    self.value(out, 0);
                    out.push(',');
                }
                ends.push(']');
            } else {
                out.push('{');
                let key = self.key();
                self.quoted(out, &key);
                out.push(':');
                ends.push('}');
            }
            self.space(out);
        }
        self.value(out, 0);
        out.extend(ends.into_iter().rev());
    }

    fn key(&mut self) -> String {
        if !self.keys.is_empty() && self.random.one_in(3) {
            let index = self.random.below(self.keys.len());
            return self.keys[index].clone();
        }
        let key = match self.random.below(4) {
            // Keys that would trip a reader with magic keys of its own.
            0 => self
                .random
                .pick(&[
                    "",
                    "$serde_json::private::Number",
                    "$serde_json::private::RawValue",
                    "__proto__",
                ])
                .to_owned(),
            _ => self.text(),
        };
        self.keys.push(key.clone());
        key
    }

    fn text(&mut self) -> String {
        let length = self.random.below(10);
        (0..length).map(|_| self.character()).collect()
    }

    fn character(&mut self) -> char {
        let (first, last) = match self.random.below(12) {
            0 => (0x00, 0x1f),         // C0 controls
            1 => (0x7f, 0x9f),         // DEL and C1 controls
            2 => (0x300, 0x36f),       // combining marks
            3 => (0x2000, 0x206f),     // spaces, separators, directions
            4 => (0xe000, 0xffff),     // private use, forms, non-characters
            5 => (0x1_f300, 0x1_f6ff), // pictures
            6 => (0x1_0000, 0x10_ffff),
            7 => (0x4e00, 0x9fff),
            8 => (0xa0, 0x24f),
            9 => {
                return self
                    .random
                    .pick(&[&'"', &'\\', &'/', &'\u{0}', &'\u{10ffff}'])
                    .to_owned();
            }
            _ => (0x20, 0x7e),
        };
        let span = usize::try_from(last - first + 1).unwrap();
        let offset = u32::try_from(self.random.below(span)).unwrap();
        char::from_u32(first + offset).unwrap_or('\u{fffd}')
    }

    /// The text between quotes, each character in one of its spellings.
    fn quoted(&mut self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            let short = match c {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '/' => Some("\\/"),
                '\u{8}' => Some("\\b"),
                '\u{c}' => Some("\\f"),
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                '\t' => Some("\\t"),
                _ => None,
            };
            let must_escape = c < ' ' || c == '"' || c == '\\';
            match short {
                Some(short) if self.random.one_in(2) => out.push_str(short),
                _ if must_escape || self.random.one_in(5) => {
                    // A pair of surrogates past the basic plane.
                    let upper = self.random.one_in(2);
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = if upper {
                            write!(out, "\\u{unit:04X}")
                        } else {
                            write!(out, "\\u{unit:04x}")
                        };
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
    }

    fn digits(&mut self, out: &mut String, count: usize) {
        for _ in 0..count {
            out.push(char::from(
                b'0' + u8::try_from(self.random.below(10)).unwrap(),
            ));
        }
    }

    /// An integer's text without its sign.
    fn whole(&mut self, out: &mut String) {
        if self.random.one_in(6) {
            out.push('0');
            return;
        }
        out.push(char::from(
            b'1' + u8::try_from(self.random.below(9)).unwrap(),
        ));
        let more = match self.random.below(4) {
            0 => self.random.below(200),
            1 => 15 + self.random.below(10),
            _ => self.random.below(6),
        };
        self.digits(out, more);
    }

    fn integer(&mut self, out: &mut String) {
        if self.random.one_in(8) {
            out.push_str(self.random.pick(&[
                "-0",
                "0",
                "9007199254740993",
                "9223372036854775808",
                "-9223372036854775809",
                "18446744073709551616",
                "340282366920938463463374607431768211456",
            ]));
            return;
        }
        if self.random.one_in(3) {
            out.push('-');
        }
        self.whole(out);
    }

    fn float(&mut self, out: &mut String) {
        match self.random.below(5) {
            0 => out.push_str(self.random.pick(&[
                "1e16",
                "1E+5",
                "1e-5",
                "1e-05",
                "0.1",
                "-0.0",
                "0.0",
                "-0e0",
                "0E-7",
                "1e400",
                "-1e400",
                "1e-400",
                "-1e-400",
                "5e-324",
                "2.5e-324",
                "2.2250738585072014e-308",
                "2.2250738585072011e-308",
                "1.7976931348623157e308",
                "1.7976931348623159e308",
                "1e15",
                "9999999999999998.0",
                "1e22",
                "1e23",
                "0.0001",
                "0.00009999999999999999",
                "1.0",
                "1.50",
                "123456789012345680.0",
                "9007199254740993.0",
                "0.30000000000000004",
                "100e-2",
            ])),
            // Any float at all, in more digits than it needs: of all sizes,
            // subnormal, a power of two (its lower neighbour is nearer than
            // its upper one), or a few binary digits behind the point, where
            // two shortest texts can be equally near.
            1 => {
                let bits = self.random.next();
                let value = match self.random.below(5) {
                    0 => f64::from_bits(bits >> (12 + bits % 50)),
                    1 => f64::from_bits(bits & 0xfff0_0000_0000_0000),
                    2 => (bits >> (11 + bits % 5)) as f64 / 8.0,
                    _ => f64::from_bits(bits),
                };
                if value.is_finite() {
                    let _ = write!(out, "{value:.16e}");
                } else {
                    out.push_str("1.5");
                }
            }
            // A float of an everyday size.
            2 => {
                let thousandths = i32::try_from(self.random.below(2_000_000)).unwrap() - 1_000_000;
                let _ = write!(out, "{:.3}", f64::from(thousandths) / 1000.0);
            }
            // Halfway between two neighbours, exactly or nearly: where readers
            // round wrongly.
            3 => {
                let base = (1_u64 << 53) + (self.random.next() >> 12);
                let _ = write!(out, "{}", base | 1);
                out.push_str(self.random.pick(&[
                    ".0",
                    ".00000000000000000000001",
                    ".5",
                    "e0",
                    "e-20",
                    "e+7",
                ]));
            }
            // Any spelling.
            _ => {
                if self.random.one_in(3) {
                    out.push('-');
                }
                self.whole(out);
                let fraction = self.random.one_in(2);
                if fraction {
                    out.push('.');
                    let count = 1 + self.random.below(25);
                    self.digits(out, count);
                }
                if !fraction || self.random.one_in(2) {
                    out.push_str(self.random.pick(&["e", "E", "e+", "E+", "e-", "E-"]));
                    let count = 1 + self.random.below(3);
                    self.digits(out, count);
                }
            }
        }
    }
}

/// The seeds to run: all, or the one that the environment names.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("AV_CANONICAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("AV_CANONICAL_SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

/// Both texts from shortly before they differ.
fn differing<'a>(a: &'a str, b: &'a str) -> (&'a str, &'a str) {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let mut from = same.saturating_sub(20);
    while !a.is_char_boundary(from) {
        from -= 1;
    }
    (&a[from..], &b[from..])
}

#[test]
fn random_documents_print_as_python_prints_them() {
    let seeds = seeds(6000);
    let documents: Vec<String> = seeds
        .iter()
        .map(|&seed| Generator::new(seed).document())
        .collect();
    let printed = python(PRINT, &documents);
    let mut failures = 0;
    for ((seed, document), expected) in seeds.iter().zip(&documents).zip(&printed) {
        let ours = canonicalize(document).unwrap_or_else(|e| format!("refused: it {e}"));
        if ours != *expected {
            failures += 1;
            if failures <= 3 {
                let (theirs, ours) = differing(expected, &ours);
                eprintln!(
                    "seed {seed}\n python   {theirs:?}\n ours     {ours:?}\n document {document:?}"
                );
            }
        }
    }
    assert_eq!(failures, 0, "of {} documents", documents.len());
}

/// The generator is worth nothing if it never makes the hard cases.
#[test]
fn the_random_documents_have_the_hard_cases() {
    let documents: Vec<String> = (1..=6000)
        .map(|seed| Generator::new(seed).document())
        .collect();
    let all = documents.join("\0");
    for hard in [
        "\\ud83d\\u",
        "\\u0000",
        "\\u001F",
        "\u{10ffff}",
        "\u{301}",
        "\u{2028}",
        "1e400",
        "5e-324",
        "-0.0",
        "18446744073709551616",
        "[]",
        "{}",
        "\r\n",
        "$serde_json::private::Number",
    ] {
        assert!(all.contains(hard), "never {hard:?}");
    }
    let depth = |text: &String| {
        let opens = text.bytes().filter(|&b| b == b'[' || b == b'{').count();
        opens >= 500
    };
    assert!(documents.iter().any(depth), "never deep");
}

#[test]
fn the_deepest_document_prints_as_python_prints_it() {
    let mut documents = vec!["[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH)];
    documents.push("{\"b\":0,\"a\":".repeat(MAX_DEPTH) + "1" + &"}".repeat(MAX_DEPTH));
    let printed = python(PRINT, &documents);
    for (document, expected) in documents.iter().zip(&printed) {
        assert!(
            canonicalize(document).unwrap() == *expected,
            "{:.40}",
            document
        );
    }
}

/// The rows of a site, as the database holds them.
struct Rows {
    name: String,
    timezone: String,
    numbers: [i64; 3],
    devices: Vec<Row>,
}

struct Row {
    texts: [String; 7],
    driver_config: Option<String>,
    expectations: Option<String>,
}

impl Rows {
    fn random(seed: u64) -> Self {
        let mut generator = Generator::new(seed);
        let count = generator.random.below(9);
        let devices = (0..count)
            .map(|i| {
                let mut texts: [String; 7] = std::array::from_fn(|_| generator.text());
                // An address is unique in its site.
                let octet = generator.random.below(300);
                texts[0] = format!("10.{octet}.0.{i}");
                let mut json = || {
                    let mut out = String::new();
                    generator.object(&mut out, 3);
                    (!generator.random.one_in(4)).then_some(out)
                };
                Row {
                    driver_config: json(),
                    expectations: json(),
                    texts,
                }
            })
            .collect();
        let mut number = || i64::try_from(generator.random.below(100_000)).unwrap() - 1000;
        Self {
            numbers: [number(), number(), number()],
            name: generator.text(),
            timezone: generator.text(),
            devices,
        }
    }

    /// The contract's object, spelt with the generator's liberties.
    fn document(&self, seed: u64) -> String {
        let mut generator = Generator::new(seed);
        let mut out = String::from("{");
        let [doubt, ok, ko] = self.numbers;
        let _ = write!(
            out,
            "\"ko_interval_s\":{ko} ,\"doubt_after_days\":{doubt},\"ok_interval_s\":{ok}"
        );
        for (key, text) in [("timezone", &self.timezone), ("site_name", &self.name)] {
            let _ = write!(out, ",\"{key}\":");
            generator.quoted(&mut out, text);
        }
        out.push_str(",\"devices\":[");
        for (i, device) in self.devices.iter().enumerate() {
            out.push_str(if i > 0 { ",{" } else { "{" });
            let keys = ["ip", "name", "building", "floor", "room", "type", "driver"];
            for (key, text) in keys.iter().zip(&device.texts) {
                let _ = write!(out, "\"{key}\":");
                generator.quoted(&mut out, text);
                out.push(',');
            }
            let json = |text: &Option<String>| text.clone().unwrap_or_else(|| "{}".to_owned());
            let _ = write!(
                out,
                "\"expectations\":{},\"driver_config\":{}}}",
                json(&device.expectations),
                json(&device.driver_config)
            );
        }
        out.push_str("]}");
        out
    }

    fn hashed(&self) -> HashedSite<'_> {
        let [doubt_after_days, ok_interval_s, ko_interval_s] = self.numbers;
        HashedSite {
            site_name: &self.name,
            timezone: &self.timezone,
            doubt_after_days,
            ok_interval_s,
            ko_interval_s,
            devices: self
                .devices
                .iter()
                .map(|device| {
                    let [ip, name, building, floor, room, device_type, driver] = &device.texts;
                    HashedDevice {
                        ip,
                        name,
                        building,
                        floor,
                        room,
                        device_type,
                        driver,
                        driver_config: device.driver_config.as_deref(),
                        expectations: device.expectations.as_deref(),
                    }
                })
                .collect(),
        }
    }
}

#[test]
fn random_sites_hash_as_python_hashes_them() {
    let seeds = seeds(1500);
    let sites: Vec<Rows> = seeds.iter().map(|&seed| Rows::random(seed)).collect();
    let documents: Vec<String> = seeds
        .iter()
        .zip(&sites)
        .map(|(&seed, site)| site.document(seed))
        .collect();
    let digests = python(HASH, &documents);
    for (((seed, site), document), digest) in seeds.iter().zip(&sites).zip(&documents).zip(&digests)
    {
        let of_document = hash_document(document).unwrap();
        assert_eq!(of_document.as_str(), digest, "seed {seed}: {document:?}");
        let of_rows = site.hashed().hash().unwrap();
        assert_eq!(
            of_rows.as_str(),
            digest,
            "rows of seed {seed}: {document:?}"
        );
    }
}
