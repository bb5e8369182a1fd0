//! The source of truth for the audio-visual equipment of many sites.
//!
//! Arrows go one way: `http` -> (`config`, `ingest`) -> `store`.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | everything that speaks SQL |
//! | [`config`] | a site's configuration, its hash and its cache |
//! | [`ingest`] | reports into observations, history and alerts |
//! | [`stop`] | one signal that ends every thread |

pub mod config;
pub mod ingest;
pub mod stop;
pub mod store;
