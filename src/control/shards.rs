//! How many shards a device has: threads that move packets.
//!
//! One shard moves several gigabits a second; more are worth their threads only where cores are left
//! for them, and for whoever makes the traffic.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::thread;

/// Most shards of a device.
const MAX_SHARDS: u32 = 64;

/// Most shards that nobody has asked for, and how many cores there are for each then.
const MAX_BY_DEFAULT: u32 = 8;
const CORES_PER_SHARD: u32 = 4;

/// A number of shards, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(NonZeroU32);

/// The number is not from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number from 1 to {MAX_SHARDS} is expected")]
pub struct NotShards;

impl Shards {
    pub const ONE: Self = Self(NonZeroU32::MIN);

    /// What fits this machine: 1 up to four cores, a quarter of more cores, 8 at most.
    pub fn by_cores() -> Self {
        // Where nobody can tell, one is never wrong.
        Self::of_cores(thread::available_parallelism().map_or(1, usize::from))
    }

    fn of_cores(cores: usize) -> Self {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        let shards = (cores / CORES_PER_SHARD).min(MAX_BY_DEFAULT);
        NonZeroU32::new(shards).map_or(Self::ONE, Self)
    }

    pub const fn get(self) -> NonZeroU32 {
        self.0
    }
}

impl FromStr for Shards {
    type Err = NotShards;

    fn from_str(text: &str) -> Result<Self, NotShards> {
        let number: NonZeroU32 = text.parse().map_err(|_| NotShards)?;
        if number.get() <= MAX_SHARDS { Ok(Self(number)) } else { Err(NotShards) }
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_four_cores_have_one_shard_and_more_a_quarter_but_eight_at_most() {
        for (cores, shards) in
            [(0, 1), (1, 1), (4, 1), (7, 1), (8, 2), (16, 4), (32, 8), (200, 8), (usize::MAX, 8)]
        {
            assert_eq!(Shards::of_cores(cores).get().get(), shards, "{cores} cores");
        }
    }

    #[test]
    fn a_number_from_1_to_64_is_read_and_written_alike() {
        for text in ["1", "4", "64"] {
            assert_eq!(text.parse::<Shards>().unwrap().to_string(), text);
        }
        for text in ["0", "65", "-1", "", "two", "4294967297"] {
            assert_eq!(text.parse::<Shards>(), Err(NotShards), "{text:?}");
        }
    }
}
