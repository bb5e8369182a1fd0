//! A mail server that keeps what it gets: SMTP (RFC 5321) over TCP or TLS, with
//! a password or without, as far as a client that sends mail needs it. It can
//! refuse at first, and be slow to say that it took a mail.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A connection that says nothing for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Takes one from what is left of a number; false where nothing is left.
pub fn take_one(left: &AtomicU32) -> bool {
    let mut now = left.load(Ordering::SeqCst);
    while now > 0 {
        match left.compare_exchange_weak(now, now - 1, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return true,
            Err(changed) => now = changed,
        }
    }
    false
}

/// A mail as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Header and body, dots unstuffed, lines ended by LF.
    pub text: String,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// Who sent it, where the server asked.
    pub user: Option<String>,
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

/// How the server wants to be spoken to.
#[derive(Clone, Default)]
pub struct Settings {
    /// Whether the connection is encrypted, and with what.
    pub tls: Encryption,
    /// The one who may send mail, and how (RFC 4954); everybody where `None`.
    pub user: Option<User>,
}

/// Whether and how a connection is encrypted.
#[derive(Clone, Default)]
pub enum Encryption {
    /// Not.
    #[default]
    None,
    /// After STARTTLS (RFC 3207); nothing is taken before it.
    StartTls(Arc<ServerConfig>),
    /// From the first byte (RFC 8314).
    Implicit(Arc<ServerConfig>),
}

/// Who may send mail.
#[derive(Clone)]
pub struct User {
    /// The user name.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
    /// The mechanism that the server offers: `PLAIN` or `LOGIN`.
    pub mechanism: &'static str,
}

/// The server. It listens on 127.0.0.1 until the test process ends.
pub struct SmtpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    settings: Settings,
    mails: Mutex<Vec<Mail>>,
    refuse: AtomicU32,
    tried: AtomicU32,
    connections: AtomicU32,
    answer_after_ms: AtomicU64,
}

impl SmtpSink {
    /// Starts one for everybody, without encryption, on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Settings::default())
    }

    /// Starts one with these settings on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start_with(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            settings,
            ..Shared::default()
        });
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = served.clone();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // A client that goes away is no failure of the server's.
                    let _ = serve(stream, &shared);
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// The URL for `AV_SMTP_URL` of a server that takes mail of everybody.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The URL for `AV_SMTP_URL` with this user information, `USER:PASSWORD@`.
    #[must_use]
    pub fn url_as(&self, user: &str) -> String {
        let address = self.address;
        match self.shared.settings.tls {
            Encryption::None => format!("smtp://{user}{address}"),
            Encryption::StartTls(_) => format!("smtp://{user}{address}?tls=required"),
            Encryption::Implicit(_) => format!("smtps://{user}{address}"),
        }
    }

    /// Lets so much time pass from now on between a mail that was taken and
    /// the answer that says so.
    pub fn answer_after(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.answer_after_ms.store(ms, Ordering::SeqCst);
    }

    /// How often somebody connected.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
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

