//! Bytes of a connection, put together to lines.

/// More than any line of the standard, which has at most 136 bytes.
pub const LINE_MAX: usize = 256;

/// What came of a connection and is not a line yet.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

/// More than [`LINE_MAX`] bytes came without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Lines {
    /// Takes bytes as they came, in whatever pieces.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next line that is not empty, without its end: a carriage return by
    /// the standard, a line feed or both by some projectors. Bytes that are
    /// not UTF-8 are replaced. `None` until it is whole.
    ///
    /// # Errors
    /// [`TooLong`]: it will not be one.
    pub fn next_line(&mut self) -> Result<Option<String>, TooLong> {
        while let Some(end) = self.pending.iter().position(|b| matches!(b, b'\r' | b'\n')) {
            let line: Vec<u8> = self.pending.drain(..=end).take(end).collect();
            if let Some(text) = text(&line) {
                return Ok(Some(text));
            }
        }
        if self.pending.len() > LINE_MAX {
            return Err(TooLong);
        }
        Ok(None)
    }

    /// Of a connection that was closed within a line, that part: the last
    /// line, where anything is in it.
    pub fn rest(&mut self) -> Option<String> {
        text(&std::mem::take(&mut self.pending))
    }
}

/// A line as text; `None` where there is nothing in it.
fn text(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn lines_end_in_every_way_and_come_in_pieces() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in [
            &b"a\rb\nc\r"[..],
            b"\n\r\r  \r\0d",
            b"d",
            b"d\xff\r\ne e\n",
            b"last",
        ] {
            lines.push(piece);
            found.extend(all(&mut lines));
        }
        assert_eq!(found, ["a", "b", "c", "ddd\u{fffd}", "e e"]);
        assert_eq!(lines.rest().as_deref(), Some("last"));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let mut lines = Lines::default();
        lines.push(&[b'x'; LINE_MAX]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next_line(), Err(TooLong));
    }
}
