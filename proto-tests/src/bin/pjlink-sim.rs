//! Simulated PJLink projectors for a bench or a demonstration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use av_proto_tests::pjlink_sim::{
    Class2, Config, ErrorStatus, Faults, PORT, Power, Projector, State, Timing,
};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Simulates projectors that speak PJLink, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "pjlink-sim", version)]
struct Arguments {
    /// Where it listens; the next ones on the addresses that follow
    #[arg(long, default_value = "127.0.0.11:4352", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// How many projectors
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// The password that they want (default: none)
    #[arg(long)]
    password: Option<String>,
    /// standby, on, cooling or warm-up
    #[arg(long, default_value = "on")]
    power: Power,
    /// Lighting hours; again for each further lamp
    #[arg(long, value_name = "HOURS")]
    lamp_hours: Vec<u32>,
    /// A projector without a lamp: LAMP answers ERR1
    #[arg(long, conflicts_with = "lamp_hours")]
    no_lamp: bool,
    /// What is wrong, as lamp=error or filter=warning (fan, lamp,
    /// temperature, cover, filter, other); may be repeated
    #[arg(long, value_name = "PART=LEVEL")]
    error: Vec<String>,
    /// The selected input, as 31
    #[arg(long, default_value = "31")]
    input: String,
    /// The projector's name; with --count a number is added
    #[arg(long, default_value = "Projecteur")]
    name: String,
    /// What INF1 answers
    #[arg(long, default_value = "SIMULATED")]
    manufacturer: String,
    /// What INF2 answers
    #[arg(long, default_value = "PJ-1")]
    product: String,
    /// Answers ERR3 to questions about lamps and input in standby
    #[arg(long)]
    sleeps_in_standby: bool,
    /// Class 2: more commands, searches and notices over UDP
    #[arg(long)]
    class2: bool,
    /// Where a projector of class 2 sends its notices
    #[arg(long, value_name = "ADDRESS:PORT", requires = "class2")]
    notify: Option<SocketAddr>,
    /// The port of the asker to which a projector of class 2 answers a search
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    search_port: u16,
    /// Seconds from standby to on
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    warm_up: u64,
    /// Seconds from on to standby
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    cool_down: u64,
    /// A fault; may be repeated. silent, refuse, slow-greeting=MS,
    /// slow-answers=MS, slow-search=MS, ignores=COMMAND, pieces=MS,
    /// close-after-answer, close-before-answer, garbage-greeting,
    /// garbage-answers, endless-answers, upper-case, lower-case,
    /// erra-greeting, lock-after=N, or the answer to a command, as LAMP=ERR4
    #[arg(long, value_name = "FAULT")]
    fault: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("pjlink-sim: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    // Before the projectors start, so that a signal cannot slip between.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|e| format!("signals: {e}"))?;
    let mut projectors = Vec::new();
    for index in 0..arguments.count {
        let config = config(arguments, index)?;
        let listen = config.listen;
        projectors.push(Projector::start(config).map_err(|e| format!("{listen}: {e}"))?);
    }
    match projectors.as_slice() {
        [] => return Err("--count 0: nothing to do".to_owned()),
        [only] => println!("projector on {}", only.addr()),
        [first, .., last] => println!(
            "{} projectors on {} to {}",
            projectors.len(),
            first.addr(),
            last.addr()
        ),
    }
    signals.forever().next();
    Ok(())
}

fn config(arguments: &Arguments, index: u32) -> Result<Config, String> {
    let mut errors = ErrorStatus::default();
    for text in &arguments.error {
        errors.set(text)?;
    }
    let mut faults = Faults::default();
    for text in &arguments.fault {
        faults.add(text)?;
    }
    let lamp_hours = match (arguments.no_lamp, arguments.lamp_hours.as_slice()) {
        (true, _) => Vec::new(),
        (false, []) => vec![0],
        (false, hours) => hours.to_vec(),
    };
    let mut config = Config::new(address(arguments.listen, index)?);
    config.password.clone_from(&arguments.password);
    config.timing = Timing {
        warm_up: Duration::from_secs(arguments.warm_up),
        cool_down: Duration::from_secs(arguments.cool_down),
    };
    config.faults = faults;
    config.notify = arguments.notify;
    config.search_port = Some(arguments.search_port);
    config.state = State {
        power: arguments.power,
        input: arguments.input.clone(),
        errors,
        lamp_hours,
        name: match arguments.count {
            1 => arguments.name.clone(),
            _ => format!("{} {}", arguments.name, index + 1),
        },
        manufacturer: arguments.manufacturer.clone(),
        product: arguments.product.clone(),
        sleeps_in_standby: arguments.sleeps_in_standby,
        class2: arguments.class2.then(|| class2(index)),
        ..State::default()
    };
    Ok(config)
}

/// Each its own serial number and MAC address.
fn class2(index: u32) -> Class2 {
    let [a, b, c, d] = (index + 1).to_be_bytes();
    Class2 {
        serial: format!("SIM-{:04}", index + 1),
        mac: [0x02, 0, a, b, c, d],
        ..Class2::default()
    }
}

/// The address of the projector with that index: one address each, all on
/// the same port.
fn address(first: SocketAddr, index: u32) -> Result<SocketAddr, String> {
    match first.ip() {
        _ if index == 0 => Ok(first),
        IpAddr::V4(ip) => {
            let next = u32::from(ip)
                .checked_add(index)
                .ok_or_else(|| format!("no address follows {ip} by {index}"))?;
            Ok(SocketAddr::from((Ipv4Addr::from(next), first.port())))
        }
        IpAddr::V6(_) => Err("--count needs an IPv4 address: loopback has many of them".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projectors_get_consecutive_addresses() {
        let first: SocketAddr = "127.0.0.254:4352".parse().unwrap();
        assert_eq!(address(first, 3).unwrap().to_string(), "127.0.1.1:4352");
        assert!(address("[::1]:4352".parse().unwrap(), 1).is_err());
    }

    #[test]
    fn arguments_make_the_projector() {
        let arguments = Arguments::try_parse_from([
            "pjlink-sim",
            "--listen=127.0.0.12:4352",
            "--password=admin",
            "--power=standby",
            "--lamp-hours=1234",
            "--lamp-hours=5",
            "--error=lamp=error",
            "--fault=slow-greeting=10",
            "--name=Salle 101",
        ])
        .unwrap();
        let config = config(&arguments, 0).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.12:4352");
        assert_eq!(config.password.as_deref(), Some("admin"));
        assert_eq!(config.state.power, Power::Standby);
        assert_eq!(config.state.lamp_hours, [1234, 5]);
        assert_eq!(config.state.errors.digits(), "020000");
        assert_eq!(config.state.name, "Salle 101");
        assert_eq!(config.faults.greeting_delay, Duration::from_millis(10));
    }
}
