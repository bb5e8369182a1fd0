//! `av-agent discover`: what equipment is in a network.

use std::env;
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use av_proto::driver::DriverSettings;
use av_proto::secret::Secret;
use av_proto::sort::sort_by;
use av_proto::suggestion::{FOUND_MAX, Found, Suggestions};
use serde::{Deserialize, Serialize};

use super::args::{ArgsError, Given};
use super::installed::{Environment, explained};
use super::output::{self, DOUBTFUL, FAINT, GOOD};
use super::progress::Progress;
use super::table::{Cell, Table};
use super::{Exit, Outcome};
use crate::config::{Identity, parse};
use crate::discover::look::{Look, Pace, Seen};
use crate::discover::maker::Makers;
use crate::discover::network::{ADDRESSES_MAX, Network, addresses};
use crate::discover::proposal::{Evidence, PJLINK_PORT, propose};
use crate::driver::Drivers;
use crate::http_client::error_of;
use crate::pjlink::refusal::Refusal;
use crate::pjlink::search::{Hearing, Search, WAIT};
use crate::supervisor::Health;

/// A backend's answer to suggestions is short.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// What `av-agent discover` is told.
#[derive(Debug)]
pub struct Arguments {
    networks: Vec<Network>,
    /// Questions a second.
    rate: u32,
    search_wait: Duration,
    /// Environment variables that hold a community.
    community_env: Vec<String>,
    /// The one that holds a PJLink password.
    password_env: Option<String>,
    json: bool,
    suggest: bool,
    quiet: bool,
}

impl Arguments {
    /// What `av-agent discover --help` prints.
    pub(super) const HELP: &str = "\
Say what equipment is in networks, and how it may be watched.

Each address is asked with ping and ARP, SNMP and PJLink, at a bounded rate.
Only the networks that are named are asked. Projectors of PJLink class 2 may
take 10 s to answer a search, each another time: so long it takes at least.

Ctrl-C ends it: what was found until then is printed, and the exit code is 130.
It is 2 where the command could not do its work.

Usage: av-agent discover [OPTIONS] <NETWORK>...

Arguments:
  <NETWORK>...
          Networks, ranges or addresses: 192.168.1.0/24 192.168.2.10-20. Only
          these are asked, 65,536 addresses at most

Options:
      --rate <RATE>
          Questions a second, 1 to 10000 [default: 100]
      --search-wait <SECONDS>
          How long answers to the PJLink search are waited for after the last
          question, 0 to 60; 0: no search [default: 11]
      --community-env <VARIABLE>...
          An SNMP community beside public, from an environment variable; may be
          given again
      --password-env <VARIABLE>
          A PJLink password, from an environment variable, tried once at each
          projector that wants one
      --json
          Print one JSON document
      --suggest
          Send what was found to the backend of the running configuration, where
          an administrator accepts or dismisses it
  -q, --quiet
          Do not say what is being done
  -h, --help
          Print this help
";

    pub(super) fn of(given: &Given) -> Result<Self, ArgsError> {
        let networks = given.words(0)?;
        if networks.is_empty() {
            return Err(ArgsError::Required(given.place(0).to_owned()));
        }
        Ok(Self {
            networks,
            rate: given.number("rate", 1, 10_000)?.unwrap_or(100),
            search_wait: given
                .number("search-wait", 0, 60)?
                .map_or(WAIT, |seconds| Duration::from_secs(seconds.into())),
            community_env: given.options("community-env")?,
            password_env: given.option("password-env")?,
            json: given.has("json"),
            suggest: given.has("suggest"),
            quiet: given.has("quiet"),
        })
    }
}

