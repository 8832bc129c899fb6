//! Options of a TCP header, read and written. [RFC 9293 §3.1] [RFC 7323] [RFC 2018] [RFC 2883]
//!
//! What a peer sends is read as far as it makes sense: an option that reaches beyond the header, or
//! says that it is shorter than itself, ends the reading, and what stood before it counts. Unknown
//! ones are skipped. Allocates nothing and must not panic on any input.

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// A header of 60 bytes has so many of them.
pub const MAX_OPTIONS_BYTES: usize = 40;

/// Of the timestamps, aligned as everybody sends them. [RFC 7323 appendix A]
pub const TIMESTAMPS_BYTES: usize = 12;

/// More shift than this would make windows larger than sequence numbers can tell apart.
/// [RFC 7323 §2.3]
pub const MAX_WINDOW_SCALE: u8 = 14;

/// When a segment was sent, by the clock of its sender, and what it last heard of the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    pub value: u32,
    /// Means something with ACK only.
    pub echo: u32,
}

/// Ranges that have arrived, `start..end` each, as far as a header holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [(u32, u32); Self::MAX],
    count: u8,
}

impl SackBlocks {
    pub const MAX: usize = 4;

    /// Adds a block, unless there are [`MAX`](Self::MAX) already.
    pub fn push(&mut self, start: u32, end: u32) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.count)) {
            *slot = (start, end);
            self.count += 1;
        }
    }

    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.count)]
    }
}

/// What the options of a segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// In a SYN: the largest payload to send, in bytes.
    pub mss: Option<u16>,
    /// In a SYN: the shift of the windows that its sender announces; at most [`MAX_WINDOW_SCALE`].
    pub window_scale: Option<u8>,
    /// In a SYN: [`Self::sack`] is understood.
    pub sack_permitted: bool,
    pub timestamps: Option<Timestamps>,
    pub sack: SackBlocks,
}

impl Options {
    /// Reads the bytes between the fixed header and the payload.
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            match *bytes {
                [] | [END, ..] => return options,
                [NO_OPERATION, ref rest @ ..] => bytes = rest,
                [kind, length, ref rest @ ..] => {
                    let body = usize::from(length).checked_sub(2);
                    let Some((body, rest)) = body.and_then(|body| rest.split_at_checked(body))
                    else {
                        return options;
                    };
                    options.take(kind, body);
                    bytes = rest;
                }
                [_] => return options,
            }
        }
    }

    /// One option of a known kind and the right length; others say nothing.
    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (MSS, &[high, low]) => self.mss = Some(u16::from_be_bytes([high, low])),
            (WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                self.timestamps = Some(Timestamps {
                    value: u32::from_be_bytes([a, b, c, d]),
                    echo: u32::from_be_bytes([e, f, g, h]),
                });
            }
            (SACK, body) => {
                self.sack = SackBlocks::default();
                for &[a, b, c, d, e, f, g, h] in body.as_chunks::<8>().0 {
                    let [start, end] = [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes);
                    self.sack.push(start, end);
                }
            }
            _ => {}
        }
    }

    /// Writes them, each aligned, and returns how many bytes they are: a multiple of four. Of the
    /// blocks as many as fit.
    pub fn write(&self, out: &mut [u8; MAX_OPTIONS_BYTES]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[MSS, 4, high, low]);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            put(if self.sack_permitted { &[SACK_PERMITTED, 2] } else { &[NO_OPERATION; 2] });
            put(&[TIMESTAMPS, 10]);
            put(&value.to_be_bytes());
            put(&echo.to_be_bytes());
        } else if self.sack_permitted {
            put(&[NO_OPERATION, NO_OPERATION, SACK_PERMITTED, 2]);
        }
        if let Some(shift) = self.window_scale {
            put(&[NO_OPERATION, WINDOW_SCALE, 3, shift]);
        }
        let room = if self.timestamps.is_some() { Self::SACK_BLOCKS } else { SackBlocks::MAX };
        let blocks = self.sack.as_slice();
        let blocks = &blocks[..blocks.len().min(room)];
        if !blocks.is_empty() {
            put(&[NO_OPERATION, NO_OPERATION, SACK, 2 + 8 * blocks.len() as u8]);
            for (start, end) in blocks {
                put(&start.to_be_bytes());
                put(&end.to_be_bytes());
            }
        }
        at
    }

    /// Blocks that fit beside timestamps.
    const SACK_BLOCKS: usize = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(options: &Options) -> Vec<u8> {
        let mut out = [0xee; MAX_OPTIONS_BYTES];
        let length = options.write(&mut out);
        out[..length].to_vec()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let syn = Options {
            mss: Some(1320),
            window_scale: Some(8),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 0x0102_0304, echo: 7 }),
            sack: SackBlocks::default(),
        };
        assert_eq!(written(&syn).len(), 20);
        let mut sack = SackBlocks::default();
        (0..3).for_each(|n| sack.push(n * 10, n * 10 + 5));
        let ack = Options { timestamps: syn.timestamps, sack, ..Options::default() };
        assert_eq!(written(&ack).len(), 40);
        let bare = Options { sack_permitted: true, mss: Some(536), ..Options::default() };
        assert_eq!(written(&bare).len(), 8);
        for options in [syn, ack, bare, Options::default()] {
            assert_eq!(Options::parse(&written(&options)), options);
        }
    }

    #[test]
    fn four_blocks_fit_without_timestamps_and_three_beside_them() {
        let mut sack = SackBlocks::default();
        (0..6).for_each(|n| sack.push(n, n + 1));
        let mut options = Options { sack, ..Options::default() };
        assert_eq!(Options::parse(&written(&options)).sack.as_slice().len(), 4);
        options.timestamps = Some(Timestamps { value: 1, echo: 2 });
        assert_eq!(Options::parse(&written(&options)).sack.as_slice().len(), 3);
    }

    #[test]
    fn what_contradicts_itself_ends_the_reading_and_keeps_what_stood_before() {
        let mss = [MSS, 4, 5, 0x28];
        for tail in [&[9_u8][..], &[9, 0], &[9, 1, 9], &[SACK, 10, 0, 0], &[TIMESTAMPS, 255]] {
            let bytes = [&mss[..], tail, &mss[..]].concat();
            let read = Options::parse(&bytes[..4 + tail.len()]);
            assert_eq!(read, Options { mss: Some(1320), ..Options::default() }, "{tail:?}");
        }
        let cut = [WINDOW_SCALE, 4, 9, 9, MSS, 3, 1, TIMESTAMPS, 2];
        assert_eq!(Options::parse(&cut), Options::default(), "wrong lengths say nothing");
        assert_eq!(Options::parse(&[END, MSS, 4, 5, 0x28]), Options::default());
        assert_eq!(Options::parse(&[WINDOW_SCALE, 3, 200]).window_scale, Some(14));
        assert_eq!(Options::parse(&[254, 4, 1, 2, MSS, 4, 5, 0x28]).mss, Some(1320), "unknown");
    }
}
