//! The sliding window over received counters: each is accepted once, in any order within reach.
//!
//! The bits form a ring of words. A counter that moves the window on clears the words it enters
//! and nothing is ever shifted, so that a packet in order costs one bit. [WG §5.4.6] [RFC 6479]
//!
//! Only counters of authenticated messages come here; otherwise a forged counter could move the
//! window past the true ones. The limit on counters is kept before decryption, not here.

use crate::proto::constants::COUNTER_WINDOW_SIZE;
use crate::proto::drop_reason::DropReason;
use crate::proto::keypair::Authenticated;

const WORD_BITS: u64 = u64::BITS as u64;

/// One word more than the reach needs, because the newest word is only partly used.
const WORDS: usize = (COUNTER_WINDOW_SIZE / WORD_BITS) as usize + 1;

/// The counters accepted so far from one keypair, 1 KiB.
#[derive(Debug)]
pub struct ReplayWindow {
    /// The greatest counter accepted; 0 also when there was none.
    greatest: u64,
    /// INVARIANT: of the counters up to `greatest` and at most `COUNTER_WINDOW_SIZE` behind it,
    /// those accepted have their bit set; bits of greater counters in the word of `greatest` are
    /// not set.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    pub const fn new() -> Self {
        Self { greatest: 0, seen: [0; WORDS] }
    }

    /// Records the counter of an authenticated message.
    ///
    /// # Errors
    /// [`DropReason::CounterTooOld`] if it lies more than [`COUNTER_WINDOW_SIZE`] behind the
    /// greatest, [`DropReason::CounterReplayed`] if it was accepted before.
    pub fn accept(&mut self, proof: &Authenticated) -> Result<(), DropReason> {
        let counter = proof.counter();
        if counter > self.greatest {
            self.advance(counter);
        } else if self.greatest - counter > COUNTER_WINDOW_SIZE {
            return Err(DropReason::CounterTooOld);
        }
        let bit = 1 << (counter % WORD_BITS);
        let word = &mut self.seen[ring(counter / WORD_BITS)];
        if *word & bit != 0 {
            return Err(DropReason::CounterReplayed);
        }
        *word |= bit;
        Ok(())
    }

    fn advance(&mut self, counter: u64) {
        let (old, new) = (self.greatest / WORD_BITS, counter / WORD_BITS);
        let entered = (new - old).min(WORDS as u64);
        for word in new - entered..new {
            self.seen[ring(word + 1)] = 0;
        }
        self.greatest = counter;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// The place of a word in the ring.
fn ring(word: u64) -> usize {
    (word % WORDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::proto::constants::REJECT_AFTER_MESSAGES;

    fn accept(window: &mut ReplayWindow, counter: u64) -> Result<(), DropReason> {
        window.accept(&Authenticated::claimed(counter))
    }

    #[test]
    fn the_kernels_cases_hold() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/replay-counter.json")).unwrap();
        assert_eq!(file["window"], COUNTER_WINDOW_SIZE);
        let number = |step: &serde_json::Value, key: &str| -> Option<u64> {
            step[key].as_str().map(|digits| digits.parse().unwrap())
        };
        let mut counters = 0;
        for case in file["cases"].as_array().unwrap() {
            let mut window = ReplayWindow::new();
            for step in case["steps"].as_array().unwrap() {
                let expected = step["accept"].as_bool().unwrap();
                let (from, to) = match number(step, "counter") {
                    Some(counter) => (counter, counter),
                    None => (number(step, "from").unwrap(), number(step, "to").unwrap()),
                };
                let down = from > to;
                for nth in 0..=from.abs_diff(to) {
                    let counter = if down { from - nth } else { from + nth };
                    counters += 1;
                    // The opener refuses these before it decrypts.
                    let accepted =
                        counter < REJECT_AFTER_MESSAGES && accept(&mut window, counter).is_ok();
                    assert_eq!(accepted, expected, "{}: {counter}", case["name"]);
                }
            }
        }
        assert!(counters > 48_000, "{counters}");
    }

    #[test]
    fn trap_9_packets_8128_places_out_of_order_are_not_lost() {
        let mut window = ReplayWindow::new();
        for base in [0, 63, 64, 1 << 40] {
            assert_eq!(accept(&mut window, base + COUNTER_WINDOW_SIZE), Ok(()));
            assert_eq!(accept(&mut window, base), Ok(()), "a window of 1024 loses it");
            assert_eq!(accept(&mut window, base), Err(DropReason::CounterReplayed));
            if let Some(behind) = base.checked_sub(1) {
                assert_eq!(accept(&mut window, behind), Err(DropReason::CounterTooOld));
            }
        }
    }

    #[test]
    fn trap_14_counters_are_64_bits_wide() {
        let mut window = ReplayWindow::new();
        for counter in [0, 1 << 32, (1 << 32) + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(accept(&mut window, counter), Ok(()));
            assert_eq!(accept(&mut window, counter), Err(DropReason::CounterReplayed));
        }
        assert_eq!(accept(&mut window, 1 << 32), Err(DropReason::CounterTooOld));
    }

    /// The same promises, kept by remembering everything.
    #[derive(Default)]
    struct Set(BTreeSet<u64>);

    impl Set {
        fn accept(&mut self, counter: u64) -> Result<(), DropReason> {
            let greatest = self.0.last().copied().unwrap_or(0);
            if counter.saturating_add(COUNTER_WINDOW_SIZE) < greatest {
                Err(DropReason::CounterTooOld)
            } else if self.0.insert(counter) {
                Ok(())
            } else {
                Err(DropReason::CounterReplayed)
            }
        }
    }

    /// Steps from the last counter: mostly small, some about a word, a window, or a ring long.
    fn any_step() -> impl Strategy<Value = i64> {
        let window = COUNTER_WINDOW_SIZE.cast_signed();
        prop_oneof![
            6 => -3..4_i64,
            3 => -70..71_i64,
            2 => window - 66..window + 200,
            2 => -window - 66..-window + 66,
            1 => -20_000..20_000_i64,
            1 => any::<i64>(),
        ]
    }

    proptest! {
        #[test]
        fn any_arrivals_are_judged_as_by_a_set_of_all_counters(
            start in prop_oneof![Just(0), 0..20_000_u64, any::<u64>()],
            steps in prop::collection::vec(any_step(), 1..400),
        ) {
            let mut window = ReplayWindow::new();
            let mut set = Set::default();
            let mut counter = start;
            for step in steps {
                prop_assert_eq!(accept(&mut window, counter), set.accept(counter), "{}", counter);
                counter = counter.saturating_add_signed(step);
            }
        }
    }
}
