//! The `av-agent` program.

use std::process::ExitCode;
use std::thread;

use av_agent::cli::Command;
use av_agent::run::run;
use av_agent::settings::Settings;
use clap::Parser;
use crossbeam_channel::bounded;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Watches a site's audio-visual equipment and reports to the backend.
///
/// It is set by environment variables: AGENT_CONFIG (the configuration file,
/// default /agent/config/config.json), CONFIG_SYNC_INTERVAL_MIN (default 5),
/// AV_PAGE_LISTEN (status page, default 0.0.0.0:8080), AV_STATE_DIR (default:
/// state beside the configuration file), AV_FIRST_SYNC_S (default 10),
/// AV_SPOOL_MAX_MB (default 256), AV_SPOOL_MAX_DAYS (default 30), AV_CA_FILE
/// (authorities for TLS, default: the system's), AV_CLIENT_CERT and
/// AV_CLIENT_KEY (default none), AV_HANG_S (default 300) and RUST_LOG (default
/// info).
#[derive(Debug, Parser)]
#[command(version, about, long_about, verbatim_doc_comment)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// What to do; without one, the agent runs.
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
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
