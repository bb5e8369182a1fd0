//! The network: ping, the page's port, the backend and its clock.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, ToSocketAddrs};

use av_proto::config::{SiteConfig, SiteDocument};
use av_proto::driver::DriverSettings;
use av_proto::secret::Secret;
use av_proto::text::excerpt;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::installed::{NET_BIND, NET_RAW, Service};
use super::super::page_url;
use super::Line;
use crate::config::Identity;
use crate::config_source::ConfigSource;
use crate::http_client::{Answer, HttpClient, error_of};
use crate::icmp::{Mode, Pinger};
use crate::page::local;
use crate::settings::Settings;
use crate::supervisor::Health;

const STATUS_MAX_BYTES: u64 = 64 << 20;
/// More than this, and observations stand at the wrong hour.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_secs(30);
/// No agent of this version ran before: a clock that says so was never set.
const CLOCK_LEAST: &str = "2026-01-01T00:00:00Z";

/// Whether the machine lets the agent ping. It matters to whoever has devices
/// to ping. The service is judged by what its unit gives it, not by what this
/// command may.
pub(super) fn ping(site: Option<&SiteConfig>, service: Option<&Service>, lines: &mut Vec<Line>) {
    let pinger = match service {
        Some(_) => None,
        None => Some(Pinger::start(&Health::default())),
    };
    let program = std::env::current_exe()
        .map_or_else(|_| "av-agent".to_owned(), |path| path.display().to_string());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap_or_default();
    for (about, any) in [
        ("ping IPv4", IpAddr::from(Ipv4Addr::LOCALHOST)),
        ("ping IPv6", IpAddr::from(Ipv6Addr::LOCALHOST)),
    ] {
        let wanted = site.is_some_and(|site| {
            site.devices.iter().any(|device| {
                matches!(device.settings, DriverSettings::Ping(_))
                    && device.ip.to_canonical().is_ipv4() == any.is_ipv4()
            })
        });
        let line = match (&pinger, service) {
            (Some(pinger), _) => ping_line(about, pinger.mode(any), wanted, range.trim(), &program),
            (None, Some(service)) if service.has_capability(NET_RAW) => {
                Line::good(about, "over a raw socket: the unit grants CAP_NET_RAW")
            }
            (None, service) => {
                let gids = service.and_then(|service| Some(&service.user.as_ref().ok()?.gids));
                let granted = gids.is_some_and(|gids| in_range(range.trim(), gids));
                let mode = granted.then_some(Mode::Datagram);
                ping_line(about, mode, wanted, range.trim(), &program)
            }
        };
        lines.push(line);
    }
}

/// Whether one of the groups is in `net.ipv4.ping_group_range`.
fn in_range(range: &str, gids: &[u32]) -> bool {
    let mut bounds = range.split_whitespace().map(str::parse::<u32>);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(least)), Some(Ok(most))) => gids.iter().any(|gid| (least..=most).contains(gid)),
        _ => false,
    }
}

fn ping_line(
    about: &'static str,
    mode: Option<Mode>,
    wanted: bool,
    range: &str,
    program: &str,
) -> Line {
    match mode {
        Some(Mode::Raw) => Line::good(about, "over a raw socket"),
        Some(Mode::Datagram) => {
            Line::good(about, "over a datagram socket (net.ipv4.ping_group_range)")
        }
        None => {
            let range: Vec<&str> = range.split_whitespace().collect();
            let found = format!(
                "not possible: no CAP_NET_RAW, and net.ipv4.ping_group_range is \"{}\"",
                range.join(" ")
            );
            let line = if wanted {
                Line::bad(about, found)
            } else {
                Line::doubtful(about, found + "; no device needs it now")
            };
            line.advise(format!(
                "one of these, and start the agent again:\n\
                 setcap cap_net_raw+ep {program}\n\
                 sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"\n\
                 AmbientCapabilities=CAP_NET_RAW in the unit, as the one that comes with it has"
            ))
        }
    }
}

