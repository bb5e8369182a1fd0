//! What is said to a projector, over one connection or several.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use av_proto::driver::PjlinkSettings;
use av_proto::secret::Secret;
use av_proto::text::excerpt;
use av_proto::verdict::Status;

use super::admission::{Admissions, Refused};
use super::lines::{Lines, TooLong};
use super::protocol::{self, Answer, Class, Greeting, Letters, Query};
use super::reading::Reading;
use super::refusal::{CLOSED, REFUSED, WANTED};
use crate::driver::tcp_engine::{Conversation, Event, Next, unreached};
use crate::driver::wire;

/// A projector that left this many queries unanswered is not asked more.
const MISSES_MAX: u32 = 2;
/// Lines that answer nothing, before a projector is taken for something else.
const STRAY_LINES_MAX: u32 = 32;
/// Projectors that close after each command need a moment to listen again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How much of what is not PJLink is shown.
const EXCERPT: usize = 40;

/// A probe of one projector.
pub(super) struct Talk {
    address: SocketAddr,
    settings: PjlinkSettings,
    admissions: Admissions,
    reading: Reading,
    /// What is still to be asked, the front now.
    queries: VecDeque<Query>,
    phase: Phase,
    lines: Lines,
    /// Of the whole probe; set when it begins.
    deadline: Option<Instant>,
    /// Of the step that is waited for.
    step: Option<Instant>,
    misses: u32,
    /// Lines since the last question that answered nothing.
    strays: u32,
    /// Whether a connection came to its greeting before this one.
    greeted: bool,
}

/// How far the connection is.
#[derive(Debug)]
enum Phase {
    Connecting,
    Greeting,
    Asking {
        /// The password that went with the first command, and its letters.
        told: Option<(Secret, Letters)>,
        /// Whether a command was answered.
        answered: bool,
    },
}

/// Why a query has no answer.
#[derive(Debug)]
enum Miss {
    /// None came in time.
    Silent,
    /// The projector closed the connection instead.
    Closed { after_password: bool },
    /// What came is not PJLink.
    Garbage,
    /// It had closed after the last command and could not be had again.
    Lost(String),
    /// The time for the whole probe is used up.
    OutOfTime,
}

impl Miss {
    /// Whether asking on makes no sense.
    fn is_final(&self) -> bool {
        !matches!(self, Self::Silent)
    }

    /// `timeout`: of an answer.
    fn text(&self, query: Query, timeout: Duration) -> String {
        let code = query.code();
        match self {
            Self::Silent => format!("no answer to {code} within {} s", timeout.as_secs_f64()),
            Self::Closed {
                after_password: true,
            } => CLOSED.to_owned(),
            Self::Closed {
                after_password: false,
            } => format!("projector closed the connection without an answer to {code}"),
            Self::Garbage => format!("answer to {code} is not PJLink"),
            Self::Lost(reason) => format!("projector closed the connection, then {reason}"),
            Self::OutOfTime => format!("too slow: {code} was not reached in time"),
        }
    }
}

impl Conversation for Talk {
    fn limit(&self) -> Duration {
        self.settings.limit()
    }

    fn step(&mut self, event: Event<'_>, now: Instant, out: &mut Vec<u8>) -> Next {
        match event {
            Event::Begin => {
                self.deadline = Some(now + self.settings.limit());
                self.connect(now)
            }
            Event::Unreached(error) => {
                let (status, reason) =
                    unreached(&error, self.address.port(), self.settings.timeout);
                self.no_talk(status, reason)
            }
            Event::Connected => {
                self.phase = Phase::Greeting;
                self.lines = Lines::default();
                self.wait(now)
            }
            Event::Received(bytes) => {
                self.lines.push(bytes);
                self.read(now, out)
            }
            Event::Closed => {
                wire::event(self.address.ip(), "closed by the projector");
                // A connection that was closed within a line.
                if let Some(rest) = self.lines.rest() {
                    if let Some(next) = self.line(&rest, now, out) {
                        if !matches!(next, Next::Wait(_)) {
                            return next;
                        }
                        // What it would ask next has nowhere to go.
                    }
                }
                self.closed(now)
            }
            Event::Due => self.timed_out(now),
        }
    }
}

