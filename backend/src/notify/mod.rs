//! Tells people of alerts, by mail and webhook.
//!
//! Events arise in the database, in the transaction that opens or closes an
//! alert. [`plan`] collects them into messages, which are written down and
//! then sent, again and again until they arrive. So each event is in one
//! message for each channel, and no restart loses it. A program that dies
//! between a message's arrival and the note of it sends it once more, and no
//! sender can do better: a receiver knows it by its key, which is the same at
//! every try.
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | which events become a message now |
//! | [`message`] | what it says |
//! | [`mail`], [`webhook`] | the ways to a channel |

mod mail;
pub mod message;
pub mod plan;
mod webhook;

use std::time::Duration;

use av_proto::text::{excerpt, one_line};

pub(crate) use mail::is_address as is_mail_address;
pub use mail::{Mail, MailError};

use crate::stop::Stop;
use crate::store::channels::{Claimed, Destination, Sent};
use crate::store::{Store, StoreError};
use crate::upkeep::Complaint;
use message::Body;
use webhook::Webhooks;

/// The longest time between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// So many messages are sent before events are looked at again.
const AT_ONCE: usize = 50;

/// How messages are sent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The mail server, where there is one.
    pub mail: Option<Mail>,
    /// Where people reach the pages; for a link in each message.
    pub public_url: Option<String>,
    /// Between two looks at the database.
    pub every: Duration,
    /// After the first failure; doubled with each further one.
    pub retry: Duration,
    /// A message that did not arrive for so long is given up.
    pub give_up: Duration,
    /// How long a try may take.
    pub timeout: Duration,
}

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For a person; without secrets.
    pub(crate) why: String,
    /// No other message of the channel would arrive either.
    pub(crate) channel: bool,
}

/// Collects and sends until `stop` is set.
pub fn run(store: &Store, settings: &Settings, stop: &Stop) {
    let sender = Sender {
        settings,
        webhooks: Webhooks::new(settings.timeout),
    };
    let mut complaint = Complaint::default();
    while !stop.wait(settings.every) {
        if !store.is_ready() {
            continue;
        }
        match sender.round(store, stop) {
            Ok(()) => complaint.over(),
            Err(error) => complaint.say("no notifications", &error),
        }
    }
}

struct Sender<'a> {
    settings: &'a Settings,
    webhooks: Webhooks,
}

impl Sender<'_> {
    fn round(&self, store: &Store, stop: &Stop) -> Result<(), StoreError> {
        let link = self.settings.public_url.as_deref();
        store.plan_messages(|now, channels, events| plan::plan(now, channels, events, link))?;
        for _ in 0..AT_ONCE {
            if stop.is_set() {
                break;
            }
            // Whoever needs longer than this is taken for dead.
            let Some(message) = store.claim_message(self.settings.timeout * 4)? else {
                break;
            };
            let sent = self.send(&message);
            match &sent {
                Sent::Arrived => log::info!(
                    "message {} arrived at channel {}",
                    message.id,
                    one_line(&message.channel)
                ),
                Sent::Again { why, after, .. } => log::warn!(
                    "message {} did not arrive at channel {}: {why}; the next try is in {} s",
                    message.id,
                    one_line(&message.channel),
                    after.as_secs()
                ),
                Sent::GivenUp { why, .. } => log::error!(
                    "message {} to channel {} is given up: {why}",
                    message.id,
                    one_line(&message.channel)
                ),
            }
            store.message_tried(&message, &sent)?;
        }
        Ok(())
    }

    fn send(&self, message: &Claimed) -> Sent {
        let tried = Body::parse(&message.body)
            .map_err(|why| Failure {
                why,
                channel: false,
            })
            .and_then(|body| self.attempt(message, &body));
        let Err(failure) = tried else {
            return Sent::Arrived;
        };
        let why = excerpt(&failure.why, 300);
        if message.age >= self.settings.give_up {
            return Sent::GivenUp {
                why,
                // Those that wait for as long behind it would fail like it.
                older_than: failure.channel.then_some(self.settings.give_up),
            };
        }
        Sent::Again {
            after: backoff(self.settings.retry, message.tries),
            why,
            channel: failure.channel,
        }
    }

    fn attempt(&self, message: &Claimed, body: &Body) -> Result<(), Failure> {
        match (&message.destination, &self.settings.mail) {
            (Destination::Webhook { url, secret }, _) => {
                let key = body.key(message.id);
                self.webhooks
                    .post(url, secret, message.id, &key, &message.body)
            }
            (Destination::Mail(recipients), Some(mail)) => mail.send(recipients, message.id, body),
            (Destination::Mail(_), None) => Err(Failure {
                why: "AV_SMTP_URL and AV_MAIL_FROM are not set: there is no mail server".to_owned(),
                channel: true,
            }),
        }
    }
}

/// How long to wait after this many tries.
fn backoff(first: Duration, tries: i32) -> Duration {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(0).min(16);
    first.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_an_hour() {
        let first = Duration::from_secs(10);
        let waits: Vec<u64> = [1, 2, 3, 9, 10, 100, i32::MAX]
            .map(|tries| backoff(first, tries).as_secs())
            .to_vec();
        assert_eq!(waits, [10, 20, 40, 2560, 3600, 3600, 3600]);
    }
}
