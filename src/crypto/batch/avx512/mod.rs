//! Sixteen messages of one key in sixteen lanes. [RFC 8439 §2.8]
//!
//! ChaCha20 with a lane for each block, of whichever message, and Poly1305 with a lane for each message,
//! after the blocks that its key is made of. Sealing ends with the tags; opening begins with them.

mod chacha20;
mod memory;
mod poly1305;

use core::arch::x86_64::__m512i;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use self::chacha20::{Key, Places, Stream};
use self::memory::xor_front;
use self::poly1305::OCTET;
use super::{LANES, Message};
use crate::crypto::aead::TAG_BYTES;
use crate::crypto::key::KEY_BYTES;

/// Seals at most [`LANES`] messages.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
pub(super) fn seal(key: &[u8; KEY_BYTES], messages: &mut [Message<'_>]) {
    let key = Key::new(key);
    encrypt(&key, messages.iter_mut());
    let tags = tags(&key, messages);
    for (message, tag) in messages.iter_mut().zip(tags) {
        *message.split().1 = tag;
        message.is_authentic = true;
    }
}

/// Opens at most [`LANES`] messages. Encryption twice is none.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma,avx512vbmi2")]
pub(super) fn open(key: &[u8; KEY_BYTES], messages: &mut [Message<'_>]) {
    let key = Key::new(key);
    let mut tags = tags(&key, messages);
    for (message, tag) in messages.iter_mut().zip(&tags) {
        // Whether it is authentic is what everybody is about to see; the tag is not.
        message.is_authentic =
            bool::from(halves(tag).as_slice().ct_eq(halves(message.split().1).as_slice()));
        if !message.is_authentic {
            message.in_out.zeroize();
        }
    }
    tags.zeroize();
    encrypt(&key, messages.iter_mut().filter(|message| message.is_authentic));
}

/// A tag in two words, which are compared sooner than sixteen bytes.
fn halves(tag: &[u8; TAG_BYTES]) -> [u64; 2] {
    let tag = u128::from_le_bytes(*tag);
    [tag as u64, (tag >> 64) as u64]
}

/// Combines the messages with their key streams, from the second block of each on. Sixteen blocks
/// are made at once, of as many messages as they belong to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn encrypt<'m, 'd: 'm>(key: &Key, messages: impl Iterator<Item = &'m mut Message<'d>>) {
    let mut stream = Stream::new();
    let mut places = Places::new();
    let mut blocks: [&mut [u8]; LANES] = Default::default();
    let mut lane = 0;
    for message in messages {
        let nonce = message.nonce;
        let (text, _) = message.split();
        for (block, counter) in text.chunks_mut(chacha20::BLOCK_BYTES).zip(1..) {
            if lane == 0 || counter == 1 {
                places.assign(lane, &nonce, counter);
            }
            blocks[lane] = block;
            lane += 1;
            if lane == LANES {
                chacha20::make(key, &places, &mut stream);
                combine(&mut blocks, &stream);
                lane = 0;
            }
        }
    }
    if lane > 0 {
        chacha20::make(key, &places, &mut stream);
        combine(&mut blocks[..lane], &stream);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn combine(blocks: &mut [&mut [u8]], stream: &Stream) {
    for (block, stream) in blocks.iter_mut().zip(stream.blocks()) {
        xor_front(block, *stream);
    }
}

/// The tags that the messages should have, in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
fn tags(key: &Key, messages: &[Message<'_>]) -> [[u8; TAG_BYTES]; LANES] {
    // The key of a tag is the first half of the first block. [RFC 8439 §2.6]
    let mut places = Places::new();
    for (lane, message) in messages.iter().enumerate() {
        places.assign(lane, &message.nonce, 0);
    }
    let mut rows = chacha20::words(key, &places);
    let [r, s, ..] = &rows;
    let mut tags = [[0; TAG_BYTES]; LANES];
    if messages.len() <= OCTET {
        tags_of_octets::<1>(messages, r, s, &mut tags);
    } else {
        tags_of_octets::<2>(messages, r, s, &mut tags);
    }
    rows.zeroize();
    tags
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
fn tags_of_octets<const OCTETS: usize>(
    messages: &[Message<'_>],
    r: &[__m512i; 4],
    s: &[__m512i; 4],
    tags: &mut [[u8; TAG_BYTES]; LANES],
) {
    let mut lengths = [[0; TAG_BYTES]; LANES];
    let mut aads: [[&[u8]; OCTET]; OCTETS] = [[&[]; OCTET]; OCTETS];
    let mut texts = aads;
    let mut ends = aads;
    let parts = aads.as_flattened_mut().iter_mut().zip(texts.as_flattened_mut());
    let parts = parts.zip(ends.as_flattened_mut()).zip(&mut lengths).enumerate();
    for (lane, (((aad, text), end), length)) in parts {
        // A lane without a message does again what the last one does, and is not asked.
        let Some(message) = messages.get(lane).or(messages.last()) else { return };
        (*aad, *text) = (message.aad, message.text());
        length[..8].copy_from_slice(&(aad.len() as u64).to_le_bytes());
        length[8..].copy_from_slice(&(text.len() as u64).to_le_bytes());
        *end = length;
    }
    let mut octets = poly1305::empty::<OCTETS>();
    poly1305::begin(&mut octets, r, s);
    for part in [aads, texts, ends] {
        poly1305::absorb(&mut octets, &part);
    }
    let (tags, _) = tags.as_chunks_mut::<OCTET>();
    for (tags, octet) in tags.iter_mut().zip(&octets) {
        *tags = octet.finish();
    }
}
