//! Messages of version 3 (RFC 3412, 6) with the user-based security model
//! (RFC 3414), and what is known of the engine that they go to.
//!
//! An engine is discovered with a message that it must refuse (RFC 3414, 4):
//! its report has its identifier and clock. These are believed for what we
//! send; what we receive is judged by a clock that came with a right digest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use av_proto::driver::{Oid, SnmpCipher, SnmpHash, SnmpSecurity, SnmpUser};
use av_proto::secret::Secret;
use snmp2::asn1;

use super::ber::{expect, expect_number, integer, is_well_formed, octets, sequence};
use super::pdu::{self, Ask, Pdu, Stray};
use super::usm::{self, Clock};

const VERSION: i32 = 3;
/// What we take (RFC 3412, 6.3).
const MESSAGE_MAX: i32 = 65_507;
/// RFC 3414, 5: `SnmpSecurityModel`.
const USER_BASED: i32 = 3;
const AUTHENTIC: u8 = 1;
const ENCRYPTED: u8 = 2;
const REPORTABLE: u8 = 4;
/// RFC 3414, 2.2.3, in seconds.
const TIME_WINDOW: i32 = 150;
/// `SnmpEngineID` (RFC 3411, 5).
const ENGINE_ID_MAX: usize = 32;
/// How often in one probe the engine may correct us: who it is, its clock,
/// and once more where it restarts meanwhile.
const CORRECTIONS_MAX: u8 = 4;
/// Passwords whose keys are kept.
const MASTERS_MAX: usize = 256;

/// Keys of passwords, which cost a hash over a megabyte each: kept for all
/// devices together.
#[derive(Clone, Default)]
pub(super) struct Masters(Rc<RefCell<MasterKeys>>);

/// By protocol and password.
type MasterKeys = HashMap<(SnmpHash, String), Rc<[u8]>>;

// The passwords are its keys.
impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masters({})", self.0.borrow().len())
    }
}

impl Masters {
    fn key(&self, hash: SnmpHash, password: &Secret) -> Rc<[u8]> {
        let name = (hash, password.expose().to_owned());
        let mut keys = self.0.borrow_mut();
        if let Some(key) = keys.get(&name) {
            return Rc::clone(key);
        }
        if keys.len() >= MASTERS_MAX {
            keys.clear();
        }
        let key: Rc<[u8]> = usm::master_key(hash, password.expose().as_bytes()).into();
        keys.insert(name, Rc::clone(&key));
        key
    }
}

/// What is known of an agent's engine.
#[derive(Debug, Clone, PartialEq)]
struct Engine {
    id: Vec<u8>,
    clock: Clock,
    /// When it had that clock.
    at: Instant,
    /// Whether that came with a right digest.
    is_authentic: bool,
}

impl Engine {
    fn clock(&self, now: Instant) -> Clock {
        let passed = now.saturating_duration_since(self.at).as_secs();
        let passed = i32::try_from(passed).unwrap_or(i32::MAX);
        Clock {
            boots: self.clock.boots,
            time: self.clock.time.saturating_add(passed),
        }
    }
}

/// Keys for one engine.
#[derive(Debug, Clone, Default)]
struct Keys {
    auth: Option<(SnmpHash, Vec<u8>)>,
    privacy: Option<(SnmpCipher, Vec<u8>)>,
}

impl Keys {
    fn new(security: &SnmpSecurity, masters: &Masters, engine_id: &[u8]) -> Self {
        let localised =
            |hash, password| usm::localise(hash, &masters.key(hash, password), engine_id);
        match security {
            SnmpSecurity::NoAuthNoPriv => Self::default(),
            SnmpSecurity::AuthNoPriv(auth) => Self {
                auth: Some((auth.hash, localised(auth.hash, &auth.password))),
                privacy: None,
            },
            SnmpSecurity::AuthPriv(auth, privacy) => {
                let key = localised(auth.hash, &privacy.password);
                Self {
                    auth: Some((auth.hash, localised(auth.hash, &auth.password))),
                    privacy: Some((
                        privacy.cipher,
                        usm::cipher_key(auth.hash, privacy.cipher, &key),
                    )),
                }
            }
        }
    }
}

