//! Bodies that are made page by page while they are sent: a listing of every
//! device takes the memory of one page, and holds no connection to the database
//! while its reader takes its time.

use std::io::{self, Read};

use crate::store::StoreError;

/// Devices of one page.
pub(super) const PAGE: i64 = 500;

/// Such a body. `next` appends what follows, and answers whether more does.
pub(super) struct Pages<F> {
    next: F,
    ready: Vec<u8>,
    sent: usize,
    more: bool,
}

impl<F> Pages<F>
where
    F: FnMut(&mut Vec<u8>) -> Result<bool, StoreError>,
{
    /// The body that begins with `ready`.
    pub(super) fn new(ready: Vec<u8>, next: F) -> Self {
        Self {
            next,
            ready,
            sent: 0,
            more: true,
        }
    }
}

impl<F> Read for Pages<F>
where
    F: FnMut(&mut Vec<u8>) -> Result<bool, StoreError>,
{
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.sent == self.ready.len() && self.more {
            self.ready.clear();
            self.sent = 0;
            // Cut short, which its reader sees: the head says that all is well.
            self.more = (self.next)(&mut self.ready).map_err(|error| {
                self.more = false;
                log::warn!("a listing is cut short: {error}");
                io::Error::other(error)
            })?;
        }
        let read = (&self.ready[self.sent..]).read(into)?;
        self.sent += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_an_error_cuts_short() {
        let mut number = 0;
        let mut body = Pages::new(b"[".to_vec(), |page: &mut Vec<u8>| {
            number += 1;
            // An empty one in between is not the end.
            if number != 2 {
                page.extend_from_slice(number.to_string().as_bytes());
            }
            Ok(number < 4)
        });
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text, "[134");

        let mut body = Pages::new(b"[".to_vec(), |_: &mut Vec<u8>| {
            Err(StoreError::Unavailable("gone".to_owned()))
        });
        let mut taken = Vec::new();
        assert!(body.read_to_end(&mut taken).is_err());
        assert_eq!(taken, b"[");
    }
}
