//! The pjlink driver.
