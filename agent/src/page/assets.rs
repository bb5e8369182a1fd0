//! Files in the binary.

/// The style sheet.
pub(super) const STYLE: &str = include_str!("../../templates/style.css");
