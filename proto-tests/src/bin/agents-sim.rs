//! Many agents against one backend: each polls with the hash that it has, and
//! reports, on connections of its own as real ones do. Prints what it saw as
//! one line of JSON.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Simulates agents. Agent N is the site "sim N" with the token "sim-N", both
/// from 0, and its devices have the addresses 10.0.X.Y.
#[derive(Debug, Clone, Parser)]
#[command(name = "agents-sim", version)]
struct Arguments {
    /// The backend's address
    #[arg(long, value_name = "IP:PORT")]
    backend: SocketAddr,
    /// How many agents
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// How many devices each watches
    #[arg(long, default_value_t = 10)]
    devices: u32,
    /// Seconds between two polls of an agent
    #[arg(long, default_value_t = 300.0)]
    poll_s: f64,
    /// Seconds between two reports of an agent
    #[arg(long, default_value_t = 300.0)]
    report_s: f64,
    /// Of so many reports of a device one tells of a change
    #[arg(long, default_value_t = 100)]
    change_of: u32,
    /// The number of each agent's first report
    #[arg(long, default_value_t = 1)]
    first_seq: u64,
    /// A file with the hash that each agent has at first, a line each
    #[arg(long, value_name = "FILE")]
    hashes: Option<PathBuf>,
    /// How long
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
    /// Threads, which bound the requests under way
    #[arg(long, default_value_t = 16)]
    threads: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Poll,
    Report,
}

/// What was seen of one kind of request.
#[derive(Debug, Default)]
struct Seen {
    /// How often each status came; 0 where no answer did.
    statuses: BTreeMap<u16, u64>,
    /// Of every answer.
    millis: Vec<f64>,
    /// How late the latest began, in seconds.
    late_s: f64,
}