/// Whether the status page's port is free, or the agent's own.
pub(super) fn page(settings: &Settings, service: Option<&Service>, lines: &mut Vec<Line>) {
    const ABOUT: &str = "status page";
    let listen = settings.page_listen;
    if let Some(service) = service {
        let least = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let least = least.ok().and_then(|text| text.trim().parse::<u16>().ok());
        let least = least.unwrap_or(1024);
        if listen.port() < least && !service.has_capability(NET_BIND) {
            lines.push(
                Line::bad(
                    ABOUT,
                    format!("{listen}: the service may not take a port below {least}"),
                )
                .advise("choose another port: AV_PAGE_LISTEN"),
            );
            return;
        }
    }
    lines.push(match TcpListener::bind(listen) {
        Ok(_) => Line::good(ABOUT, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let url = format!("{}/api/status", page_url(listen));
            if is_agent(&url) {
                Line::good(ABOUT, format!("the agent is running on {listen}"))
            } else {
                Line::bad(ABOUT, format!("{listen} is taken by another program")).advise(format!(
                    "find it (ss -ltnp sport = :{}), or choose another port: AV_PAGE_LISTEN",
                    listen.port()
                ))
            }
        }
        Err(error) => Line::bad(ABOUT, format!("{listen}: {error}"))
            .advise("choose an address of this machine and a port above 1023: AV_PAGE_LISTEN"),
    });
}

fn is_agent(url: &str) -> bool {
    HttpClient::new()
        .get(&Secret::new(url), None, STATUS_MAX_BYTES)
        .ok()
        .filter(|answer| answer.status == 200)
        .and_then(|answer| serde_json::from_slice::<serde_json::Value>(&answer.body).ok())
        .is_some_and(|status| status.get("sweep").is_some())
}

/// Name, connection, certificate, token, and the clock against the backend's.
pub(super) fn backend(settings: &Settings, identity: &Identity, lines: &mut Vec<Line>) {
    const ABOUT: &str = "backend";
    let url = identity.backend_url.as_str();
    if let Some((host, port)) = host_and_port(url) {
        let line = name(&host, port);
        let known = line.level != super::Level::Bad;
        lines.push(line);
        if !known {
            clock(None, lines);
            return;
        }
        lines.extend(clear_text(url, &host));
    }
    let asked = Timestamp::now();
    let answer = ConfigSource::new(HttpClient::with_tls(settings.tls.clone())).get(
        &identity.backend_url,
        &identity.site_token,
        None,
    );
    match answer {
        Err(error) => {
            lines.push(unreachable(url, &error.to_string()));
            clock(None, lines);
        }
        Ok(answer) => {
            lines.push(judge(url, &answer));
            let backend = answer.date.map(|date| (date, asked));
            clock(backend, lines);
        }
    }
    if identity.previous_token.is_some() {
        lines.push(Line::doubtful(
            ABOUT,
            "a new token waits to be confirmed: the agent does so at its next poll",
        ));
    }
}

/// The host and port of a base URL, as [`crate::config::BackendUrl`] has it.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let default = if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        80
    };
    // In an IPv6 address colons stand before the bracket closes.
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
        }
        _ => Some((authority.trim_matches(['[', ']']).to_owned(), default)),
    }
}

fn name(host: &str, port: u16) -> Line {
    const ABOUT: &str = "name";
    if host.parse::<IpAddr>().is_ok() {
        return Line::good(ABOUT, format!("{host} is an address: no look-up"));
    }
    match (host, port).to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.map(|a| a.ip().to_string()).collect();
            Line::good(ABOUT, format!("{host} is {}", addresses.join(", ")))
        }
        Err(error) => Line::bad(ABOUT, format!("{host}: {error}")).advise(
            "look at the name in backend_url, at /etc/resolv.conf and at the cable; getent hosts \
             tells what this machine knows",
        ),
    }
}

