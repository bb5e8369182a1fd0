//! `POST /suggestions`: equipment that a site's agent found.

use av_proto::suggestion::Suggestions;
use av_proto::text::{excerpt, one_line};
use jiff::Timestamp;
use serde_json::json;

use crate::admin::secrets::has_secret;
use crate::answer::Answer;
use crate::ingest::IngestError;
use crate::store::sites::Site;
use crate::store::{Store, StoreError};

/// Takes what an agent of `site` found; nothing of it is watched until
/// somebody accepts it.
pub(super) fn take(
    store: &Store,
    site: &Site,
    body: &[u8],
    at: Timestamp,
) -> Result<Answer, IngestError> {
    let suggestions = Suggestions::parse(body)?;
    if suggestions.site_name != site.name {
        return Err(if store.site_exists(&suggestions.site_name)? {
            IngestError::OtherSite
        } else {
            IngestError::UnknownSite
        });
    }
    for (index, found) in suggestions.found.iter().enumerate() {
        let config = found.driver_config.as_ref();
        if config.is_some_and(has_secret) {
            return Err(IngestError::Shape(av_proto::FieldError::new(
                format!("found[{index}].driver_config"),
                "has a secret: an administrator enters it",
            )));
        }
    }
    let taken = store
        .take_suggestions(site.id, &suggestions.found, at)
        .map_err(|error| match error {
            StoreError::BadValue(why) => IngestError::Shape(av_proto::FieldError::new(
                "found",
                format!("cannot be stored: {}", excerpt(&why, 200)),
            )),
            other => IngestError::Store(other),
        })?;
    log::info!(
        "site {} found equipment: {} suggested, {} known, {} configured",
        one_line(&site.name),
        taken.suggested,
        taken.known,
        taken.configured
    );
    Ok(Answer::json(
        200,
        &json!({"ok": true, "suggested": taken.suggested, "known": taken.known,
                "configured": taken.configured}),
    ))
}
