//! Where a body that comes in chunks ends. The bytes go on as they are. [RFC 9112 §7.1]

/// Bytes of one line between chunks, and of all lines after the last.
const LONGEST_LINE: usize = 4096;

/// What is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The line with the size of a chunk.
    #[default]
    Size,
    Data(u64),
    /// The end of line behind the data.
    DataEnd,
    /// Lines after the last chunk, up to an empty one.
    Trailer,
    Done,
}

/// The bytes make no sense as chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Senseless;

/// What has been read of a body so far.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// Of the line that is being read.
    line: Vec<u8>,
}

impl Chunks {
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes what belongs to the body, and tells how many bytes that is: all, or up to its end.
    ///
    /// # Errors
    /// The body has no end that all would agree about.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Senseless> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data(left) = self.state {
                let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(left);
                at += usize::try_from(here).unwrap_or(usize::MAX);
                self.state = if here == left { State::DataEnd } else { State::Data(left - here) };
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if byte != b'\n' {
                if self.line.len() >= LONGEST_LINE {
                    return Err(Senseless);
                }
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.state = self.after(line.strip_suffix(b"\r").ok_or(Senseless)?)?;
        }
        Ok(at)
    }

    fn after(&self, line: &[u8]) -> Result<State, Senseless> {
        match self.state {
            State::Size => match size(line).ok_or(Senseless)? {
                0 => Ok(State::Trailer),
                size => Ok(State::Data(size)),
            },
            State::DataEnd if line.is_empty() => Ok(State::Size),
            State::Trailer if line.is_empty() => Ok(State::Done),
            State::Trailer => Ok(State::Trailer),
            State::DataEnd | State::Data(_) | State::Done => Err(Senseless),
        }
    }
}

/// Hexadecimal digits, and behind a semicolon what nobody needs.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii_end();
    let is_number = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = b"4;x=1\r\nWiki\r\nA \r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n";

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        for piece in 1..BODY.len() {
            let mut chunks = Chunks::default();
            let mut taken = 0;
            for bytes in [BODY, b"GET next"].concat().chunks(piece) {
                taken += chunks.take(bytes).unwrap();
            }
            assert!(chunks.is_done() && taken == BODY.len(), "{piece}: {taken}");
        }
    }

    #[test]
    fn what_has_no_clear_end_is_refused() {
        for body in [
            &b"x\r\n"[..],
            b"\r\n",
            b"4\nWiki",
            b"-1\r\n",
            b"+1\r\n",
            b"1\r\nab\r\n",
            b"11111111111111111\r\n",
        ] {
            assert_eq!(Chunks::default().take(body), Err(Senseless), "{body:?}");
        }
        assert_eq!(Chunks::default().take(&[b'1'; 5000]), Err(Senseless));
    }

    proptest! {
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(Chunks::default().take(&bytes));
        }
    }
}
