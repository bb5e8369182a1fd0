//! A configuration as a backend sends it: read, validated, put in canonical
//! form and read again, it has the same hash and watches the same devices.

#![no_main]

use av_proto::canonical::canonicalize;
use av_proto::config::{HashError, SiteConfig, SiteDocument};
use av_proto::hash::ConfigHash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(document) = SiteDocument::parse(body) else {
        return;
    };
    let config = SiteConfig::validate(&document.parts(), &document.devices);
    let hash = hash(&document);
    let text = std::str::from_utf8(body).expect("JSON is UTF-8");
    let Ok(canonical) = canonicalize(text) else {
        // Too deep: then there is no hash either.
        assert!(hash.is_none() || document.verify_hash().is_ok());
        return;
    };
    // A numeral past the range of floats has no JSON in Python either.
    if canonical.contains("Infinity") {
        return;
    }
    let again = SiteDocument::parse(canonical.as_bytes()).expect("the same document");
    if let Some(hash) = hash {
        assert_eq!(self::hash(&again), Some(hash));
    }
    match (config, SiteConfig::validate(&again.parts(), &again.devices)) {
        (Ok(config), Ok(again)) => {
            // A device is refused for a repeated field, which the canonical
            // form has once.
            if config.rejected.is_empty() {
                assert_eq!(config, again);
            }
            assert!(config.devices.len() + config.rejected.len() == document.devices.len());
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        (one, other) => panic!("{one:?} became {other:?}"),
    }
});

/// The hash of what was received, where it has one.
fn hash(document: &SiteDocument) -> Option<ConfigHash> {
    match document.verify_hash() {
        Ok(()) => Some(document.config_hash.clone()),
        Err(HashError::Mismatch { computed, .. }) => Some(computed),
        Err(HashError::Field(_)) => None,
    }
}
