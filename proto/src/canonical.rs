//! Canonical JSON: the text that Python's
//! `json.dumps(value, sort_keys=True, ensure_ascii=False)` prints.
//!
//! Both ends hash this text, so it must agree with Python to the byte.
//! serde_json says whether a text is JSON, and reads its strings; its parts are
//! then found here, and not in its `Value`: a `Value` rounds integers past 64
//! bits, and the feature that would keep them (`arbitrary_precision`) turns an
//! object with one magic key into a number. Slices keep every numeral as it was
//! written.
//!
//! The text is gone through once, however deep it nests, and without recursion:
//! nesting costs heap and never the small stack of an agent's thread.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::value::RawValue;

/// How deep arrays and objects may nest. Python's own reader gives up near
/// 1,000, so nothing deeper can have a hash that both ends agree on.
pub const MAX_DEPTH: usize = 900;

/// Why a text has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON (RFC 8259), or with lone surrogates, which UTF-8 cannot carry.
    #[error("is not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// The canonical text of a JSON document.
///
/// # Errors
/// [`CanonicalError`] when `json` is not one JSON document or nests too deep.
///
/// # Examples
/// ```
/// let text = av_proto::canonical::canonicalize(r#"{"b":1.50,"a":[1E16,"é"]}"#).unwrap();
/// assert_eq!(text, r#"{"a": [1e+16, "é"], "b": 1.5}"#);
/// ```
pub fn canonicalize(json: &str) -> Result<String, CanonicalError> {
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    write_canonical(&mut out, json)?;
    Ok(out)
}

/// A part of a document. Parts name each other by their place in the list of
/// all of them.
enum Part<'a> {
    /// A string, numeral, true, false or null as it is written.
    Scalar(&'a str),
    Array(Vec<usize>),
    /// A repeated key: the last one wins, as in Python and in JSONB.
    Object(BTreeMap<String, usize>),
}

/// What is still to be printed, last first.
enum Step<'a> {
    Part(usize),
    Key(&'a str),
    Text(&'static str),
}

/// Appends the canonical text of `json` to `out`.
///
/// # Errors
/// As [`canonicalize`]; `out` then holds a part of the text.
pub fn write_canonical(out: &mut String, json: &str) -> Result<(), CanonicalError> {
    let parts = parts(serde_json::from_str::<&RawValue>(json)?.get())?;
    let mut steps = vec![Step::Part(0)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Text(text) => out.push_str(text),
            Step::Key(key) => {
                write_string(out, key);
                out.push_str(": ");
            }
            Step::Part(place) => match parts.get(place) {
                Some(Part::Scalar(text)) => write_scalar(out, text)?,
                Some(Part::Array(items)) => {
                    out.push('[');
                    steps.push(Step::Text("]"));
                    for (left, item) in items.iter().rev().enumerate() {
                        steps.push(Step::Part(*item));
                        if left + 1 < items.len() {
                            steps.push(Step::Text(", "));
                        }
                    }
                }
                Some(Part::Object(members)) => {
                    out.push('{');
                    steps.push(Step::Text("}"));
                    for (left, (key, value)) in members.iter().rev().enumerate() {
                        steps.push(Step::Part(*value));
                        steps.push(Step::Key(key));
                        if left + 1 < members.len() {
                            steps.push(Step::Text(", "));
                        }
                    }
                }
                None => {}
            },
        }
    }
    Ok(())
}

/// The parts of a text that is known to be JSON, the whole first.
fn parts(json: &str) -> Result<Vec<Part<'_>>, CanonicalError> {
    let bytes = json.as_bytes();
    let mut parts = Vec::new();
    // The arrays and objects that are open, each with the key whose value comes.
    let mut open: Vec<(usize, Option<String>)> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let part = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => continue,
            b'}' | b']' => {
                open.pop();
                continue;
            }
            b'{' => Part::Object(BTreeMap::new()),
            b'[' => Part::Array(Vec::new()),
            b'"' => {
                at = end_of_string(bytes, at);
                let text = &json[start..at];
                match open.last_mut() {
                    Some((holder, key @ None)) if matches!(parts[*holder], Part::Object(_)) => {
                        *key = Some(serde_json::from_str(text)?);
                        continue;
                    }
                    _ => Part::Scalar(text),
                }
            }
            _ => {
                let is_end = |byte: &u8| b",:]}{[ \t\n\r\"".contains(byte);
                let length = bytes[at..].iter().position(is_end);
                at = length.map_or(bytes.len(), |length| at + length);
                Part::Scalar(&json[start..at])
            }
        };
        let place = parts.len();
        let nests = !matches!(part, Part::Scalar(_));
        parts.push(part);
        if let Some((holder, key)) = open.last_mut() {
            match (&mut parts[*holder], key.take()) {
                (Part::Object(members), Some(key)) => {
                    members.insert(key, place);
                }
                (Part::Array(items), _) => items.push(place),
                _ => {}
            }
        }
        if nests {
            if open.len() >= MAX_DEPTH {
                return Err(CanonicalError::TooDeep);
            }
            open.push((place, None));
        }
    }
    Ok(parts)
}

/// Where the string ends whose first character is at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    bytes.len()
}

fn write_scalar(out: &mut String, text: &str) -> Result<(), CanonicalError> {
    match text.as_bytes().first() {
        Some(b'"') => write_string(out, &serde_json::from_str::<String>(text)?),
        Some(b'-' | b'0'..=b'9') => write_number(out, text),
        _ => out.push_str(text), // true, false, null
    }
    Ok(())
}