/// A connection, encrypted or not.
enum Wire {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn encrypt(stream: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(Self::Encrypted(Box::new(StreamOwned::new(
            connection, stream,
        ))))
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Encrypted(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Encrypted(stream) => stream.flush(),
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    match &shared.settings.tls {
        Encryption::None => {
            Conversation::new(Wire::Plain(stream), shared).hold(true)?;
        }
        Encryption::Implicit(config) => {
            Conversation::new(Wire::encrypt(stream, config)?, shared).hold(true)?;
        }
        Encryption::StartTls(config) => {
            // What came behind STARTTLS in clear goes with the old reader.
            let mut clear = Conversation::new(Wire::Plain(stream), shared);
            if clear.hold(true)? == End::StartTls {
                if let Wire::Plain(stream) = clear.lines.into_inner() {
                    Conversation::new(Wire::encrypt(stream, config)?, shared).hold(false)?;
                }
            }
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum End {
    Quit,
    StartTls,
}

struct Conversation<'a> {
    lines: BufReader<Wire>,
    shared: &'a Shared,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

impl<'a> Conversation<'a> {
    fn new(wire: Wire, shared: &'a Shared) -> Self {
        Self {
            lines: BufReader::new(wire),
            shared,
            user: None,
            from: None,
            to: Vec::new(),
        }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let wire = self.lines.get_mut();
        wire.write_all(format!("{text}\r\n").as_bytes())?;
        wire.flush()
    }

    fn hold(&mut self, greet: bool) -> io::Result<End> {
        if greet {
            self.say("220 sink.test ESMTP")?;
        }
        while let Some(line) = read_line(&mut self.lines)? {
            let verb = line
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => self.hello()?,
                "HELO" | "NOOP" => self.say("250 sink.test")?,
                "STARTTLS" if self.wants_encryption() => {
                    self.say("220 go ahead")?;
                    return Ok(End::StartTls);
                }
                "AUTH" => self.authenticate(&line)?,
                "RSET" => {
                    (self.from, self.to) = (None, Vec::new());
                    self.say("250 reset")?;
                }
                "MAIL" if self.wants_encryption() => self.say("530 5.7.0 STARTTLS first")?,
                "MAIL" if self.shared.settings.user.is_some() && self.user.is_none() => {
                    self.say("530 5.7.0 AUTH first")?;
                }
                "MAIL" => {
                    self.from = address_of(&line);
                    self.say(if self.from.is_some() {
                        "250 sender"
                    } else {
                        "501 MAIL FROM:<address>"
                    })?;
                }
                "RCPT" if self.from.is_none() => self.say("503 MAIL first")?,
                "RCPT" => match address_of(&line) {
                    Some(address) => {
                        self.to.push(address);
                        self.say("250 recipient")?;
                    }
                    None => self.say("501 RCPT TO:<address>")?,
                },
                "DATA" if self.to.is_empty() => self.say("503 RCPT first")?,
                "DATA" => {
                    self.say("354 end with a dot")?;
                    let Some(text) = read_data(&mut self.lines)? else {
                        break;
                    };
                    self.take(text)?;
                }
                "QUIT" => {
                    self.say("221 bye")?;
                    break;
                }
                _ => self.say("500 unknown command")?,
            }
        }
        Ok(End::Quit)
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.lines.get_ref(), Wire::Encrypted(_))
    }

    fn wants_encryption(&self) -> bool {
        matches!(self.shared.settings.tls, Encryption::StartTls(_)) && !self.is_encrypted()
    }

    fn hello(&mut self) -> io::Result<()> {
        self.say("250-sink.test")?;
        if self.wants_encryption() {
            self.say("250-STARTTLS")?;
        } else if let Some(user) = &self.shared.settings.user {
            self.say(&format!("250-AUTH {}", user.mechanism))?;
        }
        self.say("250 8BITMIME")
    }

    /// A server of the talkative kind: it repeats what it does not take.
    fn authenticate(&mut self, line: &str) -> io::Result<()> {
        let Some(user) = &self.shared.settings.user else {
            return self.say("503 nobody asked");
        };
        if self.wants_encryption() {
            return self.say(&format!("538 5.7.11 not in clear: {line}"));
        }
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let mut response = words.next().map(str::to_owned);
        let mut given = Vec::new();
        let prompts: &[&str] = match mechanism.as_str() {
            "PLAIN" => &[""],
            // "Username:" and "Password:"
            "LOGIN" => &["VXNlcm5hbWU6", "UGFzc3dvcmQ6"],
            _ => &[],
        };
        if mechanism != user.mechanism || prompts.is_empty() {
            return self.say("504 5.5.4 not offered");
        }
        for prompt in prompts {
            let text = match response.take() {
                Some(text) => text,
                None => {
                    self.say(&format!("334 {prompt}"))?;
                    read_line(&mut self.lines)?.unwrap_or_default()
                }
            };
            given.push(text);
        }
        let decoded: Vec<String> = given
            .iter()
            .flat_map(|text| {
                BASE64
                    .decode(text)
                    .unwrap_or_default()
                    .split(|b| *b == 0)
                    .map(<[u8]>::to_vec)
                    .collect::<Vec<_>>()
            })
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .filter(|text| !text.is_empty())
            .collect();
        if decoded == [user.name, user.password] {
            self.user = Some(user.name.to_owned());
            return self.say("235 2.7.0 welcome");
        }
        self.say(&format!(
            "535 5.7.8 not accepted: {} ({})",
            given.join(" "),
            decoded.join(" ")
        ))
    }

    fn take(&mut self, text: String) -> io::Result<()> {
        let shared = self.shared;
        shared.tried.fetch_add(1, Ordering::SeqCst);
        let (from, to) = (self.from.take(), std::mem::take(&mut self.to));
        if take_one(&shared.refuse) {
            return self.say("451 try again later");
        }
        let mail = Mail {
            from: from.unwrap_or_default(),
            to,
            text,
            encrypted: self.is_encrypted(),
            user: self.user.clone(),
        };
        shared
            .mails
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(mail);
        std::thread::sleep(Duration::from_millis(
            shared.answer_after_ms.load(Ordering::SeqCst),
        ));
        self.say("250 kept")
    }
}

/// A line without its end; `None` where the client is gone.
fn read_line(lines: &mut BufReader<Wire>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if lines.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&line);
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The text up to the line with a dot alone, its leading dots unstuffed
/// (RFC 5321 section 4.5.2); `None` where the client went before its end.
fn read_data(lines: &mut BufReader<Wire>) -> io::Result<Option<String>> {
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
