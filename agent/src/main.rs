//! The `av-agent` program.

use std::env;
use std::process::ExitCode;
use std::thread;

use av_agent::cli::{self, Command};
use av_agent::run::run;
use av_agent::settings::Settings;
use crossbeam_channel::bounded;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    let command = match Command::of(env::args_os().skip(1)) {
        Ok(command) => command,
        Err(stop) => return cli::stop(&stop),
    };
    match &command {
        Some(command) => command.start_log(),
        None => {
            av_service::journal::logger("info").init();
        }
    }
    // One line in the log and not a trace on the terminal: the supervisor
    // says what becomes of it.
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            log::error!("💥 Panic at {}:{}", place.file(), place.line());
        }
    }));
    if let Some(command) = command {
        return command.run().into();
    }
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("❌ {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::from_env()?;
    let (told, terminate) = bounded(1);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            for _ in signals.forever() {
                // A second signal finds the first one waiting.
                let _ = told.try_send(());
            }
        })?;
    run(&settings, &terminate)?;
    Ok(())
}
