//! The course of one probe: which request comes next, and what the answers
//! said. No socket and no clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Instant;

use av_proto::driver::{Oid, SnmpAccess};
use av_proto::secret::Secret;

use super::pdu::{self, Ask, Pdu, Stray, Value, Version};
use super::plan::Plan;
use super::v3::{Dialogue, Incoming, UsmFault};

/// Variables of one request: their answers fit into a datagram that is not
/// cut to pieces, unless there is much text among them.
const CHUNK_MAX: usize = 20;
/// Values that one GETBULK asks for.
const BULK_MAX: usize = 40;
/// Columns that are walked together.
const COLUMNS_MAX: usize = 8;
/// Rows of a table; of more only the first are read.
pub(super) const ROWS_MAX: usize = 64;
/// Requests of one probe.
const REQUESTS_MAX: u32 = 100;

/// What an agent said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answers {
    pub scalars: BTreeMap<Oid, Value>,
    /// By column, then by the row's index.
    pub columns: BTreeMap<Oid, BTreeMap<Vec<u32>, Value>>,
    /// Not all was asked for that should have been.
    pub cut_short: Option<&'static str>,
}

/// How a probe ended that an agent answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Values(Answers),
    /// The agent cannot or will not say: RFC 3416's `error-status`.
    Refused(u32),
    /// Version 3: the agent does not accept our messages.
    Fault(UsmFault),
}

/// What to do after an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// Send [`Session::datagram`].
    Send,
    Done(Answer),
}

/// How requests become messages.
#[derive(Debug)]
enum Wrapping {
    Community(Version, Secret),
    User(Box<Dialogue>),
}

/// What is still to be asked.
#[derive(Debug)]
enum Task {
    Get(Vec<Oid>),
    Walk(Vec<Walk>),
}

/// A column that is being walked.
#[derive(Debug, Clone)]
struct Walk {
    column: Oid,
    /// The last row's variable; the column before the first.
    cursor: Oid,
    rows: usize,
    is_done: bool,
}

/// One probe.
#[derive(Debug)]
pub(super) struct Session {
    wrapping: Wrapping,
    base: Vec<Oid>,
    tasks: VecDeque<Task>,
    repetitions: usize,
    request_id: i32,
    requests: u32,
    datagram: Vec<u8>,
    answers: Answers,
    heard: bool,
    /// Its engine has told who it is, which it tells anybody.
    met: bool,
}

impl Session {
    /// A probe whose first request is ready. `request_id` should be random
    /// and not negative; `dialogue` is for [`SnmpAccess::V3`].
    pub(super) fn new(
        access: &SnmpAccess,
        dialogue: Option<Dialogue>,
        plan: Plan,
        request_id: i32,
        now: Instant,
    ) -> Option<Self> {
        let wrapping = match (access, dialogue) {
            (SnmpAccess::V1 { community }, _) => {
                Wrapping::Community(Version::V1, community.clone())
            }
            (SnmpAccess::V2c { community }, _) => {
                Wrapping::Community(Version::V2c, community.clone())
            }
            (SnmpAccess::V3(_), Some(dialogue)) => Wrapping::User(Box::new(dialogue)),
            (SnmpAccess::V3(_), None) => return None,
        };
        let variables: Vec<Oid> = plan.base.iter().chain(&plan.scalars).cloned().collect();
        let mut tasks: VecDeque<Task> = variables
            .chunks(CHUNK_MAX)
            .map(|chunk| Task::Get(chunk.to_vec()))
            .collect();
        let walks: Vec<Walk> = plan.columns.into_iter().map(Walk::new).collect();
        for walks in walks.chunks(COLUMNS_MAX) {
            tasks.push_back(Task::Walk(walks.to_vec()));
        }
        let mut session = Self {
            wrapping,
            base: plan.base,
            tasks,
            repetitions: BULK_MAX,
            request_id,
            requests: 0,
            datagram: Vec::new(),
            answers: Answers::default(),
            heard: false,
            met: false,
        };
        session.build(now);
        Some(session)
    }

    /// The request that waits for its answer; a further try sends the same.
    pub(super) fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    /// What is known of the engine of version 3, for the next probe.
    pub(super) fn dialogue(self) -> Option<Dialogue> {
        match self.wrapping {
            Wrapping::Community(..) => None,
            Wrapping::User(dialogue) => Some(*dialogue),
        }
    }

