//! Readings for common kinds of equipment, one file each in `profiles/`.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::reading::{self, Reading};
use crate::FieldError;
use crate::field::from_json;

/// The shipped profiles by name, each a JSON text with `about`, `source` and
/// `oids` as in `driver_config.snmp.oids`.
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
    /// What is asked for. Devices of one profile share it.
    pub readings: Arc<[Reading]>,
}

#[derive(Deserialize)]
struct Document {
    about: String,
    source: String,
    oids: Vec<reading::Document>,
}

impl Profile {
    /// The profile of this name, whatever the case of its letters.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        static PARSED: OnceLock<Vec<Option<Profile>>> = OnceLock::new();
        // Read once: a configuration of a thousand devices asks as often.
        let parsed = PARSED.get_or_init(|| {
            // The tests read every one of them.
            let parse = |text: &&str| Profile::parse(text).ok();
            PROFILES.iter().map(|(_, text)| text).map(parse).collect()
        });
        let place = PROFILES
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        parsed.get(place)?.clone()
    }

    fn parse(text: &str) -> Result<Self, Vec<FieldError>> {
        let document: Document = from_json(text.as_bytes()).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        let readings = reading::validate(document.oids, &mut errors);
        if errors.is_empty() {
            Ok(Self {
                about: document.about,
                source: document.source,
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
}