/// Looks, prints and suggests.
///
/// # Errors
/// When the networks are too large, a community cannot be had, or the backend
/// did not take what was found.
pub fn run(arguments: &Arguments) -> Outcome {
    let addresses = addresses(&arguments.networks).map_err(|count| {
        format!("{count} addresses are too many: {ADDRESSES_MAX} at most in one go")
    })?;
    let broadcasts: Vec<Ipv4Addr> = arguments
        .networks
        .iter()
        .filter_map(|network| network.broadcast())
        .collect();
    // Before the work, not after it.
    let environment = Environment::here();
    let identity = arguments
        .suggest
        .then(|| identity(&environment))
        .transpose()?;
    let communities = communities(&arguments.community_env)?;
    let password = password(arguments.password_env.as_deref())?;
    let health = Health::default();
    let drivers = Drivers::start(&health);
    let mut progress = Progress::start(arguments.quiet)?;
    let seen = Look {
        addresses: &addresses,
        broadcasts: &broadcasts,
        communities: &communities,
        password: password.as_ref(),
        pace: Pace::new(arguments.rate),
        search: search(arguments.search_wait)?,
        search_wait: arguments.search_wait,
    }
    .run(&drivers, &mut progress);
    progress.ends();

    let makers = Makers::load();
    let names: Vec<&str> = drivers.names().collect();
    let found: Vec<(Found, &Evidence)> = seen
        .found
        .iter()
        .map(|(ip, evidence)| {
            (
                propose(&ip.to_string(), evidence, &makers, &names),
                evidence,
            )
        })
        .collect();
    if arguments.json {
        output::print_json(&Document::new(&found, &seen))?;
    } else {
        output::print(&text(&found, seen.asked))?;
    }
    if seen.cut_short {
        let (asked, all) = (seen.asked, addresses.len());
        let but = match identity {
            Some(_) => ". Nothing was suggested to the backend",
            None => "",
        };
        output::hint(&format!(
            "{DOUBTFUL}⚠{DOUBTFUL:#} cut short: {asked} of {all} addresses were asked, and these \
             not everything{but}\n"
        ));
        return Ok(Exit::Interrupted);
    }
    if let Some((identity, site_name)) = identity {
        let all: Vec<Found> = found.into_iter().map(|(found, _)| found).collect();
        let taken = suggest(&environment, &identity, &site_name, &all)?;
        if !arguments.json {
            output::print(&format!(
                "{GOOD}suggested{GOOD:#} to {}: {} new or changed, {} known, {} configured already\n",
                identity.backend_url, taken.suggested, taken.known, taken.configured
            ))?;
        }
    }
    Ok(Exit::Good)
}

/// The search of PJLink class 2, where it is wanted. Says what it cannot hear.
fn search(wait: Duration) -> Result<Option<Search>, String> {
    if wait.is_zero() {
        return Ok(None);
    }
    let search = Search::start().map_err(|error| format!("PJLink search: {error}"))?;
    if search.hearing() == Hearing::Partly {
        let _ = writeln!(
            anstream::stderr(),
            "{DOUBTFUL}⚠{DOUBTFUL:#} UDP port {PJLINK_PORT} is another program's, most likely an \
             agent's with AV_PJLINK_NOTICES: projectors that answer the PJLink search to that \
             port are not heard. As root they are, or while the agent is stopped"
        );
    }
    Ok(Some(search))
}

/// The running configuration's identity and the site's name.
fn identity(environment: &Environment) -> Result<(Identity, String), String> {
    let path = environment.config_path();
    let shown = path.display();
    let content = std::fs::read(&path).map_err(|error| {
        format!(
            "{}; --suggest takes the backend and the token from it (AGENT_CONFIG)",
            explained(&path, &error)
        )
    })?;
    let (identity, site) = parse(&content).map_err(|error| format!("{shown}: {error}"))?;
    Ok((identity, site.site_name))
}

fn communities(variables: &[String]) -> Result<Vec<Secret>, String> {
    let mut communities = vec![Secret::new("public")];
    for variable in variables {
        let community =
            env::var(variable).map_err(|error| format!("--community-env {variable:?}: {error}"))?;
        communities.push(Secret::new(community));
    }
    Ok(communities)
}

/// The password to try at projectors.
fn password(variable: Option<&str>) -> Result<Option<Secret>, String> {
    let Some(variable) = variable else {
        return Ok(None);
    };
    let option = |problem: String| format!("--password-env {variable:?}: {problem}");
    let password = env::var(variable).map_err(|error| option(error.to_string()))?;
    // As the driver would say it of each projector.
    let section = serde_json::json!({"pjlink": {"password": password}});
    let sections = serde_json::from_value(section).map_err(|error| option(error.to_string()))?;
    DriverSettings::parse("pjlink", &sections)
        .map_err(|errors| option(errors.iter().map(|it| it.problem.as_str()).collect()))?;
    Ok(Some(Secret::new(password)))
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// How many addresses were asked.
    asked: usize,
    /// Whether it was ended before its end.
    cut_short: bool,
    found: Vec<FoundDocument<'a>>,
}

