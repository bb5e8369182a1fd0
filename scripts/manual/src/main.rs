//! `av-manual DIR` writes the man pages and completions of both programs.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let (Some(into), None) = (words.next().map(PathBuf::from), words.next()) else {
        eprintln!("usage: av-manual DIR");
        return ExitCode::from(2);
    };
    match av_manual::write(&into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("av-manual: {}: {error}", into.display());
            ExitCode::FAILURE
        }
    }
}
