//! A mail server that keeps what it gets: SMTP (RFC 5321) over TCP, as far as
//! a client that sends mail needs it. It can refuse at first.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A connection that says nothing for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// A mail as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Header and body, dots unstuffed, lines ended by LF.
    pub text: String,
}

impl Mail {
    /// The value of a header field on one line; `None` where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\n\n").next().unwrap_or_default();
        let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
        unfolded.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    }
}

/// The server. It listens on 127.0.0.1 until the test process ends.
pub struct SmtpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    mails: Mutex<Vec<Mail>>,
    refuse: AtomicU32,
    tried: AtomicU32,
}

impl SmtpSink {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = served.clone();
                std::thread::spawn(move || {
                    // A client that goes away is no failure of the server's.
                    let _ = converse(&stream, &shared);
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Its URL, for `AV_SMTP_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Refuses the next so many mails with 451: try again later.
    pub fn refuse_next(&self, mails: u32) {
        self.shared.refuse.store(mails, Ordering::SeqCst);
    }

    /// How many mails were offered, the refused ones among them.
    #[must_use]
    pub fn tried(&self) -> u32 {
        self.shared.tried.load(Ordering::SeqCst)
    }

    /// The mails that it took, in order.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.shared
            .mails
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    let mut answers = stream;
    let mut lines = BufReader::new(stream);
    let mut say = |text: &str| answers.write_all(format!("{text}\r\n").as_bytes());
    say("220 sink.test ESMTP")?;
    let (mut from, mut to): (Option<String>, Vec<String>) = (None, Vec::new());
    loop {
        let Some(line) = read_line(&mut lines)? else {
            return Ok(());
        };
        let verb = line.get(..4).unwrap_or(&line).to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                say("250-sink.test")?;
                say("250 8BITMIME")?;
            }
            "HELO" | "NOOP" => say("250 sink.test")?,
            "RSET" => {
                (from, to) = (None, Vec::new());
                say("250 reset")?;
            }
            "MAIL" => {
                from = address_of(&line);
                say(if from.is_some() {
                    "250 sender"
                } else {
                    "501 MAIL FROM:<address>"
                })?;
            }
            "RCPT" if from.is_none() => say("503 MAIL first")?,
            "RCPT" => match address_of(&line) {
                Some(address) => {
                    to.push(address);
                    say("250 recipient")?;
                }
                None => say("501 RCPT TO:<address>")?,
            },
            "DATA" if to.is_empty() => say("503 RCPT first")?,
            "DATA" => {
                say("354 end with a dot")?;
                let Some(text) = read_data(&mut lines)? else {
                    return Ok(());
                };
                shared.tried.fetch_add(1, Ordering::SeqCst);
                let refused = shared
                    .refuse
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok();
                if refused {
                    say("451 try again later")?;
                } else {
                    let mail = Mail {
                        from: from.take().unwrap_or_default(),
                        to: std::mem::take(&mut to),
                        text,
                    };
                    shared
                        .mails
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(mail);
                    say("250 kept")?;
                }
                (from, to) = (None, Vec::new());
            }
            "QUIT" => {
                say("221 bye")?;
                return Ok(());
            }
            _ => say("500 unknown command")?,
        }
    }
}

/// A line without its end; `None` where the client is gone.
fn read_line(lines: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if lines.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line);
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The text up to the line with a dot alone, its leading dots unstuffed
/// (RFC 5321 section 4.5.2); `None` where the client went before its end.
fn read_data(lines: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut text = String::new();
    while let Some(line) = read_line(lines)? {
        if line == "." {
            return Ok(Some(text));
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
        text.push('\n');
    }
    Ok(None)
}

fn address_of(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('<')?;
    let (address, _) = rest.split_once('>')?;
    Some(address.to_owned())
}