struct SimulatedAgent {
    number: u32,
    etag: Option<String>,
    seq: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let hashes = match &arguments.hashes {
        None => String::new(),
        Some(file) => match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("agents-sim: {}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        },
    };
    let hashes: Vec<&str> = hashes.lines().collect();
    let started = Instant::now();
    let mut seen: BTreeMap<Kind, Seen> = BTreeMap::new();
    let per_thread: Vec<BTreeMap<Kind, Seen>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.threads.max(1))
            .map(|thread| {
                let (arguments, hashes) = (&arguments, &hashes);
                scope.spawn(move || run(arguments, hashes, thread, started))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    let complete = per_thread.len() == arguments.threads.max(1) as usize;
    for (kind, one) in per_thread.into_iter().flatten() {
        let all = seen.entry(kind).or_default();
        for (status, count) in one.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
        all.millis.extend(one.millis);
        all.late_s = all.late_s.max(one.late_s);
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut told = json!({"seconds": seconds, "agents": arguments.agents});
    for (kind, mut one) in seen {
        let name = match kind {
            Kind::Poll => "polls",
            Kind::Report => "reports",
        };
        told[name] = summary(&mut one, seconds);
    }
    println!("{told}");
    if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn summary(seen: &mut Seen, seconds: f64) -> Value {
    seen.millis.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = seen.millis.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        seen.millis.get(place).copied().unwrap_or(f64::NAN)
    };
    json!({
        "answers": seen.millis.len(),
        "per_s": seen.millis.len() as f64 / seconds,
        "statuses": seen.statuses.iter().map(|(k, v)| (k.to_string(), *v)).collect::<BTreeMap<_, _>>(),
        "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
        "latest_s": seen.late_s,
    })
}

/// The agents of one thread, each at its time.
fn run(
    arguments: &Arguments,
    hashes: &[&str],
    thread: u32,
    started: Instant,
) -> BTreeMap<Kind, Seen> {
    let threads = arguments.threads.max(1);
    let mut agents: Vec<SimulatedAgent> = (0..arguments.agents)
        .filter(|number| number % threads == thread)
        .map(|number| SimulatedAgent {
            number,
            etag: hashes
                .get(number as usize)
                .map(|hash| format!("\"{hash}\"")),
            seq: arguments.first_seq.saturating_sub(1),
        })
        .collect();
    let end = started + Duration::from_secs_f64(arguments.seconds);
    // Agents do not start together: each has its place in the interval.
    let mut due = BinaryHeap::new();
    for (place, agent) in agents.iter().enumerate() {
        let share = f64::from(agent.number) / f64::from(arguments.agents.max(1));
        for (kind, interval) in [
            (Kind::Poll, arguments.poll_s),
            (Kind::Report, arguments.report_s),
        ] {
            let first = started + Duration::from_secs_f64(share * interval);
            due.push(Reverse((first, place, kind)));
        }
    }
    let mut seen: BTreeMap<Kind, Seen> = BTreeMap::new();
    while let Some(Reverse((at, place, kind))) = due.pop() {
        if at >= end || Instant::now() >= end {
            break;
        }
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        let Some(agent) = agents.get_mut(place) else {
            continue;
        };
        let (status, interval) = match kind {
            Kind::Poll => (poll(arguments, agent), arguments.poll_s),
            Kind::Report => (report(arguments, agent), arguments.report_s),
        };
        let one = seen.entry(kind).or_default();
        *one.statuses.entry(status.unwrap_or(0)).or_default() += 1;
        if status.is_some() {
            one.millis.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        one.late_s = one.late_s.max(begun.duration_since(at).as_secs_f64());
        due.push(Reverse((
            at + Duration::from_secs_f64(interval),
            place,
            kind,
        )));
    }
    seen
}

fn poll(arguments: &Arguments, agent: &mut SimulatedAgent) -> Option<u16> {
    let condition = match &agent.etag {
        Some(etag) => format!("If-None-Match: {etag}\r\n"),
        None => String::new(),
    };
    let head = format!(
        "GET /config/sim-{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{condition}\r\n",
        agent.number, arguments.backend
    );
    let (status, answer) = exchange(arguments.backend, head.as_bytes())?;
    let etag = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("etag")
            .then(|| value.trim().to_owned())
    });
    agent.etag = etag.or(agent.etag.take());
    Some(status)
}

fn report(arguments: &Arguments, agent: &mut SimulatedAgent) -> Option<u16> {
    agent.seq += 1;
    let devices: Vec<Value> = (0..arguments.devices)
        .map(|n| {
            // Its status turns with the reports, each device's at its turn.
            let turn = (agent.seq + u64::from(agent.number) + u64::from(n) * 7)
                / u64::from(arguments.change_of.max(1));
            let (status, verdict) = match turn % 2 {
                0 => ("online", "ok"),
                _ => ("offline", "unknown"),
            };
            json!({
                "ip": format!("10.0.{}.{}", n / 250, n % 250), "name": format!("Device {n}"),
                "building": "A", "floor": "1", "room": "101", "type": "projector",
                "driver": "pjlink", "status": status, "verdict": verdict, "detail": null,
                "metrics": {"pjlink_ok": true, "pjlink_power": 1, "pjlink_power_label": "on",
                            "pjlink_port": 4352, "ts": "2026-01-01T00:00:00Z"},
            })
        })
        .collect();
    let body = json!({
        "site_name": format!("sim {}", agent.number), "devices": devices,
        "report": {"stream": "sim", "seq": agent.seq},
        "agent": {"version": "0.1.0"},
    })
    .to_string();
    let head = format!(
        "POST /ingest HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nX-Site-Token: sim-{}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        arguments.backend,
        agent.number,
        body.len()
    );
    let (status, _) = exchange(arguments.backend, head.as_bytes())?;
    if status != 200 {
        agent.seq -= 1;
    }
    Some(status)
}

/// One request on a connection of its own; the status and the whole answer.
fn exchange(backend: SocketAddr, request: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&backend, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}
