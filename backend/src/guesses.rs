//! Wrong tokens, counted by the address from which they come.
//!
//! Whoever sends many gets 429. Healthy agents behind the same router or proxy
//! have the guesser's address and go on:
//!
//! - a token of the form that this program makes has 256 random bits, and
//!   nobody guesses one: it is always looked up;
//! - a token that somebody set by hand may be short. Past the limit it is
//!   looked up only from an address from which it was right before, so that no
//!   answer tells whether a guess was right.
//!
//! The counts are this process's own and in memory: a report or a poll costs no
//! statement for them, and a restart forgives.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::answer::Answer;
use crate::store::sites::TokenDigest;

/// Wrong tokens that an address may send at once: more than a few racks with
/// an old token send in a minute.
const AT_ONCE: u32 = 60;
/// After that one more in this time: 8,640 guesses a day.
const ONE_MORE: Duration = Duration::from_secs(10);
/// Addresses that are counted one by one; those beyond share one count.
const ADDRESSES_MAX: usize = 10_000;
/// Tokens set by hand that are remembered as right.
const RIGHT_MAX: usize = 20_000;
/// Hex digits of a token that this program made.
const MADE_DIGITS: usize = 64;

/// Too many tokens were wrong: not before so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked(pub(crate) u64);

impl From<Blocked> for Answer {
    fn from(Blocked(seconds): Blocked) -> Self {
        Self::error(
            429,
            &format!("too many tokens from here were wrong; try again in {seconds} s"),
        )
        .with("Retry-After", seconds.to_string())
    }
}

/// The wrong tokens of every address.
pub(crate) struct Guesses {
    at_once: Duration,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Until when the wrong tokens of an address count: each adds [`ONE_MORE`].
    wrong: HashMap<Sender, Instant>,
    /// When a token set by hand was last right from an address.
    right: HashMap<(Sender, TokenDigest), Instant>,
}

/// Who is counted: an address, or the network of an IPv6 one, of which each
/// customer has at least a /64 to choose addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sender(IpAddr);

impl Sender {
    /// Those that are not counted one by one.
    const OTHERS: Self = Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    fn of(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Self(Ipv6Addr::from_bits(network).into())
            }
            Some(address) => Self(address),
            None => Self::OTHERS,
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
        self.guesses.right_at(self.from, self.token, Instant::now());
    }

    /// Notes that it is wrong, and answers `otherwise`; past the limit with
    /// 429.
    pub(crate) fn wrong(self, otherwise: Answer) -> Answer {
        match self.guesses.wrong_at(self.from, self.token, Instant::now()) {
            Ok(()) => otherwise,
            Err(blocked) => blocked.into(),
        }
    }
}

impl Guesses {
    pub(crate) fn new() -> Self {
        Self {
            at_once: ONE_MORE * AT_ONCE,
            seen: Mutex::default(),
        }
    }

