//! Answers a request whose body may not have been read.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tiny_http::{Request, Response};

use super::Talking;
use super::frame::upgrades;

/// tiny_http reads a body as short as this before it hands out the request.
const READ_AHEAD: usize = 1024;
/// When a request is dropped, tiny_http reads the rest of its body into one
/// buffer of that size. Up to here that is harmless.
const DRAIN_MAX: usize = 64 << 20;
/// How long the rest of a body that nobody wants may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// How long the peer of a larger one has to read its answer.
const LINGER: Duration = Duration::from_secs(2);
/// More than tiny_http's buffer of 1 KiB, so that all of an answer is sent
/// before the reader that never ends is read again.
const PADDED: usize = 4096;

/// Whether tiny_http has read the body already, so that reading it holds
/// nobody up.
#[must_use]
pub fn came_with_head(request: &Request) -> bool {
    !has(request, "Expect")
        && !upgrades(request)
        && request
            .body_length()
            .is_some_and(|length| length <= READ_AHEAD)
}

/// Too many requests claimed bodies that no memory can hold, or too many
/// connections stay though they were closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many connections can never be let go of")]
pub struct TooManyStuck;

/// Sends answers.
///
/// Dropping a request makes tiny_http wait for the rest of its body: a thread
/// of its own waits, so that no worker does. And it allocates as many bytes as
/// `Content-Length` claims, which for a claim past the machine's memory would
/// end the program: such a request is answered and never dropped.
#[derive(Debug)]
pub(super) struct Sender {
    stuck: AtomicUsize,
    stuck_max: usize,
}

impl Sender {
    /// After `stuck_max` requests that cannot be dropped the program must
    /// start anew.
    pub(super) fn new(stuck_max: usize) -> Self {
        Self {
            stuck: AtomicUsize::new(0),
            stuck_max,
        }
    }

    /// Sends the answer. `body_read` tells whether the body was read to its
    /// end.
    ///
    /// # Errors
    /// [`TooManyStuck`].
    pub(super) fn send(
        &self,
        request: Request,
        talking: Talking,
        body_read: bool,
        response: Response<impl Read + Send + 'static>,
    ) -> Result<(), TooManyStuck> {
        let claimed = request.body_length().unwrap_or_default();
        if !body_read && has(&request, "Transfer-Encoding") {
            // The chunks that are left would be taken for the next request.
            talking.refuse();
        }
        if body_read || claimed == 0 || came_with_head(&request) {
            if let Err(error) = answer(request, response) {
                log::debug!("an answer was not sent: {error}");
                // What was sent of it is not to be taken for the next one's.
                talking.refuse();
            }
            return Ok(());
        }
        if claimed <= DRAIN_MAX {
            talking.reads_until(Some(Instant::now() + DRAIN_LIMIT));
            detach(Box::new(move || {
                let _ = answer(request, response);
                drop(talking);
            }));
            return Ok(());
        }
        // Where there is no thread, this is dropped without having run.
        let request = ManuallyDrop::new(request);
        self.stick(|| {
            detach(Box::new(move || {
                let request = ManuallyDrop::into_inner(request);
                let _ = request.respond(never_ending(response, talking));
            }));
        })
    }

    /// Lets go of a request without an answer.
    ///
    /// # Errors
    /// [`TooManyStuck`].
    pub(super) fn discard(&self, request: Request) -> Result<(), TooManyStuck> {
        let claimed = request.body_length().unwrap_or_default();
        // Dropped with its writer, it would be answered with 500.
        if claimed == 0 || came_with_head(&request) {
            drop(request.into_writer());
            return Ok(());
        }
        if claimed <= DRAIN_MAX {
            // It ends with the connection, which is closed.
            detach(Box::new(move || drop(request.into_writer())));
            return Ok(());
        }
        self.stick(|| std::mem::forget(request))
    }

    fn stick(&self, stick: impl FnOnce()) -> Result<(), TooManyStuck> {
        let before = self.stuck.fetch_add(1, Ordering::Relaxed);
        stick();
        if before >= self.stuck_max {
            return Err(TooManyStuck);
        }
        Ok(())
    }
}

/// Whether the request has this header.
pub(super) fn has(request: &Request, name: &'static str) -> bool {
    request
        .headers()
        .iter()
        .any(|header| header.field.equiv(name))
}

/// Each kind of `work` as a type of its own would be 2 kB of the program.
fn detach(work: Box<dyn FnOnce() + Send>) {
    let spawned = std::thread::Builder::new()
        .name("refuse".to_owned())
        .stack_size(128 * 1024)
        .spawn(work);
    if let Err(error) = spawned {
        log::warn!("no thread to refuse a request: {error}");
    }
}

fn answer(request: Request, response: Response<impl Read>) -> io::Result<()> {
    match response.status_code().0 {
        204 | 304 => without_body(request, &response),
        _ => request.respond(response),
    }
}

/// Sends an answer whose status says that it has no body. tiny_http would tell
/// a length: that of the body that a 200 has with a 304, for which some clients
/// then wait, and 0 with a 204, which RFC 9110 forbids (section 8.6).
fn without_body(request: Request, response: &Response<impl Read>) -> io::Result<()> {
    let version = request.http_version();
    let status = response.status_code();
    let mut head = format!(
        "HTTP/{}.{} {} {}\r\n",
        version.0,
        version.1,
        status.0,
        status.default_reason_phrase()
    );
    // Every time from year 0 to 9999 can be printed.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
        let _ = write!(head, "Date: {date}\r\n");
    }
    for header in response.headers() {
        if header.field.equiv("Content-Type") {
            continue;
        }
        let (field, value) = (header.field.as_str(), header.value.as_str());
        for part in [field.as_str(), ": ", value, "\r\n"] {
            head.push_str(part);
        }
    }
    head.push_str("\r\n");
    let mut writer = request.into_writer();
    writer.write_all(head.as_bytes())?;
    writer.flush()
}

/// The same response, after whose body the reader blocks for good. Some time
/// later the connection is given up, and with it what still comes.
///
/// tiny_http drops the reader before the request, also where it sends no body
/// (HEAD, 304) or its peer has gone: then that is where it blocks.
fn never_ending(
    response: Response<impl Read + Send + 'static>,
    talking: Talking,
) -> Response<impl Read> {
    struct Blocked(Option<Talking>);
    impl Blocked {
        fn block(&mut self) -> ! {
            std::thread::sleep(LINGER);
            if let Some(talking) = self.0.take() {
                talking.refuse();
            }
            loop {
                std::thread::park();
            }
        }
    }
    impl Read for Blocked {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.block()
        }
    }
    impl Drop for Blocked {
        fn drop(&mut self) {
            self.block()
        }
    }
    let own = response.data_length();
    let length = own.map(|length| length.max(PADDED));
    let padding = length.unwrap_or_default() - own.unwrap_or_default();
    let status = response.status_code();
    let headers = response.headers().to_vec();
    // White space at the end means nothing in JSON and HTML.
    let body = response
        .into_reader()
        .chain(io::repeat(b' ').take(padding as u64))
        .chain(Blocked(Some(talking)));
    Response::new(status, headers, body, length, None).with_chunked_threshold(usize::MAX)
}
