//! The chunked coding (RFC 9112, section 7.1), read as its bytes come.

/// The most bytes of a line that says a chunk's length, with its extensions.
const LINE_MAX: usize = 256;
/// The most bytes of all trailers.
const TRAILERS_MAX: usize = 4096;

/// The bytes are not chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// How far a body in chunks has been read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    stage: Stage,
    /// What has come of a line.
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Length,
    Data(u64),
    /// The line end behind a chunk's data.
    DataEnd,
    Trailer,
    Done,
}

impl Chunks {
    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Reads from `input`, appends data to `body` until it has `most` bytes and
    /// one more, and answers how many bytes it used. What it leaves is for the
    /// next call, or, once it [`is_done`](Self::is_done), for the next request.
    ///
    /// # Errors
    /// [`Malformed`]: nothing that follows can be believed.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        most: usize,
    ) -> Result<usize, Malformed> {
        let mut used = 0;
        while used < input.len() && body.len() <= most {
            match self.stage {
                Stage::Done => break,
                Stage::Data(left) => {
                    let room = most.saturating_add(1) - body.len();
                    let rest = &input[used..];
                    let take = rest
                        .len()
                        .min(usize::try_from(left).unwrap_or(usize::MAX))
                        .min(room);
                    body.extend_from_slice(&rest[..take]);
                    used += take;
                    self.stage = match left - take as u64 {
                        0 => Stage::DataEnd,
                        left => Stage::Data(left),
                    };
                }
                Stage::Length | Stage::DataEnd | Stage::Trailer => {
                    let byte = input[used];
                    used += 1;
                    self.take(byte)?;
                }
            }
        }
        Ok(used)
    }

    /// One more byte of a line.
    fn take(&mut self, byte: u8) -> Result<(), Malformed> {
        // A line ends with CR LF alone: another reader may take less for an end.
        let ends = self.line.last() == Some(&b'\r');
        let possible = match byte {
            b'\n' => ends,
            b'\r' | b'\t' => !ends,
            _ => !ends && !byte.is_ascii_control(),
        };
        self.line.push(byte);
        if !possible || self.line.len() > LINE_MAX {
            return Err(Malformed);
        }
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Ok(());
        };
        let line = line.strip_suffix(b"\r").ok_or(Malformed)?;
        // A CR inside is one where another reader may see the line end.
        if line
            .iter()
            .any(|&byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(Malformed);
        }
        self.stage = match self.stage {
            Stage::Length => match chunk_length(line)? {
                0 => Stage::Trailer,
                length => Stage::Data(length),
            },
            Stage::DataEnd if line.is_empty() => Stage::Length,
            Stage::DataEnd => return Err(Malformed),
            _ if line.is_empty() => Stage::Done,
            stage => {
                self.trailers += self.line.len();
                if self.trailers > TRAILERS_MAX {
                    return Err(Malformed);
                }
                stage
            }
        };
        self.line.clear();
        Ok(())
    }
}

fn chunk_length(line: &[u8]) -> Result<u64, Malformed> {
    let end = line
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(line.len());
    let digits = &line[..end];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and how many bytes of the input belong to it.
    fn read(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut chunks = Chunks::default();
        let (mut body, mut used) = (Vec::new(), 0);
        while used < input.len() && !chunks.is_done() {
            let end = (used + step).min(input.len());
            used += chunks.read(&input[used..end], &mut body, 1000)?;
        }
        Ok((body, used, chunks.is_done()))
    }

    #[test]
    fn a_body_is_read_however_it_comes() {
        let input = b"5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nX: y\r\n\r\nGET /";
        for step in 1..input.len() {
            let read = read(input, step).unwrap();
            assert_eq!(read, (b"hello world".to_vec(), input.len() - 5, true));
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = format!("1;{}\r\n", "x".repeat(LINE_MAX));
        let trailers = format!("0\r\n{}", "A: 123456789\r\n".repeat(TRAILERS_MAX / 8));
        for input in [
            "\r\n",
            "x\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "+5\r\n",
            "-1\r\n",
            "5\nhello",
            "5\r\rhello",
            "5;\u{b}\r\n",
            "1;a\rb\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            &long,
            &trailers,
        ] {
            assert_eq!(read(input.as_bytes(), 7), Err(Malformed), "{input:?}");
        }
    }

    #[test]
    fn a_body_that_is_too_large_is_not_kept() {
        let input = [b"ffff\r\n".as_slice(), &[b'x'; 5000]].concat();
        let mut chunks = Chunks::default();
        let mut body = Vec::new();
        chunks.read(&input, &mut body, 1000).unwrap();
        assert_eq!(body.len(), 1001);
        assert!(!chunks.is_done());
    }
}
