//! Canonical JSON: printing is stable, and what was printed says the same.

#![no_main]

use av_proto::canonical::canonicalize;
use av_proto::hash::hash_document;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let hash = hash_document(text);
    let Ok(canonical) = canonicalize(text) else {
        assert!(hash.is_err());
        return;
    };
    // Python's own text for a numeral past the range of floats is no JSON.
    if canonical.contains("Infinity") {
        return;
    }
    assert_eq!(canonicalize(&canonical).expect("canonical text"), canonical);
    if let Ok(hash) = hash {
        assert_eq!(hash_document(&canonical).expect("a document"), hash);
    }
    // That reader takes an object with such a key for something of its own.
    if canonical.contains("$serde_json::private::") {
        return;
    }
    // The same value, to a reader that knows nothing of this. It rounds
    // integers past 64 bits, in the text and in the canonical text alike.
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let read: Value = serde_json::from_str(&canonical).expect("JSON");
        assert!(same(&value, &read), "{value} became {read}");
    }
});

/// Equal, where integers have no negative zero, and a reader that does not
/// round to the nearest float may take the last digit for another.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || near(a.as_f64(), b.as_f64()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn near(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= a.abs() * 1e-14,
        _ => false,
    }
}
