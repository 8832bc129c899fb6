//! The queues of an IP port, and which of them is read next.
//!
//! Where each flow has a queue, whoever has little to say waits for what is just being sent, and not
//! behind all that others have ready: fair queueing, by the rounds and the list of new flows of
//! FQ-CoDel. [RFC 8290 §4]

use crate::packet::batch::IpBatch;

/// Most queues of a port.
pub const MAX_QUEUES: usize = 32;

/// Some of a port's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues(u32);

impl Queues {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(u32::MAX);

    /// The first `count` ones.
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn insert(&mut self, queue: usize) {
        self.0 |= 1 << (queue % MAX_QUEUES);
    }

    pub const fn remove(&mut self, queue: usize) {
        self.0 &= !(1 << (queue % MAX_QUEUES));
    }

    pub const fn contains(self, queue: usize) -> bool {
        self.0 >> (queue % MAX_QUEUES) & 1 == 1
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in one of the two only.
    #[must_use]
    pub const fn differing(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (first < u32::BITS).then_some(first as usize)
        })
    }
}

impl FromIterator<usize> for Queues {
    fn from_iter<T: IntoIterator<Item = usize>>(queues: T) -> Self {
        queues.into_iter().fold(Self::NONE, |mut some, queue| {
            some.insert(queue);
            some
        })
    }
}

/// Which queue is read next: one after the other, but first those that have had nothing for a round.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Have been read since the round last came by them.
    known: Queues,
    /// Where the round goes on.
    next: usize,
}

impl Rounds {
    /// Fills `batch` with packets of the `ready` queues, each of which may read `quantum` bytes before it
    /// is another's turn, or more with the last packet; and leaves in the batch which were not found
    /// empty. `read` reads one packet of a queue, and says whether there was one.
    ///
    /// # Errors
    /// The first of `read`'s, unless packets were read before: they are still to be sent, and the next
    /// call fails again.
    pub fn fill<E>(
        &mut self,
        batch: &mut IpBatch,
        ready: Queues,
        quantum: usize,
        mut read: impl FnMut(usize, &mut IpBatch) -> Result<bool, E>,
    ) -> Result<usize, E> {
        let before = batch.count();
        let mut left = ready;
        while !batch.is_full()
            && let Some(queue) = self.next(left)
        {
            batch.turn_to(queue);
            let mut others = left;
            others.remove(queue);
            let enough = if others.is_empty() { usize::MAX } else { batch.bytes() + quantum };
            while !batch.is_full() && batch.bytes() < enough {
                match read(queue, batch) {
                    Ok(true) => {}
                    Ok(false) => {
                        left = others;
                        break;
                    }
                    Err(_) if batch.count() > before => return Ok(batch.count() - before),
                    Err(error) => return Err(error),
                }
            }
        }
        batch.leave(left);
        Ok(batch.count() - before)
    }

