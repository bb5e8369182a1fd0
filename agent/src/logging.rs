//! How a line of the log looks: `[2026-11-24T10:00:00Z INFO  av_agent::run] ...`

use std::io::Write;

use env_logger::{Builder, Env};
use jiff::Timestamp;

/// A logger by `RUST_LOG`, by `default_filter` where that is not set.
///
/// env_logger would bring a second copy of jiff for the time of a line.
#[must_use]
pub fn builder(default_filter: &str) -> Builder {
    let mut builder = Builder::from_env(Env::default().default_filter_or(default_filter));
    builder.format(|line, record| {
        let style = line.default_level_style(record.level());
        writeln!(
            line,
            "[{:.0} {style}{:<5}{style:#} {}] {}",
            Timestamp::now(),
            record.level(),
            record.target(),
            record.args()
        )
    });
    builder
}
