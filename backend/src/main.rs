//! The `av-backend` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    av_backend::cli::run()
}