    /// The next of the `ready` ones.
    fn next(&mut self, ready: Queues) -> Option<usize> {
        let fresh = Queues(ready.0 & !self.known.0);
        if let Some(queue) = fresh.iter().next() {
            self.known.insert(queue);
            return Some(queue);
        }
        if ready.is_empty() {
            return None;
        }
        // Whoever has nothing when the round comes by is new when it has something again.
        while !ready.contains(self.next) {
            self.known.remove(self.next);
            self.next = (self.next + 1) % MAX_QUEUES;
        }
        let queue = self.next;
        self.next = (queue + 1) % MAX_QUEUES;
        Some(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::wire::vnet::VnetHeader;

    const QUANTUM: usize = 1000;

    /// Queues of packets of so many bytes, and how often each was asked.
    struct Waiting {
        queues: [VecDeque<usize>; MAX_QUEUES],
        asked: [usize; MAX_QUEUES],
        rounds: Rounds,
    }

    impl Waiting {
        fn new(queues: &[(usize, &[usize])]) -> Self {
            let mut waiting = Self {
                queues: std::array::from_fn(|_| VecDeque::new()),
                asked: [0; MAX_QUEUES],
                rounds: Rounds::default(),
            };
            for (queue, packets) in queues {
                waiting.queues[*queue].extend(*packets);
            }
            waiting
        }

        /// Queues and bytes of what the next batch has, and the queues that are left.
        fn next(&mut self, batch: &mut IpBatch) -> (Vec<(usize, usize)>, Vec<usize>) {
            let some = (0..MAX_QUEUES).filter(|queue| !self.queues[*queue].is_empty());
            let ready = some.collect();
            batch.clear();
            let (queues, asked) = (&mut self.queues, &mut self.asked);
            let count = self.rounds.fill(batch, ready, QUANTUM, |queue, batch| {
                asked[queue] += 1;
                let Some(len) = queues[queue].pop_front() else { return Ok::<_, ()>(false) };
                batch.push(len, Ok(VnetHeader::default()));
                Ok(true)
            });
            assert_eq!(count, Ok(batch.count()));
            let positions = 0..batch.count();
            let packet = |position| (batch.queue(position), batch.packet(position).0.len());
            (positions.map(packet).collect(), batch.left().iter().collect())
        }
    }

    fn batch() -> IpBatch {
        IpBatch::with_capacity(4, 2 * QUANTUM)
    }

    #[test]
    fn flows_with_much_to_say_have_their_turns_and_a_batch_goes_on_where_the_last_ended() {
        let bulk = [QUANTUM; 5];
        let mut waiting = Waiting::new(&[(3, &bulk), (7, &bulk), (31, &bulk)]);
        let batch = &mut batch();
        let turns: Vec<Vec<_>> = (0..7)
            .map(|_| waiting.next(batch).0.into_iter().map(|(queue, _)| queue).collect())
            .collect();
        let expected: [&[usize]; 7] =
            [&[3, 7], &[31, 3], &[7, 31], &[3, 7], &[31, 3], &[7, 31], &[3, 7]];
        assert_eq!(turns, expected);
        assert_eq!(waiting.next(batch).0, [(31, QUANTUM)]);
    }

    #[test]
    fn whoever_has_had_nothing_for_a_round_is_read_first() {
        let mut waiting = Waiting::new(&[(3, &[QUANTUM; 20]), (7, &[QUANTUM; 20])]);
        let batch = &mut batch();
        waiting.next(batch);
        for _ in 0..5 {
            waiting.queues[5].push_back(80);
            assert_eq!(waiting.next(batch).0[0], (5, 80));
            waiting.next(batch);
        }
    }

    #[test]
    fn whoever_empties_his_queue_each_time_does_not_keep_others_from_their_turn() {
        let mut waiting = Waiting::new(&[(30, &[QUANTUM; 99])]);
        let batch = &mut batch();
        let mut turns = [0; MAX_QUEUES];
        for _ in 0..30 {
            waiting.queues[1].push_back(QUANTUM);
            waiting.queues[2].push_back(QUANTUM);
            for (queue, _) in waiting.next(batch).0 {
                turns[queue] += 1;
            }
        }
        assert_eq!([turns[1], turns[2], turns[30]], [20; 3]);
    }

    #[test]
    fn small_packets_have_as_many_bytes_a_turn_as_large_ones_and_keep_their_order() {
        let mut waiting =
            Waiting::new(&[(0, &[2 * QUANTUM; 9]), (1, &[301, 302, 303, 304, 305, 306])]);
        let batch = &mut IpBatch::with_capacity(9, 4 * QUANTUM);
        let (packets, left) = waiting.next(batch);
        let small = [301, 302, 303, 304].map(|len| (1, len));
        assert_eq!(packets, [&[(0, 2 * QUANTUM)][..], &small, &[(0, 2 * QUANTUM)]].concat());
        assert_eq!(left, [0, 1]);
        let (packets, left) = waiting.next(batch);
        assert_eq!(packets[..2], [(1, 305), (1, 306)]);
        assert_eq!(left, [0], "the other was found empty");
    }

    #[test]
    fn a_lone_queue_is_read_until_the_batch_is_full_or_it_is_empty() {
        let mut waiting = Waiting::new(&[(5, &[700; 4])]);
        let batch = &mut batch();
        assert_eq!(waiting.next(batch), (vec![(5, 700); 3], vec![5]));
        assert_eq!(waiting.asked[5], 3);
        assert_eq!(waiting.next(batch), (vec![(5, 700)], vec![]));
        assert_eq!(waiting.asked[5], 5);
        assert_eq!(waiting.asked.iter().sum::<usize>(), 5, "nobody else was asked");
    }

    #[test]
    fn an_error_counts_when_nothing_was_read_before_it() {
        let mut rounds = Rounds::default();
        let batch = &mut batch();
        let mut packets = [80].into_iter();
        let mut fill = || {
            batch.clear();
            rounds.fill(batch, Queues::first(2), QUANTUM, |_, batch| {
                let len = packets.next().ok_or("gone")?;
                batch.push(len, Ok(VnetHeader::default()));
                Ok(true)
            })
        };
        assert_eq!([fill(), fill()], [Ok(1), Err("gone")]);
    }
}