impl Talk {
    pub(super) fn new(
        address: SocketAddr,
        settings: PjlinkSettings,
        admissions: Admissions,
    ) -> Self {
        Self {
            address,
            settings,
            admissions,
            reading: Reading::default(),
            queries: Query::FIRST.into(),
            phase: Phase::Connecting,
            lines: Lines::default(),
            deadline: None,
            step: None,
            misses: 0,
            strays: 0,
            greeted: false,
        }
    }

    fn connect(&mut self, at: Instant) -> Next {
        self.phase = Phase::Connecting;
        Next::Connect {
            at,
            by: self.step_from(at, self.settings.timeout),
        }
    }

    /// Over a new connection, a moment later.
    fn connect_again(&mut self, now: Instant) -> Next {
        if self.out_of_time(now) {
            return self.miss_last(&Miss::OutOfTime);
        }
        self.connect(now + RECONNECT_PAUSE)
    }

    /// The deadline of a step that begins at `at` and may take `timeout`.
    fn step_from(&self, at: Instant, timeout: Duration) -> Instant {
        let step = at + timeout;
        self.deadline.map_or(step, |deadline| deadline.min(step))
    }

    fn out_of_time(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Waits for what the projector says next.
    fn wait(&mut self, now: Instant) -> Next {
        let timeout = match self.phase {
            Phase::Connecting | Phase::Greeting => self.settings.timeout,
            Phase::Asking { .. } => self.settings.answer_timeout(),
        };
        let until = self.step_from(now, timeout);
        self.step = Some(until);
        Next::Wait(until)
    }

    /// Takes the lines that are there.
    fn read(&mut self, now: Instant, out: &mut Vec<u8>) -> Next {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => match self.line(&line, now, out) {
                    // Answered, and the next question is out: what else is
                    // there came before it.
                    Some(Next::Wait(_)) | None => {}
                    Some(next) => return next,
                },
                Ok(None) => {
                    return Next::Wait(self.step.unwrap_or(now));
                }
                Err(TooLong) => {
                    return match self.phase {
                        Phase::Asking { .. } => self.miss_last(&Miss::Garbage),
                        Phase::Greeting | Phase::Connecting => {
                            let port = self.address.port();
                            self.no_talk(
                                Status::Offline,
                                format!("port {port} does not speak PJLink"),
                            )
                        }
                    };
                }
            }
        }
    }

    /// Takes a line; `None` where it changes nothing.
    fn line(&mut self, line: &str, now: Instant, out: &mut Vec<u8>) -> Option<Next> {
        wire::received(self.address.ip(), line);
        match self.phase {
            Phase::Connecting => None,
            Phase::Greeting => Some(self.greeting(line, now, out)),
            Phase::Asking { .. } => {
                let query = *self.queries.front()?;
                if let Some(answer) = protocol::parse_answer(line, query) {
                    return Some(self.answer(query, answer, now, out));
                }
                self.strays += 1;
                (self.strays >= STRAY_LINES_MAX).then(|| self.miss_last(&Miss::Garbage))
            }
        }
    }

    fn greeting(&mut self, line: &str, now: Instant, out: &mut Vec<u8>) -> Next {
        let mut digest = String::new();
        let told = match protocol::parse_greeting(line) {
            Some(Greeting::Open) => None,
            Some(Greeting::Locked(random)) => {
                let Some(password) = self.settings.password.clone() else {
                    return self.barred(WANTED);
                };
                let Some(letters) = self.admissions.letters(self.address, &password, now) else {
                    // It was refused a while ago, and each try more might
                    // lock the projector.
                    return self.barred(REFUSED);
                };
                digest = protocol::digest(&random, password.expose(), letters);
                Some((password, letters))
            }
            Some(Greeting::Refused) => {
                if let Some(password) = &self.settings.password {
                    self.admissions.locked(self.address, password, now);
                }
                return self.barred(REFUSED);
            }
            None => {
                let port = self.address.port();
                let said = excerpt(line, EXCERPT);
                return self.no_talk(
                    Status::Offline,
                    format!("port {port} does not speak PJLink: {said}"),
                );
            }
        };
        self.reading.auth = Some(told.is_some());
        self.greeted = true;
        self.phase = Phase::Asking {
            told,
            answered: false,
        };
        self.ask(&digest, now, out)
    }

    /// Asks the front query. `digest` is empty but for the first of a
    /// connection that wants one.
    fn ask(&mut self, digest: &str, now: Instant, out: &mut Vec<u8>) -> Next {
        let Some(query) = self.queries.front() else {
            return self.done(Status::Online);
        };
        if self.out_of_time(now) {
            return self.miss_last(&Miss::OutOfTime);
        }
        let request = protocol::request(*query, self.reading.input());
        let hidden = if digest.is_empty() { "" } else { "(digest)" };
        wire::sent(
            self.address.ip(),
            format_args!("{hidden}{}", request.trim_end()),
        );
        out.extend_from_slice(digest.as_bytes());
        out.extend_from_slice(request.as_bytes());
        self.strays = 0;
        self.wait(now)
    }

    fn answer(&mut self, query: Query, answer: Answer, now: Instant, out: &mut Vec<u8>) -> Next {
        if answer == Answer::AuthenticationFailed {
            return self.refused(query, now);
        }
        if let Phase::Asking { told, answered } = &mut self.phase {
            if let (Some((password, letters)), false) = (told, *answered) {
                self.admissions
                    .accepted(self.address, password, *letters, now);
            }
            *answered = true;
        }
        self.reading.take(query, answer);
        self.queries.pop_front();
        self.then(query);
        self.ask("", now, out)
    }

    /// What is asked after `query`, besides what stands there already.
    fn then(&mut self, query: Query) {
        if query == Query::Class {
            let class = self.reading.class.unwrap_or(Class::One);
            self.queries.extend(Query::rest(class));
        }
        if self.reading.input().is_none() && matches!(query, Query::Input(_)) {
            self.queries.retain(|query| *query != Query::InputName);
        }
    }

    fn refused(&mut self, query: Query, now: Instant) -> Next {
        if let Phase::Asking {
            told: Some((password, letters)),
            answered: false,
        } = &self.phase
        {
            let refused = self
                .admissions
                .refused(self.address, password, *letters, now);
            if refused == Refused::TryOnce {
                return self.connect_again(now);
            }
        }
        self.reading.take(query, Answer::AuthenticationFailed);
        self.done(Status::Online)
    }

    fn closed(&mut self, now: Instant) -> Next {
        match &self.phase {
            Phase::Asking { answered: true, .. } => self.connect_again(now),
            Phase::Asking { told, .. } => {
                let after_password = told.is_some();
                self.miss_last(&Miss::Closed { after_password })
            }
            // Many projectors serve one controller at a time and leave the
            // others waiting or close on them.
            Phase::Greeting | Phase::Connecting => {
                let port = self.address.port();
                self.no_talk(
                    Status::Offline,
                    format!(
                        "port {port} open, but closed before a PJLink greeting: \
                         another controller connected?"
                    ),
                )
            }
        }
    }

    fn timed_out(&mut self, now: Instant) -> Next {
        wire::event(self.address.ip(), "timed out");
        if let Phase::Greeting | Phase::Connecting = self.phase {
            let port = self.address.port();
            let seconds = self.settings.timeout.as_secs_f64();
            return self.no_talk(
                Status::Offline,
                format!(
                    "port {port} open, but no PJLink greeting within {seconds} s: \
                     another controller connected?"
                ),
            );
        }
        let miss = if self.out_of_time(now) {
            Miss::OutOfTime
        } else {
            Miss::Silent
        };
        let Some(query) = self.queries.pop_front() else {
            return self.done(Status::Online);
        };
        self.misses += 1;
        // Without its power nothing of a projector is worth the wait.
        if miss.is_final() || query == Query::Power || self.misses >= MISSES_MAX {
            self.queries.push_front(query);
            return self.miss_last(&miss);
        }
        self.note(query, &miss);
        self.then(query);
        if self.queries.is_empty() {
            return self.done(Status::Online);
        }
        // The answer may still come, and the standard allows one command at a
        // time: the next one goes out on a connection of its own.
        self.connect_again(now)
    }

    fn note(&mut self, query: Query, miss: &Miss) {
        if query.vital() {
            let timeout = self.settings.answer_timeout();
            self.reading.fail(miss.text(query, timeout));
        }
    }

    /// Ends without an answer to the front query.
    fn miss_last(&mut self, miss: &Miss) -> Next {
        if let Some(query) = self.queries.front().copied() {
            self.note(query, miss);
        }
        self.done(Status::Online)
    }

    /// TCP did not get there, or no PJLink is spoken there.
    fn no_talk(&mut self, status: Status, reason: String) -> Next {
        if self.greeted {
            return self.miss_last(&Miss::Lost(reason));
        }
        self.reading.fail(reason);
        self.done(status)
    }

    /// It speaks PJLink, but not with us.
    fn barred(&mut self, reason: &str) -> Next {
        self.reading.auth = Some(true);
        self.reading.fail(reason.to_owned());
        self.done(Status::Online)
    }

    fn done(&mut self, status: Status) -> Next {
        let reading = std::mem::take(&mut self.reading);
        Next::Done(reading.finding(status, &self.settings))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn talk(password: Option<&str>, admissions: &Admissions) -> Talk {
        let settings = PjlinkSettings {
            password: password.map(Secret::new),
            port: 4352,
            timeout: TIMEOUT,
        };
        let address = "10.0.0.1:4352".parse().unwrap();
        Talk::new(address, settings, admissions.clone())
    }

    /// One that has come to its first question at `now`.
    fn asking(talk: &mut Talk, greeting: &str, now: Instant) -> (String, Next) {
        let mut out = Vec::new();
        talk.step(Event::Begin, now, &mut out);
        talk.step(Event::Connected, now, &mut out);
        let next = talk.step(Event::Received(greeting.as_bytes()), now, &mut out);
        (String::from_utf8(out).unwrap(), next)
    }

    fn waits_until(next: &Next) -> Instant {
        match next {
            Next::Wait(until) => *until,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_has_a_second_more_than_connection_and_greeting() {
        let now = Instant::now();
        let mut talk = talk(None, &Admissions::default());
        let mut out = Vec::new();
        let next = talk.step(Event::Begin, now, &mut out);
        assert!(matches!(next, Next::Connect { by, .. } if by == now + TIMEOUT));
        let next = talk.step(Event::Connected, now, &mut out);
        assert_eq!(waits_until(&next), now + TIMEOUT);
        let next = talk.step(Event::Received(b"PJLINK 0\r"), now, &mut out);
        assert_eq!(waits_until(&next), now + TIMEOUT + Duration::from_secs(1));
        assert_eq!(out, b"%1POWR ?\r");
    }

    #[test]
    fn a_late_refusal_is_a_refusal_and_is_remembered() {
        let admissions = Admissions::default();
        let mut now = Instant::now();
        for told in [Letters::Small, Letters::Capital] {
            let mut talk = talk(Some("wrong"), &admissions);
            let (said, next) = asking(&mut talk, "PJLINK 1 498e4a67\r", now);
            let digest = protocol::digest("498e4a67", "wrong", told);
            assert_eq!(said, format!("{digest}%1POWR ?\r"));
            now += TIMEOUT + Duration::from_millis(900);
            assert!(waits_until(&next) > now);
            let next = talk.step(Event::Received(b"PJLINK ERRA\r"), now, &mut Vec::new());
            match (told, next) {
                (Letters::Small, Next::Connect { .. }) => {}
                (Letters::Capital, Next::Done(found)) => {
                    assert_eq!(found.detail.as_deref(), Some(REFUSED));
                }
                (_, other) => panic!("{other:?}"),
            }
        }
        let address = "10.0.0.1:4352".parse().unwrap();
        let letters = admissions.letters(address, &Secret::new("wrong"), now);
        assert_eq!(letters, None, "left alone for a while");
    }

    #[test]
    fn after_silence_the_next_question_has_a_connection_of_its_own() {
        let now = Instant::now();
        let mut talk = talk(None, &Admissions::default());
        asking(&mut talk, "PJLINK 0\r", now);
        let mut out = Vec::new();
        let next = talk.step(Event::Received(b"%1POWR=1\r"), now, &mut out);
        assert_eq!(out, b"%1ERST ?\r");
        let later = waits_until(&next);
        out.clear();
        let next = talk.step(Event::Due, later, &mut out);
        assert!(matches!(next, Next::Connect { .. }), "{next:?}");
        assert_eq!(out, b"", "nothing more on the old connection");
        talk.step(Event::Connected, later, &mut out);
        talk.step(Event::Received(b"PJLINK 0\r"), later, &mut out);
        assert_eq!(out, b"%1LAMP ?\r");
        // Not to be had again: what was learnt stands, with what is missing.
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let Next::Done(found) = talk.step(Event::Unreached(refused), later, &mut out) else {
            panic!("it goes on");
        };
        assert_eq!(found.status, Status::Online);
        let detail = found.detail.as_deref();
        assert_eq!(detail, Some("on; no answer to ERST within 3 s"));
    }

    /// What a peer may do next.
    #[derive(Debug, Clone)]
    enum Move {
        Say(Vec<u8>),
        /// The right answer to what was asked last.
        Answer,
        Close,
        /// Nothing, until the driver has waited long enough.
        Silence,
        Refuse,
    }

    fn moves() -> impl Strategy<Value = Move> {
        let words = select(vec![
            "PJLINK 0\r",
            "PJLINK 1 498e4a67\r",
            "PJLINK ERRA\r",
            "%1POWR=1\r",
            "%1POWR=ERR3\r",
            "%1CLSS=2\r",
            "\r\n\r",
        ]);
        prop_oneof![
            6 => Just(Move::Answer),
            3 => words.prop_map(|text| Move::Say(text.as_bytes().to_vec())),
            1 => vec(any::<u8>(), 0..300).prop_map(Move::Say),
            1 => Just(Move::Close),
            1 => Just(Move::Silence),
            1 => Just(Move::Refuse),
        ]
    }

    fn answer_to(out: &[u8]) -> Vec<u8> {
        let asked = String::from_utf8_lossy(out);
        let Some((_, command)) = asked.trim_end().rsplit_once('%') else {
            return b"PJLINK 1 498e4a67\r".to_vec();
        };
        let head = command.get(..5).unwrap_or("1POWR");
        let value = match head.get(1..).unwrap_or_default() {
            "CLSS" => "2",
            "INPT" => "31",
            _ => "1",
        };
        format!("%{head}={value}\r").into_bytes()
    }

    proptest! {
        /// Whatever the peer does, and if it does so for ever, a probe ends
        /// within its time and never says the password.
        #[test]
        fn every_conversation_ends(moves in vec(moves(), 1..60), password in any::<bool>()) {
            let timeout = Duration::from_secs(2);
            let settings = PjlinkSettings {
                password: password.then(|| Secret::new("s3cret")),
                port: 4352,
                timeout,
            };
            let address = "10.0.0.1:4352".parse().unwrap();
            let limit = settings.limit();
            let mut talk = Talk::new(address, settings, Admissions::default());
            let start = Instant::now();
            let mut now = start;
            let mut out = Vec::new();
            let mut next = talk.step(Event::Begin, now, &mut out);
            let mut said = Vec::new();
            for (step, peer) in moves.iter().cycle().enumerate() {
                prop_assert!(step < 5000, "no end");
                // Each move takes a little time.
                now += Duration::from_millis(1);
                said.append(&mut out);
                prop_assert!(!String::from_utf8_lossy(&said).contains("s3cret"));
                let event = match (&next, peer) {
                    (Next::Done(_), _) => break,
                    (Next::Connect { by, .. }, Move::Silence) => {
                        now = now.max(*by);
                        Event::Unreached(io::ErrorKind::TimedOut.into())
                    }
                    (Next::Connect { .. }, Move::Refuse) => {
                        Event::Unreached(io::ErrorKind::ConnectionRefused.into())
                    }
                    (Next::Connect { at, .. }, _) => {
                        now = now.max(*at);
                        said.clear();
                        Event::Connected
                    }
                    (Next::Wait(until), Move::Silence | Move::Refuse) => {
                        now = now.max(*until);
                        Event::Due
                    }
                    // Talking does not move a deadline.
                    (Next::Wait(until), _) if now >= *until => Event::Due,
                    (Next::Wait(_), Move::Close) => Event::Closed,
                    (Next::Wait(_), Move::Say(bytes)) if !bytes.is_empty() => {
                        Event::Received(bytes)
                    }
                    (Next::Wait(_), _) => {
                        let bytes = answer_to(&said);
                        next = talk.step(Event::Received(&bytes), now, &mut out);
                        continue;
                    }
                };
                next = talk.step(event, now, &mut out);
                if let Next::Wait(until) | Next::Connect { by: until, .. } = &next {
                    prop_assert!(*until <= start + limit + RECONNECT_PAUSE);
                }
            }
            prop_assert!(matches!(next, Next::Done(_)));
        }
    }
}
