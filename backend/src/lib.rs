//! The source of truth for the audio-visual equipment of many sites.
//!
//! Arrows go one way: [`http`] -> ([`config`], [`ingest`], [`admin`]) -> [`store`].
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`backup`] | `backup` and `restore`, around PostgreSQL's own programs |
//! | [`check`] | `check-config`: what is wrong with a configuration |
//! | [`reach`] | under which addresses people reach the server |
//! | [`serve`] | the threads of the server, wired together |
//! | [`admin`] | the administrator's API and pages, and who gets in |
//! | [`http`] | routing, authorization and limits |
//! | `guesses` | wrong tokens, counted by the sender from which they come |
//! | `gzip` | answers that are sent packed |
//! | `known` | tokens that were right, by whose they are |
//! | `news` | lines of the log that would come again and again |
//! | [`config`] | a site's configuration, its hash and its cache |
//! | [`import_python`] | the Python system's data, taken over |
//! | [`ingest`] | reports into observations, history and alerts |
//! | [`notify`] | mail and webhooks |
//! | [`store`] | everything that speaks SQL |
//! | [`upkeep`] | silent agents, finished days, old months |
//! | `turns` | a bound on work that holds a thread |
//! | [`threads`] | threads that are started again when they fail |
//! | [`stop`] | one signal that ends every thread |

pub mod admin;
mod answer;
pub mod backup;
mod causes;
pub mod check;
pub mod cli;
pub mod config;
mod device_state;
mod guesses;
mod gzip;
pub mod http;
pub mod import_python;
pub mod ingest;
mod known;
mod news;
pub mod notify;
pub mod reach;
pub mod serve;
pub mod stop;
pub mod store;
pub mod threads;
mod turns;
pub mod upkeep;
mod url;