/// Why an engine does not accept our messages, by its reports (RFC 3414, 5;
/// RFC 3412, 5; RFC 3413, 4.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsmFault {
    UnsupportedLevel,
    NotInTimeWindow,
    UnknownUser,
    UnknownEngine,
    WrongDigest,
    Decryption,
    UnknownContext,
    UnknownSecurityModel,
    /// It tells who it is, and then says nothing, as net-snmp does where it
    /// cannot decrypt.
    Silent,
    /// A report of another kind.
    Other,
}

impl UsmFault {
    fn of(counter: &Oid) -> Self {
        match counter.arcs() {
            [1, 3, 6, 1, 6, 3, 15, 1, 1, 1, ..] => Self::UnsupportedLevel,
            [1, 3, 6, 1, 6, 3, 15, 1, 1, 2, ..] => Self::NotInTimeWindow,
            [1, 3, 6, 1, 6, 3, 15, 1, 1, 3, ..] => Self::UnknownUser,
            [1, 3, 6, 1, 6, 3, 15, 1, 1, 4, ..] => Self::UnknownEngine,
            [1, 3, 6, 1, 6, 3, 15, 1, 1, 5, ..] => Self::WrongDigest,
            [1, 3, 6, 1, 6, 3, 15, 1, 1, 6, ..] => Self::Decryption,
            [1, 3, 6, 1, 6, 3, 12, 1, 4 | 5, ..] => Self::UnknownContext,
            [1, 3, 6, 1, 6, 3, 11, 2, 1, 1, ..] => Self::UnknownSecurityModel,
            _ => Self::Other,
        }
    }

    /// For a person: what is wrong, and what to look at.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::UnsupportedLevel => {
                "the user may not ask at this security level (usmStatsUnsupportedSecLevels)"
            }
            Self::NotInTimeWindow => {
                "its clock does not agree with itself (usmStatsNotInTimeWindows)"
            }
            Self::UnknownUser => "it does not know the user (usmStatsUnknownUserNames)",
            Self::UnknownEngine => {
                "its engine's identifier does not stay the same (usmStatsUnknownEngineIDs)"
            }
            Self::WrongDigest => "wrong authentication password or protocol (usmStatsWrongDigests)",
            Self::Decryption => "wrong privacy password or protocol (usmStatsDecryptionErrors)",
            Self::UnknownContext => "it does not have the context",
            Self::UnknownSecurityModel => {
                "it has no user-based security (snmpUnknownSecurityModels)"
            }
            Self::Silent => {
                "it says who it is, but not more: wrong privacy password or protocol, or it does not have the context"
            }
            Self::Other => "it sends a report that says nothing known",
        }
    }
}

/// What a message from the engine says.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The response.
    Pdu(Pdu),
    /// The engine told something about itself: the request goes out again.
    Again,
    Fault(UsmFault),
}

/// For the wire's log.
impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pdu(pdu) => pdu.fmt(f),
            Self::Again => f.write_str("Report: the engine's identifier or clock"),
            Self::Fault(fault) => write!(f, "Report: {}", fault.words()),
        }
    }
}

/// Exchanges messages with one engine on behalf of one user.
#[derive(Debug, Clone)]
pub(super) struct Dialogue {
    user: SnmpUser,
    masters: Masters,
    engine: Option<Engine>,
    keys: Keys,
    /// Differs from message to message, and from start to start.
    salt: u64,
    corrections: u8,
}

impl Dialogue {
    /// With an engine that is not known yet. `salt` should be random.
    pub(super) fn new(user: &SnmpUser, masters: &Masters, salt: u64) -> Self {
        Self {
            user: user.clone(),
            masters: masters.clone(),
            engine: None,
            keys: Keys::default(),
            salt,
            corrections: 0,
        }
    }