/// A token in clear can be read on the way.
fn clear_text(url: &str, host: &str) -> Option<Line> {
    let clear = url
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("http://"));
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (clear && !here).then(|| {
        Line::doubtful("TLS", "none: the token travels in clear")
            .advise("use https:// in backend_url, where the backend has a certificate")
    })
}

/// What to do where no answer comes.
pub(in super::super) fn unreachable_advice(error: &str) -> &'static str {
    let lower = error.to_ascii_lowercase();
    if lower.contains("certificate") || lower.contains("unknownissuer") {
        "look at the certificate, its dates and this machine's clock: docs/tls.md"
    } else if lower.contains("refused") {
        "nothing listens there: look at host and port of the backend's address, and whether the backend runs"
    } else if lower.contains("in time") {
        "no answer: look at the route, and for a firewall between here and there"
    } else if lower.contains("tls") || lower.contains("invalidcontenttype") {
        "what answers speaks no TLS: look whether the backend's address should begin with http://"
    } else {
        "look at host and port of the backend's address, and at the network"
    }
}

fn unreachable(url: &str, error: &str) -> Line {
    Line::bad("backend", format!("{url}: {}", excerpt(error, 300)))
        .advise(unreachable_advice(error))
}

/// What the answer to a poll says.
fn judge(url: &str, answer: &Answer) -> Line {
    const ABOUT: &str = "backend";
    match answer.status {
        200 => match SiteDocument::parse(&answer.body)
            .map_err(|error| error.to_string())
            .and_then(|document| {
                let verified = document.verify_hash();
                verified
                    .map(|()| document)
                    .map_err(|error| error.to_string())
            }) {
            Ok(document) => Line::good(
                ABOUT,
                format!(
                    "{url} knows the token: {}, {} devices",
                    document.site_name,
                    document.devices.len()
                ),
            ),
            Err(error) => Line::bad(
                ABOUT,
                format!(
                    "{url}: the answer is not a configuration: {}",
                    excerpt(&error, 160)
                ),
            )
            .advise("look whether backend_url is the backend's, and not another program's"),
        },
        404 => Line::bad(
            ABOUT,
            format!("{url} does not know this site's token (404)"),
        )
        .advise(
            "ask the administrator for a new token, and put it into site_token; a typing mistake \
             in backend_url looks the same",
        ),
        301..=308 => Line::bad(ABOUT, format!("{url} sends elsewhere ({})", answer.status))
            .advise("put the address that it sends to into backend_url: the agent follows none"),
        503 => Line::bad(ABOUT, format!("{url}: not ready (503){}", said(answer)))
            .advise("look at the backend: its database may be away"),
        status => Line::bad(ABOUT, format!("{url} answered {status}{}", said(answer)))
            .advise("look whether backend_url is the backend's, and at its log"),
    }
}

fn said(answer: &Answer) -> String {
    error_of(&answer.body)
        .map(|error| format!(": {error}"))
        .unwrap_or_default()
}

/// The clock, beside the backend's where that is known: its time and the
/// moment at which it was asked.
pub(super) fn clock(backend: Option<(Timestamp, Timestamp)>, lines: &mut Vec<Line>) {
    let now = backend.map_or_else(Timestamp::now, |(_, asked)| asked);
    let least = CLOCK_LEAST.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    lines.push(clock_line(now, least, backend.map(|(date, _)| date)));
}

