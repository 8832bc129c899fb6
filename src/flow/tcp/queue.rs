//! Bytes of a stream, from one position to another, in pieces that come and go with what they hold:
//! an empty queue has no memory.

use std::collections::VecDeque;

/// Bytes of a piece that is not small.
const CHUNK_BYTES: usize = 16 << 10;

/// Bytes of the smallest piece: room for those that come in drops.
const SMALLEST_CHUNK_BYTES: usize = 1 << 10;

/// A part of the stream.
#[derive(Debug)]
struct Chunk {
    start: u64,
    /// Never moved by growing.
    bytes: Piece,
}

/// What users say to each other: shown as how much it is.
pub struct Piece(pub Vec<u8>);

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The bytes of a stream between [`start`](Self::start) and [`end`](Self::end).
#[derive(Debug)]
pub struct Queue {
    /// In order and without gaps; none is empty.
    chunks: VecDeque<Chunk>,
    start: u64,
    end: u64,
    /// What the chunks have allocated, in bytes.
    held: usize,
}

impl Queue {
    pub const fn new(start: u64) -> Self {
        Self { chunks: VecDeque::new(), start, end: start, held: 0 }
    }

    pub const fn start(&self) -> u64 {
        self.start
    }

    pub const fn end(&self) -> u64 {
        self.end
    }

    pub const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Memory that it holds, in bytes.
    pub const fn held_bytes(&self) -> usize {
        self.held
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let last = self.chunks.back_mut();
            if let Some(last) = last.filter(|last| last.bytes.0.len() < last.bytes.0.capacity()) {
                let room = last.bytes.0.capacity() - last.bytes.0.len();
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                last.bytes.0.extend_from_slice(now);
                self.end += now.len() as u64;
                bytes = later;
            } else {
                let size = bytes.len().clamp(SMALLEST_CHUNK_BYTES, CHUNK_BYTES);
                self.append(Vec::with_capacity(size));
            }
        }
    }

    /// Appends `bytes` without a copy.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.append(bytes);
        }
    }

    fn append(&mut self, bytes: Vec<u8>) {
        let start = self.end;
        self.end += bytes.len() as u64;
        self.held += bytes.capacity();
        self.chunks.push_back(Chunk { start, bytes: Piece(bytes) });
    }

    /// Forgets what is before `position`, which is not behind the end.
    pub fn advance(&mut self, position: u64) {
        let position = position.clamp(self.start, self.end);
        while let Some(first) = self.chunks.front() {
            if first.start + first.bytes.0.len() as u64 > position {
                break;
            }
            self.held -= first.bytes.0.capacity();
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
        self.start = position;
    }

    /// The bytes from `position` on, in order.
    pub fn slices(&self, position: u64) -> impl Iterator<Item = &[u8]> {
        let position = position.clamp(self.start, self.end);
        let first = self.chunks.partition_point(|chunk| chunk.start <= position).saturating_sub(1);
        self.chunks.range(first.min(self.chunks.len())..).filter_map(move |chunk| {
            let skipped = position.saturating_sub(chunk.start) as usize;
            chunk.bytes.0.get(skipped..).filter(|slice| !slice.is_empty())
        })
    }

    /// Copies the bytes from `position` on to `out` as far as there are any, and tells how many.
    pub fn copy(&self, position: u64, mut out: &mut [u8]) -> usize {
        let mut copied = 0;
        for slice in self.slices(position) {
            let count = slice.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&slice[..count]);
            copied += count;
            out = later;
            if out.is_empty() {
                break;
            }
        }
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_read_as_it_was_written_and_memory_goes_with_the_bytes() {
        let mut queue = Queue::new(1000);
        let mut all = Vec::new();
        for n in 0..400_usize {
            let piece: Vec<u8> = (0..n * 7 % 900 + 1).map(|byte| (byte + n) as u8).collect();
            if n.is_multiple_of(3) {
                queue.push_owned(piece.clone())
            } else {
                queue.push(&piece)
            }
            all.extend_from_slice(&piece);
        }
        assert_eq!(queue.len(), all.len());
        for at in (0..all.len()).step_by(977) {
            let mut out = vec![0; 5000];
            let copied = queue.copy(1000 + at as u64, &mut out);
            assert_eq!(out[..copied], all[at..all.len().min(at + 5000)]);
        }
        for at in (0..all.len()).step_by(3001) {
            queue.advance(1000 + at as u64);
            let rest: Vec<u8> = queue.slices(queue.start()).flatten().copied().collect();
            assert_eq!(rest, all[at..]);
        }
        queue.advance(queue.end());
        assert_eq!((queue.len(), queue.held_bytes(), queue.chunks.capacity()), (0, 0, 0));
        assert_eq!(queue.slices(0).count(), 0);
    }
}