    /// The same for a further probe.
    pub(super) fn renewed(mut self) -> Self {
        self.corrections = 0;
        self
    }

    /// Whether it is this user's, with these passwords.
    pub(super) fn is_of(&self, user: &SnmpUser) -> bool {
        self.user == *user
    }

    /// Whether the next message asks the engine who it is.
    pub(super) fn is_discovering(&self) -> bool {
        self.engine.is_none()
    }

    /// A message around `pdu`; or, as long as the engine is not known, one
    /// that makes it tell who it is.
    pub(super) fn wrap(&mut self, pdu: &[u8], id: i32, now: Instant) -> Vec<u8> {
        let Some(engine) = &self.engine else {
            let nothing = pdu::request(Ask::Get, id, &[]);
            let parameters = security(&[], Clock { boots: 0, time: 0 }, b"", &[], &[]);
            let scoped = scoped(&[], b"", &nothing);
            return frame(id, REPORTABLE, &parameters, &scoped);
        };
        let clock = match self.keys.auth {
            Some(_) => engine.clock(now),
            // Nobody looks at it.
            None => Clock { boots: 0, time: 0 },
        };
        let scoped = scoped(&engine.id, self.user.context.as_bytes(), pdu);
        self.salt = self.salt.wrapping_add(1);
        let encrypted = self
            .keys
            .privacy
            .as_ref()
            .and_then(|(cipher, key)| usm::encrypt(*cipher, key, clock, self.salt, &scoped));
        let (flags, data, salt) = match encrypted {
            Some((bytes, salt)) => (AUTHENTIC | ENCRYPTED, octets(&bytes), salt.to_vec()),
            None if self.keys.auth.is_some() => (AUTHENTIC, scoped, Vec::new()),
            None => (0, scoped, Vec::new()),
        };
        let user = self.user.name.as_bytes();
        let flags = flags | REPORTABLE;
        let Some((hash, key)) = &self.keys.auth else {
            return frame(
                id,
                flags,
                &security(&engine.id, clock, user, &[], &salt),
                &data,
            );
        };
        // The digest is made over the message with zeros in its place, and
        // lies in front of the salt (RFC 3414, 6.3.1).
        let zeros = vec![0; usm::digest_length(*hash)];
        let parameters = security(&engine.id, clock, user, &zeros, &salt);
        let mut message = frame(id, flags, &parameters, &data);
        let digest = usm::digest(*hash, key, &message);
        let after = data.len() + octets(&salt).len();
        let place = message.len().checked_sub(after + digest.len());
        let place = place.and_then(|start| message.get_mut(start..start + digest.len()));
        if let Some(place) = place {
            place.copy_from_slice(&digest);
        }
        message
    }

    /// Reads a message from the engine's address.
    ///
    /// # Errors
    /// Why it is not the answer to the message `id`.
    pub(super) fn unwrap(
        &mut self,
        bytes: &[u8],
        id: i32,
        now: Instant,
    ) -> Result<Incoming, Stray> {
        let message = Message::parse(bytes)?;
        if message.id != id {
            return Err(Stray::OtherRequest);
        }
        let is_authentic = message.flags & AUTHENTIC != 0;
        if is_authentic && !self.is_right(&message, bytes) {
            return Err(Stray::NotAuthentic);
        }
        if is_authentic && !self.keep_time(&message, now) {
            // The digest is right and the identifier is this exchange's own:
            // no replay, but an agent that forgot how often it started.
            self.set_clock(&message, now, true);
            return Ok(self.corrected(UsmFault::NotInTimeWindow));
        }
        let pdu = self.open(&message)?;
        if pdu.is_report {
            return Ok(self.report(&pdu, &message, is_authentic, now));
        }
        let is_same = self
            .engine
            .as_ref()
            .is_some_and(|it| it.id == message.engine_id);
        let wanted = match self.user.security {
            SnmpSecurity::NoAuthNoPriv => 0,
            SnmpSecurity::AuthNoPriv(_) => AUTHENTIC,
            SnmpSecurity::AuthPriv(..) => AUTHENTIC | ENCRYPTED,
        };
        if !is_same || message.flags & wanted != wanted {
            return Err(Stray::NotAuthentic);
        }
        if pdu.request_id != id {
            return Err(Stray::OtherRequest);
        }
        Ok(Incoming::Pdu(pdu))
    }