impl<'a> Document<'a> {
    fn new(found: &'a [(Found, &Evidence)], seen: &Seen) -> Self {
        let found = found.iter().map(|(found, evidence)| FoundDocument {
            found,
            ports: ports(evidence),
            ping_ms: evidence.echo_ms,
            refusal: refusal(evidence),
        });
        Self {
            asked: seen.asked,
            cut_short: seen.cut_short,
            found: found.collect(),
        }
    }
}

/// Why a projector tells nothing.
fn refusal(evidence: &Evidence) -> Option<Refusal> {
    evidence.pjlink.as_ref()?.refusal
}

/// One address, as `--json` has it.
#[derive(Debug, Serialize)]
struct FoundDocument<'a> {
    #[serde(flatten)]
    found: &'a Found,
    ports: Vec<u16>,
    ping_ms: Option<f64>,
    refusal: Option<Refusal>,
}

/// TCP ports that are open, and UDP 161 where SNMP answered.
fn ports(evidence: &Evidence) -> Vec<u16> {
    let snmp = evidence.snmp.as_ref().map(|_| 161);
    let mut ports: Vec<u16> = evidence.ports.iter().copied().chain(snmp).collect();
    sort_by(&mut ports, Ord::cmp);
    ports
}

fn text(found: &[(Found, &Evidence)], asked: usize) -> String {
    let mut table = Table::new(&[
        "IP", "DRIVER", "ACCESS", "VENDOR", "MODEL", "NAME", "MAC", "PORTS",
    ])
    .whole(&[0, 1, 2])
    .optional(&[5, 6, 7]);
    let shown = |text: &Option<String>| text.clone().unwrap_or_default();
    for (found, evidence) in found {
        let ports: Vec<String> = ports(evidence).iter().map(u16::to_string).collect();
        table.row([
            found.ip.as_str().into(),
            Cell::styled(found.driver.as_deref().unwrap_or("none"), GOOD),
            Cell::styled(refusal(evidence).map_or("", Refusal::words), DOUBTFUL),
            shown(&found.vendor).into(),
            shown(&found.model).into(),
            shown(&found.name).into(),
            Cell::styled(shown(&found.mac), FAINT),
            ports.join(" ").into(),
        ]);
    }
    format!(
        "{}{} found at {asked} addresses\n",
        if table.is_empty() {
            String::new()
        } else {
            table.render(output::width())
        },
        found.len()
    )
}

/// What the backend made of suggestions.
#[derive(Debug, Default, Deserialize)]
struct Taken {
    suggested: u64,
    known: u64,
    configured: u64,
}

fn suggest(
    environment: &Environment,
    identity: &Identity,
    site_name: &str,
    found: &[Found],
) -> Result<Taken, String> {
    let client = environment.client().map_err(|error| error.to_string())?;
    let mut sum = Taken::default();
    for part in found.chunks(FOUND_MAX) {
        let body = serde_json::to_vec(&Suggestions {
            site_name: site_name.to_owned(),
            found: part.to_vec(),
        })
        .map_err(|error| error.to_string())?;
        let answer = client
            .post_json(
                &identity.backend_url.suggestions(),
                &identity.site_token,
                &body,
                ANSWER_MAX_BYTES,
            )
            .map_err(|error| format!("backend not reachable: {error}"))?;
        let said = error_of(&answer.body)
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        if answer.status != 200 {
            return Err(format!(
                "the backend did not take the suggestions ({}){said}{}",
                answer.status,
                if answer.status == 404 && said.is_empty() {
                    "; it may be older than this agent"
                } else {
                    ""
                }
            ));
        }
        let taken: Taken = serde_json::from_slice(&answer.body)
            .map_err(|_| "the answer to suggestions is not the backend's".to_owned())?;
        sum.suggested += taken.suggested;
        sum.known += taken.known;
        sum.configured += taken.configured;
    }
    Ok(sum)
}
