//! A connection string, taken apart.

use std::path::PathBuf;

use postgres::config::{Config, SslMode};

use super::connector::UrlError;
use super::tls::{Demand, Proof};

/// A connection string as the library reads it, and what it says of TLS that
/// the library does not know: `verify-ca`, `verify-full` and `sslrootcert`.
pub(super) fn parse(text: &str) -> Result<(Config, Option<Demand>), UrlError> {
    let (rest, taken) = take_tls(text)?;
    let mut config: Config = rest.parse().map_err(|_| UrlError::Syntax)?;
    let authorities = taken
        .root_cert
        .filter(|file| !file.is_empty() && file != "system")
        .map(PathBuf::from);
    let proof = match taken.mode.as_deref() {
        None | Some("disable" | "allow" | "prefer") => None,
        Some("require") if authorities.is_some() => Some(Proof::Authority),
        Some("require") => Some(Proof::Nothing),
        Some("verify-ca") => Some(Proof::Authority),
        Some("verify-full") => Some(Proof::Name),
        Some(_) => return Err(UrlError::SslMode),
    };
    // An opportunity that anybody on the way can take away protects nobody:
    // TLS is demanded, or it is not there.
    config.ssl_mode(match proof {
        Some(_) => SslMode::Require,
        None => SslMode::Disable,
    });
    Ok((config, proof.map(|proof| Demand { proof, authorities })))
}

/// What was taken out of a string.
#[derive(Debug, Default)]
struct Taken {
    mode: Option<String>,
    root_cert: Option<String>,
}

impl Taken {
    /// Takes a setting where it is one of these; answers whether it did.
    fn take(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.root_cert = Some(value),
            _ => return false,
        }
        true
    }
}

fn take_tls(text: &str) -> Result<(String, Taken), UrlError> {
    let mut taken = Taken::default();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let Some((before, query)) = text.split_once('?') else {
            return Ok((text.to_owned(), taken));
        };
        let mut rest = before.to_owned();
        let mut mark = '?';
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').ok_or(UrlError::Syntax)?;
            if !taken.take(key, percent_decoded(value)?) {
                rest.push(mark);
                rest.push_str(pair);
                mark = '&';
            }
        }
        return Ok((rest, taken));
    }
    let mut rest = String::new();
    for Word { raw, key, value } in words(text)? {
        if !taken.take(&key, value) {
            rest.push_str(raw);
            rest.push(' ');
        }
    }
    Ok((rest, taken))
}

/// One `key=value` of a string of those.
struct Word<'a> {
    raw: &'a str,
    key: String,
    value: String,
}

/// Takes `key = 'value' ...` apart: spaces around the sign, quotes around a
/// value, a backslash before a quote or a backslash.
fn words(text: &str) -> Result<Vec<Word<'_>>, UrlError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(UrlError::Syntax)?;
        let from = rest.len() - after.trim_start().len();
        let mut value = String::new();
        let mut quoted = false;
        let mut letters = rest[from..].char_indices();
        let end = loop {
            match letters.next() {
                None if quoted => return Err(UrlError::Syntax),
                None => break rest.len(),
                Some((0, '\'')) => quoted = true,
                Some((at, '\'')) if quoted => break from + at + 1,
                Some((at, letter)) if letter.is_whitespace() && !quoted => break from + at,
                Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
                Some((_, letter)) => value.push(letter),
            }
        };
        found.push(Word {
            raw: &rest[..end],
            key: key.trim_end().to_owned(),
            value,
        });
        rest = rest[end..].trim_start();
    }
    Ok(found)
}

fn percent_decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            left.next()
                .and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UrlError::Syntax);
        };
        bytes.push(high * 16 + low);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Syntax)
}