    /// RFC 3414, 3.2, 6: whether its digest is right.
    fn is_right(&self, message: &Message<'_>, bytes: &[u8]) -> bool {
        let (Some((hash, key)), Some(engine)) = (&self.keys.auth, &self.engine) else {
            return false;
        };
        let Some(zeroed) = message.with_zeros(bytes) else {
            return false;
        };
        engine.id == message.engine_id
            && message.user == self.user.name.as_bytes()
            && usm::has_digest(*hash, key, &zeroed, message.digest)
    }

    /// RFC 3414, 3.2, 7b: takes over the clock of an authentic message;
    /// `false` where it lies too far back.
    fn keep_time(&mut self, message: &Message<'_>, now: Instant) -> bool {
        let Some(engine) = &self.engine else {
            return false;
        };
        if engine.is_authentic {
            let known = engine.clock(now);
            let is_old = message.clock.boots < known.boots
                || (message.clock.boots == known.boots
                    && message.clock.time < known.time.saturating_sub(TIME_WINDOW));
            if is_old {
                return false;
            }
        }
        self.set_clock(message, now, true);
        true
    }

    fn set_clock(&mut self, message: &Message<'_>, now: Instant, is_authentic: bool) {
        if let Some(engine) = &mut self.engine {
            engine.clock = message.clock;
            engine.at = now;
            engine.is_authentic = is_authentic;
        }
    }

    fn open(&self, message: &Message<'_>) -> Result<Pdu, Stray> {
        let plain;
        let scoped = if message.flags & ENCRYPTED == 0 {
            message.data
        } else {
            let (cipher, key) = self.keys.privacy.as_ref().ok_or(Stray::NotAuthentic)?;
            let (encrypted, _) =
                expect(message.data, asn1::TYPE_OCTETSTRING).ok_or(Stray::Malformed)?;
            plain = usm::decrypt(*cipher, key, message.clock, message.salt, encrypted)
                .ok_or(Stray::Malformed)?;
            &plain
        };
        // The padding of a cipher may follow it.
        let (content, _) = expect(scoped, asn1::TYPE_SEQUENCE).ok_or(Stray::Malformed)?;
        let (_engine, rest) = expect(content, asn1::TYPE_OCTETSTRING).ok_or(Stray::Malformed)?;
        let (_context, pdu) = expect(rest, asn1::TYPE_OCTETSTRING).ok_or(Stray::Malformed)?;
        pdu::parse_pdu(pdu)
    }

    fn report(
        &mut self,
        pdu: &Pdu,
        message: &Message<'_>,
        is_authentic: bool,
        now: Instant,
    ) -> Incoming {
        let fault = pdu
            .variables
            .first()
            .map_or(UsmFault::Other, |(counter, _)| UsmFault::of(counter));
        match fault {
            UsmFault::UnknownEngine => {
                let is_new = self
                    .engine
                    .as_ref()
                    .is_none_or(|engine| engine.id != message.engine_id);
                if !is_new || !(1..=ENGINE_ID_MAX).contains(&message.engine_id.len()) {
                    return Incoming::Fault(fault);
                }
                self.engine = Some(Engine {
                    id: message.engine_id.to_vec(),
                    clock: message.clock,
                    at: now,
                    is_authentic: false,
                });
                self.keys = Keys::new(&self.user.security, &self.masters, message.engine_id);
                self.corrected(fault)
            }
            UsmFault::NotInTimeWindow => {
                if !is_authentic {
                    self.set_clock(message, now, false);
                }
                self.corrected(fault)
            }
            _ => Incoming::Fault(fault),
        }
    }

