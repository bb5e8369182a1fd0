//! Simulated SNMP agents, many on one thread: 127.2.0.1, 127.2.0.2, ...

use std::process::ExitCode;

use av_proto_tests::snmp_sim::{Agent, addresses, serve};
use clap::Parser;

/// Simulated SNMP agents of version 1 and 2c on loopback addresses.
#[derive(Parser)]
struct Options {
    /// How many.
    #[arg(long, default_value_t = 500)]
    count: usize,
    /// UDP port of each.
    #[arg(long, default_value_t = 1161)]
    port: u16,
    /// The community that opens them.
    #[arg(long, default_value = "public")]
    community: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let agents = addresses([127, 2, 0, 1], options.count, options.port)
        .into_iter()
        .map(|address| (address, Agent::typical(&address.ip().to_string())))
        .collect();
    match serve(agents, options.community.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snmp-sim: {error}");
            ExitCode::FAILURE
        }
    }
}
