//! Wrong tokens, counted by the sender from which they come.
//!
//! Who sends many gets 429. Healthy agents behind the same router or proxy
//! have the guesser's address and go on:
//!
//! - a token of the form that this program makes has 256 random bits, and
//!   is never guessed: it is always looked up;
//! - a token that somebody set by hand may be short. Past the limit it is
//!   looked up only from a sender from which it was right before, so that no
//!   answer tells whether a guess was right.
//!
//! The database counts, for all backends. What is kept here saves its work: a
//! poll or report with a token that is known costs no statement for this, and a
//! sender that is blocked costs one in some seconds.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::answer::Answer;
use crate::store::Store;
use crate::store::attempts::{Attempt, Try};
use crate::store::sites::TokenDigest;

/// How long the database is not asked again about a sender that is blocked.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Blocked senders that are remembered; of those beyond the database is asked.
const BLOCKED_MAX: usize = 10_000;
/// Tokens set by hand that are remembered as right.
const RIGHT_MAX: usize = 20_000;
/// Hex digits of a token that this program made.
const MADE_DIGITS: usize = 64;

/// Too many tokens were wrong: not before so many seconds.
fn blocked(seconds: u64) -> Answer {
    Answer::error(
        429,
        &format!("too many tokens from here were wrong; try again in {seconds} s"),
    )
    .with("Retry-After", seconds.to_string())
}

/// The wrong tokens of every sender.
pub(crate) struct Guesses {
    store: Arc<Store>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Who is blocked, since when that is known, and until when.
    blocked: HashMap<Sender, Known>,
    /// When a token set by hand was last right from a sender.
    right: HashMap<(Sender, TokenDigest), Instant>,
}

#[derive(Clone, Copy)]
struct Known {
    asked: Instant,
    until: Instant,
}

/// Who is counted: an address, or the network of an IPv6 one, of which each
/// customer has at least a /64 to choose addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sender(IpAddr);

impl Sender {
    /// Those whose address is not known.
    const UNKNOWN: Self = Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Self(Ipv6Addr::from_bits(network).into())
            }
            Some(address) => Self(address),
            None => Self::UNKNOWN,
        }
    }
}

/// A token that may be looked up.
pub(crate) struct Guess<'a> {
    guesses: &'a Guesses,
    from: Option<IpAddr>,
    token: &'a str,
}

impl<'a> Guess<'a> {
    /// What to look up.
    pub(crate) fn token(&self) -> &'a str {
        self.token
    }

    /// Notes that it is right.
    pub(crate) fn right(self) {
        if !is_made(self.token) {
            let pair = (Sender::of(self.from), TokenDigest::of(self.token));
            self.guesses.lock().right_at(pair, Instant::now());
        }
    }

    /// Notes that it is wrong, and answers `otherwise`; past the limit with
    /// 429.
    pub(crate) fn wrong(self, otherwise: Answer) -> Answer {
        let sender = Sender::of(self.from);
        {
            let mut seen = self.guesses.lock();
            // It was renewed or its site deleted.
            if !seen.right.is_empty() {
                seen.right.remove(&(sender, TokenDigest::of(self.token)));
            }
            if let Some(seconds) = seen.blocked_at(sender, Instant::now()) {
                return blocked(seconds);
            }
        }
        let counted = self
            .guesses
            .store
            .begin_try(Try::Token, &address(self.from));
        match counted {
            Ok(Attempt::Allowed) => otherwise,
            Ok(Attempt::Blocked(seconds)) => self.guesses.block(self.from, seconds),
            Err(error) => error.into(),
        }
    }
}