fn clock_line(now: Timestamp, least: Timestamp, backend: Option<Timestamp>) -> Line {
    const ABOUT: &str = "clock";
    const ADVICE: &str = "set it: timedatectl set-ntp true, and see timedatectl timesync-status; \
                          a Pi without a battery needs its time server";
    let shown = format!("{} UTC", local(now, &TimeZone::UTC));
    if now < least {
        return Line::bad(ABOUT, format!("{shown}: it was never set")).advise(ADVICE);
    }
    let Some(backend) = backend else {
        return Line::good(ABOUT, format!("{shown}, compared with none"));
    };
    let ahead = now.duration_since(backend);
    if ahead.abs() <= CLOCK_DIFFERENCE {
        return Line::good(ABOUT, format!("{shown}, as the backend's"));
    }
    let seconds = ahead.as_secs();
    let found = format!(
        "{shown}: {} s {} the backend's",
        seconds.abs(),
        if seconds > 0 { "ahead of" } else { "behind" }
    );
    Line::doubtful(ABOUT, found).advise(ADVICE)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_clock_is_compared() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let least = at(CLOCK_LEAST);
        for (now, backend, level, said) in [
            ("1970-01-01T00:05:00Z", None, Level::Bad, "never set"),
            (
                "2026-11-24T10:00:00Z",
                None,
                Level::Good,
                "compared with none",
            ),
            (
                "2026-11-24T10:00:00Z",
                Some("2026-11-24T10:00:20Z"),
                Level::Good,
                "as the backend's",
            ),
            (
                "2026-11-24T10:00:00Z",
                Some("2026-11-24T11:00:00Z"),
                Level::Doubtful,
                "3600 s behind",
            ),
            (
                "2026-11-24T10:01:00Z",
                Some("2026-11-24T10:00:00Z"),
                Level::Doubtful,
                "60 s ahead",
            ),
        ] {
            let line = clock_line(at(now), least, backend.map(at));
            assert_eq!(line.level, level, "{line:?}");
            assert!(line.found.contains(said), "{line:?}");
        }
    }

    #[test]
    fn hosts_and_ports_are_taken_from_base_urls() {
        for (url, host, port) in [
            ("http://b", "b", 80),
            ("https://b.example/api", "b.example", 443),
            ("HTTPS://b:8443", "b", 8443),
            ("http://[::1]:8000", "::1", 8000),
            ("http://[::1]", "::1", 80),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)), "{url}");
        }
    }

    #[test]
    fn answers_say_what_to_do() {
        let answer = |status, body: &str| Answer {
            status,
            body: body.as_bytes().to_vec(),
            renew_token: false,
            date: None,
            takes_bearer: false,
        };
        for (status, body, said) in [
            (404, "{}", "does not know this site's token"),
            (302, "", "sends elsewhere"),
            (
                503,
                r#"{"error":"no database"}"#,
                "not ready (503): no database",
            ),
            (200, "<html>", "is not a configuration"),
            (500, "", "answered 500"),
        ] {
            let line = judge("http://b", &answer(status, body));
            assert_eq!(line.level, Level::Bad);
            assert!(line.found.contains(said), "{line:?}");
            assert!(line.advice.is_some());
        }
    }

    #[test]
    fn without_permission_to_ping_it_says_what_to_type() {
        for (wanted, level) in [(true, Level::Bad), (false, Level::Doubtful)] {
            let line = ping_line("ping IPv4", None, wanted, "1\t0", "/usr/bin/av-agent");
            assert_eq!(line.level, level);
            assert!(line.found.contains("\"1 0\""), "{line:?}");
            let advice = line.advice.unwrap();
            assert!(advice.contains("setcap cap_net_raw+ep /usr/bin/av-agent"));
            assert!(advice.contains("net.ipv4.ping_group_range"));
        }
    }

    #[test]
    fn a_group_is_in_the_kernels_range() {
        for (range, gids, is_in) in [
            ("0 2147483647", &[991][..], true),
            ("1\t0", &[0, 1], false),
            ("990 991", &[5, 991], true),
            ("990 991", &[992], false),
            ("", &[0], false),
        ] {
            assert_eq!(in_range(range, gids), is_in, "{range} {gids:?}");
        }
    }

    #[test]
    fn a_token_in_clear_is_said_where_it_leaves_the_machine() {
        assert!(clear_text("http://b:8000", "b").is_some());
        assert!(clear_text("https://b", "b").is_none());
        assert!(clear_text("http://127.0.0.1:8000", "127.0.0.1").is_none());
    }
}
