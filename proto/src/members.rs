//! An object taken apart one level deep, for those who hand its values on as
//! they were written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, each value as it is written: a
/// number keeps every digit. A key that stands twice is there twice.
#[derive(Debug)]
pub struct Members(pub Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_are_written() {
        let json = r#"{"b": 1.0e400, "a": {"x": [ 1 ]}, "b": "\u00e9"}"#;
        let Members(members) = serde_json::from_str(json).unwrap();
        let read: Vec<(&str, &str)> = members
            .iter()
            .map(|(key, value)| (key.as_str(), value.get()))
            .collect();
        assert_eq!(
            read,
            [
                ("b", "1.0e400"),
                ("a", r#"{"x": [ 1 ]}"#),
                ("b", r#""\u00e9""#)
            ]
        );
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for json in ["[]", "1", "null", "\"{}\"", "{", "{\"a\"}"] {
            assert!(serde_json::from_str::<Members>(json).is_err(), "{json}");
        }
    }
}