impl Guesses {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            seen: Mutex::default(),
        }
    }

    /// Somebody comes from this address with this token, which may be looked
    /// up; or the answer that says why not.
    pub(crate) fn begin<'a>(
        &'a self,
        from: Option<IpAddr>,
        token: &'a str,
    ) -> Result<Guess<'a>, Answer> {
        let guess = Guess {
            guesses: self,
            from,
            token,
        };
        if is_made(token) {
            return Ok(guess);
        }
        let sender = Sender::of(from);
        {
            let seen = self.lock();
            if seen.right.contains_key(&(sender, TokenDigest::of(token))) {
                return Ok(guess);
            }
            if let Some(seconds) = seen.blocked_at(sender, Instant::now()) {
                return Err(blocked(seconds));
            }
        }
        match self.store.may_try(Try::Token, &address(from))? {
            Attempt::Allowed => Ok(guess),
            Attempt::Blocked(seconds) => Err(self.block(from, seconds)),
        }
    }

    /// Whether a token may be looked up, as far as is known without the
    /// database.
    pub(crate) fn may_look_up(&self, from: Option<IpAddr>, token: &str) -> bool {
        is_made(token)
            || self
                .lock()
                .right
                .contains_key(&(Sender::of(from), TokenDigest::of(token)))
    }

    /// Remembers that a sender is blocked, and answers so.
    fn block(&self, from: Option<IpAddr>, seconds: i64) -> Answer {
        let seconds = u64::try_from(seconds).unwrap_or(1);
        let now = Instant::now();
        let known = Known {
            asked: now,
            until: now + Duration::from_secs(seconds),
        };
        if self.lock().block_at(Sender::of(from), known) {
            let whose = from.map_or_else(|| "somewhere".to_owned(), |ip| ip.to_string());
            log::warn!("too many tokens from {whose} are wrong; more are answered with 429");
        }
        blocked(seconds)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// For how many seconds a sender is known to be blocked.
    fn blocked_at(&self, sender: Sender, now: Instant) -> Option<u64> {
        let known = self.blocked.get(&sender)?;
        let left = known.until.saturating_duration_since(now);
        (now < known.asked + ASK_AGAIN && !left.is_zero()).then(|| left.as_secs().max(1))
    }

    /// Answers whether it is news.
    fn block_at(&mut self, sender: Sender, known: Known) -> bool {
        if self.blocked.len() >= BLOCKED_MAX {
            self.blocked.retain(|_, other| other.until > known.asked);
        }
        let before = self.blocked.get(&sender);
        let is_news = before.is_none_or(|before| before.until <= known.asked);
        if self.blocked.len() < BLOCKED_MAX || before.is_some() {
            self.blocked.insert(sender, known);
        }
        is_news
    }

    fn right_at(&mut self, pair: (Sender, TokenDigest), now: Instant) {
        if self.right.len() >= RIGHT_MAX && !self.right.contains_key(&pair) {
            // The older half makes room.
            let mut times: Vec<Instant> = self.right.values().copied().collect();
            let middle = times.len() / 2;
            let ended = *times.select_nth_unstable(middle).1;
            self.right.retain(|_, at| *at > ended);
        }
        self.right.insert(pair, now);
    }
}

/// An address as it is counted in the database.
fn address(from: Option<IpAddr>) -> String {
    from.map_or_else(String::new, |ip| ip.to_canonical().to_string())
}

/// Whether a token has the form of those that this program makes.
fn is_made(token: &str) -> bool {
    let digits = token.strip_prefix("avt_").unwrap_or(token);
    digits.len() == MADE_DIGITS
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn what_this_program_makes_is_known_by_its_form() {
        let digits = "0123456789abcdef".repeat(4);
        for (token, made) in [
            (digits.clone(), true),
            (format!("avt_{digits}"), true),
            (digits.to_uppercase(), false),
            (digits[1..].to_owned(), false),
            (format!("{digits}0"), false),
            (format!("g{}", &digits[1..]), false),
            (String::new(), false),
        ] {
            assert_eq!(is_made(&token), made, "{token}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_sender_and_a_mapped_address_is_ipv4() {
        let sender = |text| Sender::of(ip(text));
        assert_eq!(sender("2001:db8::1"), sender("2001:db8::ffff:1"));
        assert_ne!(sender("2001:db8::1"), sender("2001:db8:0:1::1"));
        assert_eq!(sender("::ffff:192.0.2.1"), sender("192.0.2.1"));
    }

    #[test]
    fn the_database_is_asked_again_after_some_seconds() {
        let mut seen = Seen::default();
        let sender = Sender::of(ip("192.0.2.1"));
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        assert_eq!(seen.blocked_at(sender, now), None);
        assert!(seen.block_at(sender, Known { asked: now, until }));
        assert_eq!(seen.blocked_at(sender, now), Some(60));
        assert_eq!(seen.blocked_at(Sender::of(ip("192.0.2.2")), now), None);
        let later = now + ASK_AGAIN;
        assert_eq!(seen.blocked_at(sender, later), None);
        // What is known already is not said again.
        let asked = later;
        assert!(!seen.block_at(sender, Known { asked, until }));
        assert_eq!(seen.blocked_at(sender, later), Some(55));
        assert!(seen.block_at(
            sender,
            Known {
                asked: until,
                until: until + ASK_AGAIN
            }
        ));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut seen = Seen::default();
        let now = Instant::now();
        let address = |n: usize| {
            let bits = u32::try_from(n).unwrap();
            Sender::of(Some(IpAddr::from(bits.to_be_bytes())))
        };
        let until = now + Duration::from_secs(60);
        for n in 0..BLOCKED_MAX + 1000 {
            seen.block_at(address(n), Known { asked: now, until });
        }
        assert_eq!(seen.blocked.len(), BLOCKED_MAX);
        // When their time is over there is room.
        let known = Known {
            asked: until,
            until: until + ASK_AGAIN,
        };
        seen.block_at(address(0), known);
        assert_eq!(seen.blocked.len(), 1);

        let pair = |n: usize| (address(n), TokenDigest::of("x"));
        for n in 0..RIGHT_MAX + 1000 {
            seen.right_at(pair(n), now + Duration::from_millis(n as u64));
        }
        assert!(seen.right.len() <= RIGHT_MAX);
        assert!(seen.right.contains_key(&pair(RIGHT_MAX + 999)));
    }
}
