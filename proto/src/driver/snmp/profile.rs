//! Readings for common kinds of equipment, one file each in `profiles/`.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::reading::{self, Reading};
use crate::FieldError;
use crate::field::from_json;

/// The shipped profiles by name, each a JSON text with `about`, `source`,
/// `object_ids` and `oids` as in `driver_config.snmp.oids`.
pub const PROFILES: &[(&str, &str)] = &[
    ("interface", include_str!("profiles/interface.json")),
    ("pdu_apc", include_str!("profiles/pdu_apc.json")),
    ("printer", include_str!("profiles/printer.json")),
    (
        "projector_dell",
        include_str!("profiles/projector_dell.json"),
    ),
    (
        "projector_epson",
        include_str!("profiles/projector_epson.json"),
    ),
    ("projector_pwg", include_str!("profiles/projector_pwg.json")),
    ("ups", include_str!("profiles/ups.json")),
];

/// A shipped profile.
#[derive(Debug, Clone)]
pub struct Profile {
    /// For which equipment it is.
    pub about: String,
    /// Which MIB defines its objects.
    pub source: String,
    /// What the `sysObjectID` (RFC 3418) of such equipment begins with.
    pub object_ids: Vec<String>,
    /// What is asked for. Devices of one profile share it.
    pub readings: Arc<[Reading]>,
}

#[derive(Deserialize)]
struct Document {
    about: String,
    source: String,
    object_ids: Vec<String>,
    oids: Vec<reading::Document>,
}

impl Profile {
    /// Every shipped profile, read once: a configuration of a thousand devices
    /// asks as often.
    fn all() -> &'static [Option<Self>] {
        static PARSED: OnceLock<Vec<Option<Profile>>> = OnceLock::new();
        PARSED.get_or_init(|| {
            // The tests read every one of them.
            let parse = |text: &&str| Profile::parse(text).ok();
            PROFILES.iter().map(|(_, text)| text).map(parse).collect()
        })
    }

    /// The profile of this name, whatever the case of its letters.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let place = PROFILES
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Self::all().get(place)?.clone()
    }

    /// The name of the profile for equipment of this `sysObjectID`, dotted:
    /// that of the longest beginning which one has.
    #[must_use]
    pub fn name_for(object_id: &str) -> Option<&'static str> {
        let object_id = object_id.trim_start_matches('.');
        let begins = |known: &&String| {
            object_id
                .strip_prefix(known.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        PROFILES
            .iter()
            .zip(Self::all())
            .filter_map(|((name, _), profile)| {
                let known = profile.as_ref()?.object_ids.iter().filter(begins);
                Some((known.map(String::len).max()?, *name))
            })
            .max()
            .map(|(_, name)| name)
    }

    fn parse(text: &str) -> Result<Self, Vec<FieldError>> {
        let document: Document = from_json(text.as_bytes()).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        let readings = reading::validate(document.oids, &mut errors);
        if errors.is_empty() {
            Ok(Self {
                about: document.about,
                source: document.source,
                object_ids: document.object_ids,
                readings: readings.into(),
            })
        } else {
            Err(errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::snmp::Oid;

    #[test]
    fn every_profile_is_valid_and_sorted() {
        for (name, text) in PROFILES {
            let profile =
                Profile::parse(text).unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
            assert!(
                !profile.readings.is_empty() && !profile.about.is_empty(),
                "{name}"
            );
            assert!(Profile::named(&name.to_uppercase()).is_some());
        }
        assert!(PROFILES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(Profile::named("toaster").is_none());
        let (one, other) = (Profile::named("ups"), Profile::named("ups"));
        assert!(Arc::ptr_eq(
            &one.unwrap().readings,
            &other.unwrap().readings
        ));
    }

    #[test]
    fn an_object_id_names_the_profile_of_its_longest_known_beginning() {
        for (object_id, name) in [
            ("1.3.6.1.4.1.318.1.3.4.5", Some("pdu_apc")),
            (".1.3.6.1.4.1.318.1.3.4.6", Some("pdu_apc")),
            ("1.3.6.1.4.1.318.1.3.4.50", None),
            ("1.3.6.1.4.1.318.1.3.27", None),
            ("1.3.6.1.4.1.1248.4.1", Some("projector_epson")),
            ("1.3.6.1.4.1.1248.4.2", None),
            ("1.3.6.1.4.1.1248.1.1.2", Some("printer")),
            ("1.3.6.1.4.1.1248.3.1.2.1", Some("printer")),
            ("1.3.6.1.4.1.641.2.71107", Some("printer")),
            ("1.3.6.1.4.1.641.6.8", Some("printer")),
            ("1.3.6.1.4.1.674.10898.2.1", Some("printer")),
            ("1.3.6.1.4.1.674.10899.100.1", Some("projector_dell")),
            ("1.3.6.1.4.1.674.10899.3", None),
            ("1.3.6.1.4.1.18334.1.2.1.2", Some("printer")),
            ("1.3.6.1.4.1.27748.4.1", Some("printer")),
            ("1.3.6.1.4.1.9.6.1.82.28.1", Some("interface")),
            ("1.3.6.1.4.1.11.2.14.11.7.1", Some("interface")),
            ("1.3.6.1.4.1.14988.2", Some("interface")),
            ("1.3.6.1.4.1.11.2.3.9.1", Some("printer")),
            ("1.3.6.1.4.1.11.2.3.7.11.44", Some("interface")),
            ("1.3.6.1.2.1.33", Some("ups")),
            ("1.3.6.1.4.1.8072.3.2.10", None),
            ("", None),
        ] {
            assert_eq!(Profile::name_for(object_id), name, "{object_id}");
        }
        // Each is an OID, and of one profile.
        let mut seen = std::collections::HashSet::new();
        for profile in Profile::all().iter().flatten() {
            for object_id in &profile.object_ids {
                let oid: Oid = object_id.parse().unwrap();
                assert!(seen.insert(oid.to_string()), "{object_id}");
            }
        }
    }
}
