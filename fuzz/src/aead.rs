//! Messages that are sealed and opened several at once.

use hybridwg::crypto::aead::{AeadKey, TAG_BYTES};
use hybridwg::crypto::batch::{Kernel, Message};
use hybridwg::crypto::key::SymmetricKey;

use super::Choices;

/// Any batch, with and without the kernel of this processor: both seal alike, what was sealed opens to
/// what it was, and of what was damaged nothing is left, nor is anything else.
pub fn aead(data: &[u8]) {
    let mut choices = Choices(data);
    let key = AeadKey::new(&SymmetricKey::from_bytes(choices.bytes()));
    let first = u64::from_le_bytes(choices.bytes());
    let kernel = Kernel::find().expect("the kernel works if there is one");
    let count = 1 + usize::from(choices.byte() % 64);
    let lengths: Vec<usize> =
        (0..count).map(|_| usize::from(u16::from_le_bytes(choices.bytes())) % 1601).collect();
    let fill = choices.byte();
    let plain: Vec<Vec<u8>> = lengths
        .iter()
        .map(|&length| {
            let mut text = vec![fill; length + TAG_BYTES];
            let front = length.min(choices.0.len());
            text[..front].copy_from_slice(&choices.0[..front]);
            choices.0 = &choices.0[front..];
            text
        })
        .collect();
    let mut sealed = plain.clone();
    key.seal_batch(kernel, &mut batch(&mut sealed, first));
    let mut alone = plain.clone();
    key.seal_batch(None, &mut batch(&mut alone, first));
    assert!(sealed == alone, "sealed otherwise than by the library: {lengths:?}");

    let damaged = usize::from(fill) % count;
    let place = first as usize % sealed[damaged].len();
    sealed[damaged][place] ^= fill | 1;
    let mut messages = batch(&mut sealed, first);
    key.open_batch(kernel, &mut messages);
    let authentic: Vec<bool> = messages.iter().map(Message::is_authentic).collect();
    for (at, (found, plain)) in sealed.iter().zip(&plain).enumerate() {
        assert_eq!(authentic[at], at != damaged, "message {at} of {lengths:?}");
        if at == damaged {
            assert!(found.iter().all(|&byte| byte == 0), "something is left of message {at}");
        } else {
            assert!(found[..lengths[at]] == plain[..lengths[at]], "message {at} of {lengths:?}");
        }
    }
}

fn batch(texts: &mut [Vec<u8>], first: u64) -> Vec<Message<'_>> {
    let numbered = texts.iter_mut().zip(0..);
    numbered.map(|(text, n)| Message::with_counter(first.wrapping_add(n), text)).collect()
}