/// The same settings with one of its hosts alone.
pub(super) fn one_host(config: &Config, nth: usize) -> Config {
    let mut one = Config::new();
    if let Some(host) = config.get_hosts().get(nth) {
        match host {
            postgres::config::Host::Tcp(name) => one.host(name),
            postgres::config::Host::Unix(path) => one.host_path(path),
        };
    }
    if let Some(address) = config.get_hostaddrs().get(nth) {
        one.hostaddr(*address);
    }
    let ports = config.get_ports();
    if let Some(port) = ports.get(nth).or(ports.first()) {
        one.port(*port);
    }
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(limit) = config.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    one.keepalives(config.get_keepalives());
    one.keepalives_idle(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.ssl_mode(config.get_ssl_mode());
    one.ssl_negotiation(config.get_ssl_negotiation());
    one.channel_binding(config.get_channel_binding());
    one.target_session_attrs(config.get_target_session_attrs());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_demanded_as_libpq_reads_it() {
        let demand = |proof, file: Option<&str>| {
            Some(Demand {
                proof,
                authorities: file.map(PathBuf::from),
            })
        };
        for (text, wanted) in [
            ("postgres://db/x", None),
            ("postgres://db/x?sslmode=disable", None),
            ("postgres://db/x?sslmode=prefer&connect_timeout=2", None),
            (
                "postgres://db/x?sslmode=require",
                demand(Proof::Nothing, None),
            ),
            (
                "postgres://db/x?connect_timeout=2&sslmode=require&sslrootcert=/etc/a%20b.pem",
                demand(Proof::Authority, Some("/etc/a b.pem")),
            ),
            (
                "postgres://db/x?sslmode=verify-ca",
                demand(Proof::Authority, None),
            ),
            (
                "postgresql://db/x?sslrootcert=system&sslmode=verify-full",
                demand(Proof::Name, None),
            ),
            (
                r"host = db sslmode= verify-full user='sslmode=x' sslrootcert='/a \'b.pem'",
                demand(Proof::Name, Some("/a 'b.pem")),
            ),
            ("host=db sslmode=verify-full", demand(Proof::Name, None)),
        ] {
            let (config, found) = parse(text).unwrap();
            assert_eq!(found, wanted, "{text}");
            assert_eq!(
                config.get_ssl_mode() == SslMode::Require,
                wanted.is_some(),
                "{text}"
            );
        }
        let (config, _) = parse("host=db password='sslmode=x y' sslmode=require").unwrap();
        assert_eq!(config.get_password(), Some(&b"sslmode=x y"[..]));
        for text in [
            "postgres://db/x?sslmode=verify",
            "postgres://db/x?sslmode=",
            "host=db sslmode=Require",
        ] {
            assert_eq!(parse(text).unwrap_err(), UrlError::SslMode, "{text}");
        }
        for text in [
            "postgres://db/x?sslrootcert=%2",
            "postgres://db/x?sslmode",
            "host=db password='x",
            "host",
        ] {
            assert_eq!(parse(text).unwrap_err(), UrlError::Syntax, "{text}");
        }
    }

    #[test]
    fn one_host_of_several_keeps_every_setting() {
        let text = "postgres://av:secret@db1:5433,db2:5434/m?connect_timeout=7&keepalives=0\
                    &keepalives_idle=11&keepalives_interval=12&keepalives_retries=13\
                    &tcp_user_timeout=14&options=-c%20x%3D1&channel_binding=require\
                    &target_session_attrs=read-write&sslmode=require";
        let (config, _) = parse(text).unwrap();
        let second = one_host(&config, 1);
        let (wanted, _) = parse(&text.replace("db1:5433,", "")).unwrap();
        // Shows every setting but the password.
        assert_eq!(format!("{second:?}"), format!("{wanted:?}"));
        assert_eq!(second.get_password(), wanted.get_password());
        let (config, _) = parse("postgres://db1,db2/m").unwrap();
        let (wanted, _) = parse("postgres://db2/m").unwrap();
        assert_eq!(one_host(&config, 1).get_hosts(), wanted.get_hosts());
    }
}