/// Prints a string as Python does with `ensure_ascii=False`: only the quote,
/// the backslash and the C0 controls are escaped.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Prints a JSON numeral as Python prints what it reads from it: an integer
/// of any size exactly, anything with a point or an exponent as a float.
fn write_number(out: &mut String, numeral: &str) {
    if numeral.contains(['.', 'e', 'E']) {
        // Rust reads every JSON numeral; one past the range is an infinity.
        match numeral.parse::<f64>() {
            Ok(value) => write_float(out, value),
            Err(_) => out.push_str(numeral),
        }
    } else if numeral == "-0" {
        out.push('0'); // Python's integers have no negative zero.
    } else {
        out.push_str(numeral);
    }
}

/// Prints a float as Python's `repr`: the shortest digits that read back the
/// same, in exponent form below 1e-4 and from 1e16 on.
fn write_float(out: &mut String, value: f64) {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
        return;
    }
    let scientific = shortest(value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        write_plain(out, mantissa, exponent);
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
}

/// The shortest digits that read back as `value`, as `-1.2345e-5`.
///
/// Rust and Python agree on how many digits that takes, and differ where two
/// such texts are equally near: of 189867227781763.625 Python prints the even
/// ending, .62, and Rust's `{:e}` the odd one. Rust's rounding to a given
/// number of digits takes the even one too.
fn shortest(value: f64) -> String {
    let shortest = format!("{value:e}");
    let mantissa = shortest.split('e').next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let nearest = format!("{value:.*e}", digits.saturating_sub(1));
    // Beside a power of two, the nearest text of that length may read back
    // as its neighbour.
    if nearest.parse() == Ok(value) {
        nearest
    } else {
        shortest
    }
}

/// Prints a mantissa and its power of ten without an exponent, and ".0" after
/// a whole number, as Python does.
fn write_plain(out: &mut String, mantissa: &str, exponent: i32) {
    let digits = match mantissa.strip_prefix('-') {
        Some(digits) => {
            out.push('-');
            digits
        }
        None => mantissa,
    };
    let digits = digits.replace('.', "");
    match usize::try_from(exponent) {
        Ok(exponent) => {
            let whole = exponent + 1;
            let (before, after) = digits.split_at_checked(whole).unwrap_or((&digits, ""));
            out.push_str(before);
            out.extend(std::iter::repeat_n('0', whole - before.len()));
            out.push('.');
            out.push_str(if after.is_empty() { "0" } else { after });
        }
        Err(_) => {
            out.push_str("0.");
            let zeros = exponent.unsigned_abs().saturating_sub(1);
            out.extend(std::iter::repeat_n('0', zeros as usize));
            out.push_str(&digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        assert_eq!(canonicalize(json).unwrap(), expected);
    }

    #[test]
    fn floats_print_as_pythons_repr() {
        for (json, expected) in [
            ("1e16", "1e+16"),
            ("1e15", "1000000000000000.0"),
            ("123456789012345678.0", "1.2345678901234568e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e-5", "1e-05"),
            ("1.5E-7", "1.5e-07"),
            ("0.1", "0.1"),
            ("-0.0", "-0.0"),
            ("0e5", "0.0"),
            ("1e400", "Infinity"),
            ("-1e400", "-Infinity"),
            ("1e-400", "0.0"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("2.50", "2.5"),
            ("9007199254740993.0", "9007199254740992.0"),
            // Two shortest texts are equally near: the even one.
            ("189867227781763.625", "189867227781763.62"),
            ("-189867227781763.875", "-189867227781763.88"),
            ("9007199254740993.5", "9007199254740994.0"),
        ] {
            check(json, expected);
        }
    }

    #[test]
    fn integers_of_any_size_are_exact() {
        check("-0", "0");
        check(
            "123456789012345678901234567890123456789",
            "123456789012345678901234567890123456789",
        );
        check("-18446744073709551617", "-18446744073709551617");
    }

    #[test]
    fn keys_sort_by_code_point_and_the_last_of_a_repeated_key_wins() {
        // U+FF5E sorts before U+1F600 by code point, after it in UTF-16.
        check(
            r#"{"😀":1,"~":2,"a":3,"B":4,"a":5}"#,
            r#"{"B": 4, "a": 5, "~": 2, "😀": 1}"#,
        );
    }

    #[test]
    fn strings_escape_only_what_python_escapes() {
        check(
            r#""\u0000\u001f\u007f\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00""#,
            "\"\\u0000\\u001f\u{7f}\\\"\\\\/\\b\\f\\n\\r\\téé😀\"",
        );
    }

    #[test]
    fn an_object_that_looks_like_serde_jsons_own_number_stays_an_object() {
        check(
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::Number": "1"}"#,
        );
    }

    #[test]
    fn empty_containers_and_white_space() {
        check(" { \"a\" : [ ] , \"b\" : { } } ", r#"{"a": [], "b": {}}"#);
        check("[1 ,2,\n null,true ]", "[1, 2, null, true]");
    }

    #[test]
    fn deep_nesting_prints_and_too_deep_is_said() {
        let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        check(&deep, &deep);
        let too_deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        assert!(matches!(
            canonicalize(&too_deep),
            Err(CanonicalError::TooDeep)
        ));
    }

    #[test]
    fn depth_costs_no_more_than_length() {
        // Going through it again at each level would take minutes.
        let levels = MAX_DEPTH - 1;
        let wide = format!("[{}0]", "0, ".repeat(1_000_000));
        let deep = "[".repeat(levels) + &wide + &"]".repeat(levels);
        check(&deep, &deep);
        // What is too deep is said of any length.
        assert!(matches!(
            canonicalize(&("[".repeat(1 << 20) + &"]".repeat(1 << 20))),
            Err(CanonicalError::TooDeep)
        ));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in ["", "{", "[1,]", "NaN", "01", "\"\\ud800\"", "1 2", "'a'"] {
            assert!(canonicalize(bad).is_err(), "{bad}");
        }
    }
}