    /// Somebody comes from this address with this token, which may be looked
    /// up unless it is [`Blocked`].
    pub(crate) fn begin<'a>(
        &'a self,
        from: Option<IpAddr>,
        token: &'a str,
    ) -> Result<Guess<'a>, Blocked> {
        self.may_try_at(from, token, Instant::now())?;
        Ok(Guess {
            guesses: self,
            from,
            token,
        })
    }

    fn may_try_at(&self, from: Option<IpAddr>, token: &str, now: Instant) -> Result<(), Blocked> {
        if is_made(token) {
            return Ok(());
        }
        let from = Sender::of(from);
        let seen = self.lock();
        match self.blocked(&seen, from, now) {
            Some(blocked) if !seen.right.contains_key(&(from, TokenDigest::of(token))) => {
                Err(blocked)
            }
            _ => Ok(()),
        }
    }

    fn right_at(&self, from: Option<IpAddr>, token: &str, now: Instant) {
        if is_made(token) {
            return;
        }
        let pair = (Sender::of(from), TokenDigest::of(token));
        let mut seen = self.lock();
        make_room(&mut seen.right, &pair, RIGHT_MAX, None);
        seen.right.insert(pair, now);
    }

    fn wrong_at(&self, from: Option<IpAddr>, token: &str, now: Instant) -> Result<(), Blocked> {
        let address = Sender::of(from);
        let mut seen = self.lock();
        // It was renewed or its site deleted.
        if !seen.right.is_empty() {
            seen.right.remove(&(address, TokenDigest::of(token)));
        }
        let sender = if make_room(&mut seen.wrong, &address, ADDRESSES_MAX, Some(now)) {
            address
        } else {
            Sender::OTHERS
        };
        if let Some(blocked) = self.blocked(&seen, sender, now) {
            return Err(blocked);
        }
        let until = seen.wrong.get(&sender).map_or(now, |until| now.max(*until)) + ONE_MORE;
        seen.wrong.insert(sender, until);
        if self.blocked(&seen, sender, now).is_some() {
            let whose = from.map_or_else(|| "somewhere".to_owned(), |ip| ip.to_string());
            log::warn!("too many tokens from {whose} are wrong; more are answered with 429");
        }
        Ok(())
    }

    fn blocked(&self, seen: &Seen, sender: Sender, now: Instant) -> Option<Blocked> {
        let known = seen.wrong.get(&sender);
        // Only where there are more than can be counted.
        let until = match known {
            None if seen.wrong.len() >= ADDRESSES_MAX => seen.wrong.get(&Sender::OTHERS),
            other => other,
        }?;
        let counted = until.saturating_duration_since(now);
        let over = (counted + ONE_MORE).checked_sub(self.at_once)?;
        (!over.is_zero()).then(|| Blocked(over.as_secs().max(1)))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a token has the form of those that this program makes.
fn is_made(token: &str) -> bool {
    let digits = token.strip_prefix("avt_").unwrap_or(token);
    digits.len() == MADE_DIGITS
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a map has room for a key. A full one first loses what is older than
/// `ended`, or the older half where nothing ends.
fn make_room<K: Eq + Hash>(
    map: &mut HashMap<K, Instant>,
    key: &K,
    most: usize,
    ended: Option<Instant>,
) -> bool {
    if map.len() < most || map.contains_key(key) {
        return true;
    }
    let ended = ended.or_else(|| {
        let mut times: Vec<Instant> = map.values().copied().collect();
        let middle = times.len() / 2;
        (!times.is_empty()).then(|| *times.select_nth_unstable(middle).1)
    });
    if let Some(ended) = ended {
        map.retain(|_, at| *at > ended);
    }
    map.len() < most
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTACKER: &str = "192.0.2.1";

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// So many wrong tokens from an address; how many were answered with 429.
    fn guess(guesses: &Guesses, from: &str, times: u32, now: Instant) -> u32 {
        (0..times)
            .filter(|n| {
                let token = format!("guess-{n}");
                guesses.may_try_at(ip(from), &token, now).is_err()
                    || guesses.wrong_at(ip(from), &token, now).is_err()
            })
            .map(|_| 1)
            .sum()
    }

    #[test]
    fn so_many_at_once_and_then_one_in_ten_seconds() {
        let guesses = Guesses::new();
        let now = Instant::now();
        assert_eq!(guess(&guesses, ATTACKER, AT_ONCE, now), 0);
        assert_eq!(guess(&guesses, ATTACKER, 100, now), 100);
        let said = guesses.may_try_at(ip(ATTACKER), "x", now).unwrap_err().0;
        assert_eq!(said, ONE_MORE.as_secs());
        assert_eq!(guess(&guesses, ATTACKER, 100, now + ONE_MORE), 99);
        assert_eq!(guess(&guesses, ATTACKER, 100, now + ONE_MORE * 3), 98);
        // Another address is not concerned.
        assert_eq!(guess(&guesses, "192.0.2.2", AT_ONCE, now), 0);
        // All is forgotten once it was paid.
        let later = now + ONE_MORE * (AT_ONCE + 4);
        assert_eq!(guess(&guesses, ATTACKER, AT_ONCE, later), 0);
    }

    #[test]
    fn right_tokens_behind_the_same_address_go_on() {
        let guesses = Guesses::new();
        let now = Instant::now();
        let made = "0123456789abcdef".repeat(4);
        guesses.right_at(ip(ATTACKER), "by-hand", now);
        guess(&guesses, ATTACKER, 100, now);
        assert!(guesses.may_try_at(ip(ATTACKER), "by-hand", now).is_ok());
        assert!(guesses.may_try_at(ip(ATTACKER), "other", now).is_err());
        assert!(guesses.may_try_at(ip(ATTACKER), &made, now).is_ok());
        assert!(
            guesses
                .may_try_at(ip(ATTACKER), &format!("avt_{made}"), now)
                .is_ok()
        );
        // One that was made and is wrong is said to be too many.
        assert!(guesses.wrong_at(ip(ATTACKER), &made, now).is_err());
        // What is right in one place says nothing in another.
        guess(&guesses, "192.0.2.2", 100, now);
        assert!(guesses.may_try_at(ip("192.0.2.2"), "by-hand", now).is_err());
        // A token that is not right any more has no privilege.
        assert!(guesses.wrong_at(ip(ATTACKER), "by-hand", now).is_err());
        assert!(guesses.may_try_at(ip(ATTACKER), "by-hand", now).is_err());
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
    fn the_memory_is_bounded_and_those_beyond_it_share_a_count() {
        let guesses = Guesses::new();
        let now = Instant::now();
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..ADDRESSES_MAX + 1000 {
            let _ = guesses.wrong_at(Some(address(n)), "x", now);
        }
        assert!(guesses.lock().wrong.len() <= ADDRESSES_MAX + 1);
        let new = Some(address(ADDRESSES_MAX + 2000));
        assert!(guesses.may_try_at(new, "x", now).is_err());
        assert!(guesses.may_try_at(Some(address(5)), "x", now).is_ok());
        // When they have paid there is room.
        let later = now + ONE_MORE * (AT_ONCE + 1);
        assert!(guesses.wrong_at(new, "x", later).is_ok());
        assert_eq!(guesses.lock().wrong.len(), 1);
        for n in 0..RIGHT_MAX + 1000 {
            let at = now + Duration::from_millis(n as u64);
            guesses.right_at(Some(address(n)), "x", at);
        }
        let seen = guesses.lock();
        assert!(seen.right.len() <= RIGHT_MAX);
        let newest = (Sender(address(RIGHT_MAX + 999)), TokenDigest::of("x"));
        assert!(seen.right.contains_key(&newest));
    }
}
