//! What the SACK option of an acknowledgment says, as far as it makes sense. [RFC 2018] [RFC 2883 §4]

use std::ops::Range;

use super::Incoming;
use crate::flow::tcp::options::SackBlocks;
use crate::flow::tcp::sequence::extend;

/// The blocks of an acknowledgment that make sense.
#[derive(Debug)]
pub struct Blocks {
    blocks: [Range<u64>; SackBlocks::MAX],
    count: usize,
    /// What has arrived twice. [RFC 2883 §4]
    pub duplicate: Option<Range<u64>>,
}

impl Blocks {
    pub fn read(incoming: &Incoming<'_>, nxt: u64, max_window: u64) -> Self {
        let mut read = Self { blocks: std::array::from_fn(|_| 0..0), count: 0, duplicate: None };
        let acknowledgment = incoming.acknowledgment;
        let mut ranges = incoming
            .sack
            .as_slice()
            .iter()
            .map(|&(start, end)| extend(acknowledgment, start)..extend(acknowledgment, end));
        let second = ranges.clone().nth(1);
        if let Some(first) = ranges.clone().next().filter(|range| range.start < range.end) {
            let is_old = first.end <= acknowledgment
                && first.start >= acknowledgment.saturating_sub(max_window);
            let is_inside =
                second.is_some_and(|second| second.start <= first.start && first.end <= second.end);
            if is_old || (is_inside && first.end <= nxt) {
                read.duplicate = Some(first);
                ranges.next();
            }
        }
        for range in ranges {
            if acknowledgment < range.start && range.start < range.end && range.end <= nxt {
                read.blocks[read.count] = range;
                read.count += 1;
            }
        }
        read
    }

    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.blocks[..self.count]
    }
}
