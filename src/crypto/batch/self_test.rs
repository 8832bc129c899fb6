//! Whether a kernel and the library agree, on the processor that is to be trusted with packets.
//!
//! A few dozen messages are enough: the kernel has no branch that depends on what is computed, so
//! that lengths and their mixtures are all there is to vary.

use super::{Kernel, LANES, Message};
use crate::crypto::aead::{AeadKey, TAG_BYTES};
use crate::crypto::key::{KEY_BYTES, SymmetricKey};

/// Bytes of the longest message: blocks of several batches of lanes, and part of one.
const LONGEST: usize = 1437;

/// Whether `kernel` seals, opens and refuses as the library does.
pub(super) fn passes(kernel: Kernel) -> bool {
    let key =
        SymmetricKey::from_bytes(std::array::from_fn::<u8, KEY_BYTES, _>(|at| (at * 37) as u8));
    // One and two octets of lanes, and all; lengths at the edges of blocks.
    [(1, 0), (7, 64), (9, 1), (LANES, LONGEST)]
        .into_iter()
        .all(|(count, length)| agrees(kernel, &key, count, length))
}

/// The same for `count` messages of at most `length` bytes.
fn agrees(kernel: Kernel, key: &SymmetricKey, count: usize, length: usize) -> bool {
    let library = AeadKey::new(key);
    let lengths = (0..count).map(|at| length.saturating_sub(at * 13));
    let plain: Vec<Vec<u8>> = lengths.map(|length| text(length + TAG_BYTES)).collect();
    let mut found = plain.clone();
    let mut expected = plain.clone();
    let mut messages = batch(&mut found);
    kernel.seal(key, &mut messages);
    let mut alone = batch(&mut expected);
    library.seal_batch(None, &mut alone);
    if found != expected {
        return false;
    }
    // The last one is forged.
    if let Some(last) = found.last_mut() {
        last[0] ^= 1;
    }
    let mut messages = batch(&mut found);
    kernel.open(key, &mut messages);
    let verdicts_are_right =
        messages.iter().enumerate().all(|(at, message)| message.is_authentic() == (at + 1 < count));
    let texts_are_right = found.iter().zip(&plain).enumerate().all(|(at, (found, plain))| {
        let text = ..plain.len() - TAG_BYTES;
        if at + 1 < count { found[text] == plain[text] } else { found.iter().all(|&b| b == 0) }
    });
    verdicts_are_right && texts_are_right
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + length) as u8).collect()
}

fn batch(texts: &mut [Vec<u8>]) -> Vec<Message<'_>> {
    let numbered = texts.iter_mut().zip(0..);
    numbered.map(|(text, counter)| Message::with_counter(counter << 29, text)).collect()
}