    fn corrected(&mut self, fault: UsmFault) -> Incoming {
        if self.corrections >= CORRECTIONS_MAX {
            return Incoming::Fault(fault);
        }
        self.corrections += 1;
        Incoming::Again
    }
}

/// `UsmSecurityParameters` (RFC 3414, 2.4), as the octets of a message.
fn security(engine_id: &[u8], clock: Clock, user: &[u8], digest: &[u8], salt: &[u8]) -> Vec<u8> {
    octets(&sequence(&[
        octets(engine_id),
        integer(clock.boots),
        integer(clock.time),
        octets(user),
        octets(digest),
        octets(salt),
    ]))
}

/// `ScopedPDU` (RFC 3412, 6).
fn scoped(engine_id: &[u8], context: &[u8], pdu: &[u8]) -> Vec<u8> {
    sequence(&[octets(engine_id), octets(context), pdu.to_vec()])
}

/// `SNMPv3Message` (RFC 3412, 6).
fn frame(id: i32, flags: u8, security: &[u8], data: &[u8]) -> Vec<u8> {
    let header = sequence(&[
        integer(id),
        integer(MESSAGE_MAX),
        octets(&[flags]),
        integer(USER_BASED),
    ]);
    sequence(&[integer(VERSION), header, security.to_vec(), data.to_vec()])
}

/// A received message, its digest not yet looked at.
struct Message<'a> {
    id: i32,
    flags: u8,
    engine_id: &'a [u8],
    clock: Clock,
    user: &'a [u8],
    digest: &'a [u8],
    salt: &'a [u8],
    /// `msgData`: a scoped PDU, or the octets of an encrypted one.
    data: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Stray> {
        if !is_well_formed(bytes) {
            return Err(Stray::Malformed);
        }
        Self::parse_parts(bytes).unwrap_or(Err(Stray::Malformed))
    }

    fn parse_parts(bytes: &'a [u8]) -> Option<Result<Self, Stray>> {
        let (content, _) = expect(bytes, asn1::TYPE_SEQUENCE)?;
        let (version, rest) = expect_number(content)?;
        if version != VERSION {
            return Some(Err(Stray::OtherKind));
        }
        let (header, rest) = expect(rest, asn1::TYPE_SEQUENCE)?;
        let (id, header) = expect_number(header)?;
        let (_max, header) = expect_number(header)?;
        let (flags, header) = expect(header, asn1::TYPE_OCTETSTRING)?;
        let &[flags] = flags else { return None };
        let (model, _) = expect_number(header)?;
        if model != USER_BASED {
            return Some(Err(Stray::OtherKind));
        }
        let (security, data) = expect(rest, asn1::TYPE_OCTETSTRING)?;
        let (security, _) = expect(security, asn1::TYPE_SEQUENCE)?;
        let (engine_id, security) = expect(security, asn1::TYPE_OCTETSTRING)?;
        let (boots, security) = expect_number(security)?;
        let (time, security) = expect_number(security)?;
        let (user, security) = expect(security, asn1::TYPE_OCTETSTRING)?;
        let (digest, security) = expect(security, asn1::TYPE_OCTETSTRING)?;
        let (salt, _) = expect(security, asn1::TYPE_OCTETSTRING)?;
        Some(Ok(Self {
            id,
            flags,
            engine_id,
            clock: Clock { boots, time },
            user,
            digest,
            salt,
            data,
        }))
    }

    /// The whole message with zeros where its digest is.
    fn with_zeros(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        // `digest` is a part of `bytes`.
        let start = (self.digest.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
        let mut zeroed = bytes.to_vec();
        zeroed
            .get_mut(start..start.checked_add(self.digest.len())?)?
            .fill(0);
        Some(zeroed)
    }
}