    /// Ends a probe whose agent has fallen silent; `None` where it said
    /// nothing at all.
    pub(super) fn fall_silent(&mut self) -> Option<Answer> {
        match (self.heard, self.met) {
            (true, _) => Some(self.cut_short("the agent stopped answering")),
            (false, true) => Some(Answer::Fault(UsmFault::Silent)),
            (false, false) => None,
        }
    }

    fn cut_short(&mut self, why: &'static str) -> Answer {
        self.answers.cut_short = Some(why);
        Answer::Values(std::mem::take(&mut self.answers))
    }

    /// Takes a datagram from the agent's address. `see` is shown what it says.
    ///
    /// # Errors
    /// Why it is not the answer that is waited for.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        now: Instant,
        see: impl FnOnce(&Incoming),
    ) -> Result<Progress, Stray> {
        let incoming = match &mut self.wrapping {
            Wrapping::Community(version, community) => {
                let community = community.expose().as_bytes();
                let (pdu, is_ours) = pdu::parse_message(bytes, *version, community)?;
                if pdu.request_id != self.request_id {
                    return Err(Stray::OtherRequest);
                }
                if !is_ours {
                    return Err(Stray::OtherCommunity);
                }
                Incoming::Pdu(pdu)
            }
            Wrapping::User(dialogue) => dialogue.unwrap(bytes, self.request_id, now)?,
        };
        see(&incoming);
        let pdu = match incoming {
            Incoming::Pdu(pdu) => pdu,
            Incoming::Again => {
                self.met = true;
                return Ok(self.send_next(now));
            }
            Incoming::Fault(fault) => return Ok(Progress::Done(Answer::Fault(fault))),
        };
        self.heard = true;
        if let Some(end) = self.take(pdu) {
            return Ok(Progress::Done(end));
        }
        while let Some(task) = self.tasks.front() {
            let is_done = match task {
                Task::Get(oids) => oids.is_empty(),
                Task::Walk(walks) => walks.iter().all(|walk| walk.is_done),
            };
            if !is_done {
                return Ok(self.send_next(now));
            }
            self.tasks.pop_front();
            self.repetitions = BULK_MAX;
        }
        Ok(Progress::Done(Answer::Values(std::mem::take(
            &mut self.answers,
        ))))
    }

    fn send_next(&mut self, now: Instant) -> Progress {
        if self.requests >= REQUESTS_MAX {
            return Progress::Done(self.cut_short("more requests than a probe may make"));
        }
        self.request_id = self.request_id.checked_add(1).unwrap_or(1);
        self.build(now);
        Progress::Send
    }

    fn build(&mut self, now: Instant) {
        self.requests += 1;
        let (ask, oids) = self.question();
        let request = pdu::request(ask, self.request_id, &oids);
        self.datagram = match &mut self.wrapping {
            Wrapping::Community(version, community) => {
                pdu::message(*version, community.expose().as_bytes(), &request)
            }
            Wrapping::User(dialogue) => dialogue.wrap(&request, self.request_id, now),
        };
    }

    fn question(&self) -> (Ask, Vec<&Oid>) {
        match self.tasks.front() {
            None => (Ask::Get, Vec::new()),
            Some(Task::Get(oids)) => (Ask::Get, oids.iter().collect()),
            Some(Task::Walk(walks)) => {
                let cursors: Vec<&Oid> = walks
                    .iter()
                    .filter(|walk| !walk.is_done)
                    .map(|walk| &walk.cursor)
                    .collect();
                let each = (self.repetitions / cursors.len().max(1)).clamp(1, ROWS_MAX);
                let ask = match self.wrapping {
                    Wrapping::Community(Version::V1, _) => Ask::Next,
                    _ => Ask::Bulk(u8::try_from(each).unwrap_or(1)),
                };
                (ask, cursors)
            }
        }
    }

    /// Files what a response says; the answer where the probe ends with it.
    fn take(&mut self, pdu: Pdu) -> Option<Answer> {
        let task = self.tasks.pop_front()?;
        match task {
            Task::Get(oids) => self.take_got(oids, pdu),
            Task::Walk(walks) => {
                self.take_walked(walks, pdu);
                None
            }
        }
    }

    fn take_got(&mut self, mut oids: Vec<Oid>, pdu: Pdu) -> Option<Answer> {
        let status = pdu.error_status;
        if status == 0 {
            // Whatever else it has was not asked for.
            for (name, value) in pdu.variables {
                if oids.contains(&name) {
                    self.answers.scalars.insert(name, value);
                }
            }
            return None;
        }
        let culprit = usize::try_from(pdu.error_index)
            .ok()
            .and_then(|index| index.checked_sub(1))
            .filter(|at| *at < oids.len());
        match culprit {
            // Version 1 answers for none where one is not there.
            Some(at) if status == 2 => {
                let name = oids.remove(at);
                let absent = Value::Absent(pdu::error_name(status));
                self.answers.scalars.insert(name, absent);
                self.tasks.push_front(Task::Get(oids));
                return None;
            }
            _ => {}
        }
        let (base, rest): (Vec<Oid>, Vec<Oid>) =
            oids.into_iter().partition(|oid| self.base.contains(oid));
        let (first, second) = match (base.is_empty(), rest.is_empty()) {
            // It refuses what every agent has.
            (false, true) => return Some(Answer::Refused(status)),
            (false, false) => (base, rest),
            (true, _) if rest.len() > 1 => {
                let (one, other) = rest.split_at(rest.len() / 2);
                (one.to_vec(), other.to_vec())
            }
            (true, _) => {
                for name in rest {
                    let absent = Value::Absent(pdu::error_name(status));
                    self.answers.scalars.insert(name, absent);
                }
                return None;
            }
        };
        self.tasks.push_front(Task::Get(second));
        self.tasks.push_front(Task::Get(first));
        None
    }

    fn take_walked(&mut self, mut walks: Vec<Walk>, pdu: Pdu) {
        let mut active: Vec<&mut Walk> = walks.iter_mut().filter(|walk| !walk.is_done).collect();
        let columns = active.len().max(1);
        if pdu.error_status != 0 {
            let culprit = usize::try_from(pdu.error_index)
                .ok()
                .and_then(|index| index.checked_sub(1));
            if pdu.error_status == 1 && self.repetitions > columns {
                self.repetitions /= 2;
            } else if let Some(walk) = culprit.and_then(|at| active.get_mut(at)) {
                // Version 1: behind the last variable of all.
                walk.is_done = true;
            } else {
                active.iter_mut().for_each(|walk| walk.is_done = true);
            }
            self.tasks.push_front(Task::Walk(walks));
            return;
        }
        let mut heard = vec![false; columns];
        for (i, (name, value)) in pdu.variables.into_iter().enumerate() {
            let Some(walk) = active.get_mut(i % columns) else {
                continue;
            };
            if let Some(heard) = heard.get_mut(i % columns) {
                *heard = true;
            }
            if walk.is_done {
                continue;
            }
            let index = walk.column.index_of(&name).map(<[u32]>::to_vec);
            match index {
                // A row that does not come after the last one would never end.
                Some(index)
                    if name > walk.cursor
                        && !matches!(value, Value::Absent(_))
                        && walk.rows < ROWS_MAX =>
                {
                    let rows = self.answers.columns.entry(walk.column.clone());
                    rows.or_default().insert(index, value);
                    walk.cursor = name;
                    walk.rows += 1;
                }
                _ => walk.is_done = true,
            }
            if walk.rows >= ROWS_MAX {
                walk.is_done = true;
            }
        }
        for (walk, heard) in active.iter_mut().zip(heard) {
            // An answer that says nothing of a column ends it.
            walk.is_done |= !heard;
        }
        self.tasks.push_front(Task::Walk(walks));
    }
}

/// What the request asks, for the wire's log: no secret.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.request_id;
        let version = match &self.wrapping {
            Wrapping::Community(Version::V1, _) => "SNMPv1",
            Wrapping::Community(Version::V2c, _) => "SNMPv2c",
            Wrapping::User(dialogue) if dialogue.is_discovering() => {
                return write!(f, "SNMPv3, id {id}: which engine?");
            }
            Wrapping::User(_) => "SNMPv3",
        };
        let (ask, oids) = self.question();
        write!(f, "{version} {ask:?}, id {id}:")?;
        oids.iter().try_for_each(|oid| write!(f, " {oid}"))
    }
}

impl Walk {
    fn new(column: Oid) -> Self {
        Self {
            cursor: column.clone(),
            column,
            rows: 0,
            is_done: false,
        }
    }
}
