//! How a line of the log looks: for a person, or with a priority for the
//! journal.

use std::io::Write as _;
use std::os::linux::fs::MetadataExt as _;

use jiff::Timestamp;
use log::Level;

/// A logger whose filter is `RUST_LOG`, or `filter` where that is not set.
/// Where standard error is the journal, each line begins with its priority and
/// has neither time nor colour: the journal has its own.
#[must_use]
pub fn logger(filter: &str) -> env_logger::Builder {
    let mut builder =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter));
    if is_standard_error(std::env::var("JOURNAL_STREAM").ok().as_deref()) {
        builder.format(|line, record| {
            let (priority, target) = (priority(record.level()), record.target());
            writeln!(line, "<{priority}>{target}: {}", record.args())
        });
    } else {
        // env_logger would bring a second copy of jiff for the time of a line.
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
    }
    builder
}

/// The priority of sd-daemon(3), which are those of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        // 5, notice, is for what is normal and still to be noticed.
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether `JOURNAL_STREAM`, "device:inode", names this process's standard
/// error: a program that was started by a unit and writes elsewhere has the
/// variable all the same.
fn is_standard_error(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|file| device.parse() == Ok(file.st_dev()) && inode.parse() == Ok(file.st_ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_standard_error_counts() {
        let file = std::fs::metadata("/proc/self/fd/2").ok();
        let own = file.map(|file| format!("{}:{}", file.st_dev(), file.st_ino()));
        assert!(is_standard_error(own.as_deref()));
        for other in [None, Some(""), Some("1"), Some("0:0"), Some("a:b")] {
            assert!(!is_standard_error(other), "{other:?}");
        }
    }
}
