//! The longest packet that comes back, by requests that nobody may cut. [RFC 4821]
//!
//! What is found holds inside the tunnel and for both ways, since an answer is as long as its
//! request. The tunnel's own datagrams may be cut on their way: that is what differs from the MTU of
//! the path outside.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::error::BenchError;
use crate::control::interrupt::Interrupt;
use crate::sys::echo::EchoSocket;

/// Every host takes as many. [RFC 791 §3.2]
const LEAST_BYTES: u32 = 576;
/// So often a length is tried: one loss shall not decide.
const TRIES: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Beside the round trip, for the extra bytes and for whoever answers.
const GRACE: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Longest {
    /// Bytes, IP header included.
    pub bytes: u32,
    /// The longest that was tried: what the interface takes.
    pub limit: u32,
}

impl Longest {
    pub const fn is_all(&self) -> bool {
        self.bytes == self.limit
    }
}

/// Tries lengths up to `limit`, the MTU of the interface; `round_trip` is how long an answer takes
/// mostly. `None` if not even short packets come back.
///
/// # Errors
/// What the socket said, or somebody interrupted.
pub fn measure(
    echo: &EchoSocket,
    limit: u32,
    round_trip: Duration,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(u32),
) -> Result<Option<Longest>, BenchError> {
    let wait = (round_trip * 2 + GRACE).min(LONGEST_WAIT);
    let mut sequence = 0_u16;
    let found = search(limit, |bytes| {
        tell(bytes);
        for _ in 0..TRIES {
            if interrupt.is_raised() {
                return Err(BenchError::Interrupted);
            }
            sequence = sequence.wrapping_add(1);
            match echo.send_packet(sequence, usize::try_from(bytes).unwrap_or(usize::MAX)) {
                Err(error) if error.is_packet_refused() => return Ok(false),
                outcome => outcome?,
            }
            // An answer to a shorter one may come late.
            while let Some(answered) = echo.receive(wait)? {
                if answered == sequence {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    })?;
    Ok(found.map(|bytes| Longest { bytes, limit }))
}

/// The longest length up to `limit` that `comes_back`: all in the best case, else by halving what
/// lies between one that does and one that does not.
fn search<E>(
    limit: u32,
    mut comes_back: impl FnMut(u32) -> Result<bool, E>,
) -> Result<Option<u32>, E> {
    if comes_back(limit)? {
        return Ok(Some(limit));
    }
    let (mut good, mut bad) = (LEAST_BYTES.min(limit), limit);
    if good == limit || !comes_back(good)? {
        return Ok(None);
    }
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if comes_back(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(limit: u32, passes: u32) -> (Option<u32>, u32) {
        let mut tries = 0;
        let found = search(limit, |bytes| {
            tries += 1;
            Ok::<_, ()>(bytes <= passes)
        });
        (found.unwrap(), tries)
    }

    #[test]
    fn the_longest_is_found_to_the_byte_in_a_dozen_tries() {
        for passes in [576, 577, 1280, 1372, 1419] {
            let (longest, tries) = found(1420, passes);
            assert_eq!(longest, Some(passes));
            assert!(tries <= 12, "{tries}");
        }
    }

    #[test]
    fn a_path_that_takes_all_is_tried_once_and_one_that_takes_nothing_twice() {
        assert_eq!(found(1420, 1420), (Some(1420), 1));
        assert_eq!(found(1420, 100), (None, 2));
        assert_eq!(found(500, 100), (None, 1));
    }
}
