use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::crypto::aead::AeadKey;

/// The kernel to test; there is nothing to be tested on a processor without one.
fn kernel() -> Option<Kernel> {
    let kernel = Kernel::find().unwrap();
    if kernel.is_none() {
        println!("skipped: this processor has no kernel");
    }
    kernel
}

const KEY: SymmetricKey = SymmetricKey::from_bytes([0xa7; 32]);

/// Bytes that differ from message to message.
fn text(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ seed.wrapping_mul(97) ^ (at >> 3)) as u8).collect()
}

/// Messages to seal, of these lengths.
fn plain(lengths: &[usize]) -> Vec<Vec<u8>> {
    let numbered = lengths.iter().enumerate();
    let mut plain: Vec<_> = numbered.map(|(seed, &length)| text(length, seed)).collect();
    plain.iter_mut().for_each(|text| text.resize(text.len() + TAG_BYTES, 0));
    plain
}

fn messages(texts: &mut [Vec<u8>], first: u64) -> Vec<Message<'_>> {
    let numbered = texts.iter_mut().zip(0..);
    numbered.map(|(text, n)| Message::with_counter(first.wrapping_add(n), text)).collect()
}

/// Seals as the library does, opens again, and with one message forged, at `forged`.
#[track_caller]
fn agrees(kernel: Kernel, key: &SymmetricKey, lengths: &[usize], first: u64, forged: usize) {
    let plain = plain(lengths);
    let (mut found, mut expected) = (plain.clone(), plain.clone());
    AeadKey::new(key).seal_batch(None, &mut messages(&mut expected, first));
    kernel.seal(key, &mut messages(&mut found, first));
    assert!(found == expected, "{lengths:?}");

    let (forged, mut mixed) = (forged % lengths.len(), found.clone());
    let bit = first as usize % (8 * mixed[forged].len());
    mixed[forged][bit / 8] ^= 1 << (bit % 8);
    let mut opened = messages(&mut mixed, first);
    kernel.open(key, &mut opened);
    let authentic: Vec<_> = opened.iter().map(Message::is_authentic).collect();
    for (at, (found, plain)) in mixed.iter().zip(&plain).enumerate() {
        assert_eq!(authentic[at], at != forged, "message {at} of {lengths:?}");
        if at == forged {
            assert!(found.iter().all(|&byte| byte == 0), "{at} of {lengths:?}");
        } else {
            let text = ..lengths[at];
            assert!(found[text] == plain[text], "{at} of {lengths:?}");
        }
    }
}

#[test]
fn every_length_is_sealed_and_opened_as_by_the_library() {
    let Some(kernel) = kernel() else { return };
    for length in 0..=1600 {
        let count = 1 + length % (LANES + 1);
        agrees(kernel, &KEY, &vec![length; count], length as u64, length);
    }
}

#[test]
fn batches_of_every_size_are_sealed_and_opened_as_by_the_library() {
    let Some(kernel) = kernel() else { return };
    for count in 1..=64 {
        for length in [0, 16, 64, 79, 1420] {
            agrees(kernel, &KEY, &vec![length; count], u64::MAX - 3, count);
            // Only the last one is shorter, as in a train.
            let mut lengths = vec![length; count];
            lengths[count - 1] /= 2;
            agrees(kernel, &KEY, &lengths, 1 << 32, count / 2);
        }
    }
}

proptest! {
    #[test]
    fn batches_of_any_mixture_are_sealed_and_opened_as_by_the_library(
        key in any::<[u8; 32]>(),
        lengths in proptest::collection::vec(0_usize..=1600, 1..=64),
        first in any::<u64>(),
        forged in any::<usize>(),
    ) {
        if let Some(kernel) = kernel() {
            agrees(kernel, &SymmetricKey::from_bytes(key), &lengths, first, forged);
        }
    }
}

#[test]
fn a_message_of_64_kilobytes_is_sealed_as_by_the_library() {
    let Some(kernel) = kernel() else { return };
    agrees(kernel, &KEY, &[65_519, 0, 1, 65_519, 64], 7, 3);
}

/// Texts and keys whose sums touch every limb: all bits set, and none.
#[test]
fn carries_go_through_every_limb_as_in_the_library() {
    let Some(kernel) = kernel() else { return };
    for key in 0..200_u8 {
        let key = SymmetricKey::from_bytes([key; 32]);
        // Zeros and ones as ciphertext, which is what Poly1305 sees: opened, not sealed.
        for byte in [0, 0xff] {
            for length in [16, 32, 48, 64, 1440] {
                let mut texts = vec![vec![byte; length + TAG_BYTES]; LANES];
                let library = AeadKey::new(&key);
                // The tag of a ciphertext: seal what it decrypts to.
                for (text, counter) in texts.iter_mut().zip(0..) {
                    let mut stream = vec![0; length + TAG_BYTES];
                    library.seal_batch(None, &mut [Message::with_counter(counter, &mut stream)]);
                    let mut plain: Vec<u8> = stream[..length].iter().map(|b| b ^ byte).collect();
                    plain.resize(length + TAG_BYTES, 0);
                    library.seal_batch(None, &mut [Message::with_counter(counter, &mut plain)]);
                    assert!(plain[..length].iter().all(|&found| found == byte));
                    *text = plain;
                }
                let mut opened = messages(&mut texts, 0);
                kernel.open(&key, &mut opened);
                assert!(opened.iter().all(Message::is_authentic), "{length} times {byte}");
            }
        }
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// A published vector, in every lane of a batch and in one among others.
fn vector(kernel: Kernel, test: &Value, names: [&str; 3], is_valid: bool) {
    let [nonce, plain, ciphertext] = names.map(|name| bytes(&test[name]));
    let (aad, tag) = (bytes(&test["aad"]), bytes(&test["tag"]));
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().unwrap();
    let key = SymmetricKey::from_bytes(bytes(&test["key"]).try_into().unwrap());
    let sealed = [ciphertext, tag].concat();
    let mut texts = vec![sealed.clone(); LANES + 1];
    let of = |texts: &'_ mut [Vec<u8>], run: &dyn Fn(&mut [Message<'_>])| {
        let mut batch: Vec<_> =
            texts.iter_mut().map(|text| Message::new(nonce, &aad, text)).collect();
        run(&mut batch);
        batch.iter().map(Message::is_authentic).collect::<Vec<_>>()
    };
    let authentic = of(&mut texts, &|batch| kernel.open(&key, batch));
    assert_eq!(authentic, [is_valid; LANES + 1], "{test}");
    for text in &mut texts {
        if is_valid {
            assert_eq!(text[..plain.len()], plain, "{test}");
        } else {
            assert!(text.iter().all(|&byte| byte == 0), "{test}");
        }
        text[..plain.len()].copy_from_slice(&plain);
    }
    if is_valid {
        of(&mut texts, &|batch| kernel.seal(&key, batch));
        assert!(texts.iter().all(|text| *text == sealed), "{test}");
    }
}

#[test]
fn the_kernel_is_the_aead_of_rfc_8439() {
    let Some(kernel) = kernel() else { return };
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/data/rfc8439.json")).unwrap();
    let tests = file["aead"].as_array().unwrap();
    assert!(!tests.is_empty());
    for test in tests {
        vector(kernel, test, ["nonce", "plaintext", "ciphertext"], true);
    }
}

#[test]
fn the_kernel_agrees_with_wycheproof() {
    let Some(kernel) = kernel() else { return };
    let text = include_str!("../../../tests/data/wycheproof-chacha20_poly1305.json");
    let file: Value = serde_json::from_str(text).unwrap();
    let groups = file["testGroups"].as_array().unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in groups.iter().flat_map(|group| group["tests"].as_array().unwrap()) {
        if bytes(&test["iv"]).len() != NONCE_BYTES {
            continue;
        }
        let is_valid = test["result"] == "valid";
        *(if is_valid { &mut valid } else { &mut invalid }) += 1;
        vector(kernel, test, ["iv", "msg", "ct"], is_valid);
    }
    assert!(valid > 200 && invalid > 40, "{valid} {invalid}");
}

#[test]
fn a_message_without_room_for_its_tag_is_refused_as_a_mistake_of_the_caller() {
    let Some(kernel) = kernel() else { return };
    let mut short = vec![vec![0; TAG_BYTES - 1]];
    let refused = std::panic::catch_unwind(move || kernel.seal(&KEY, &mut messages(&mut short, 0)));
    assert!(refused.is_err());
}

#[test]
fn without_a_kernel_and_in_small_batches_the_library_does_the_same() {
    for kernel in [None, kernel()] {
        for count in 1..Kernel::WORTHWHILE + 1 {
            let aead = AeadKey::new(&KEY);
            let plain = plain(&vec![100; count]);
            let mut texts = plain.clone();
            aead.seal_batch(kernel, &mut messages(&mut texts, 4));
            for (text, counter) in texts.iter().zip(4..) {
                let mut opened = text.clone();
                assert_eq!(aead.open_in_place(counter, &[], &mut opened), Ok(100));
            }
            texts[0][99] ^= 4;
            let mut opened = messages(&mut texts, 4);
            aead.open_batch(kernel, &mut opened);
            let authentic: Vec<_> = opened.iter().map(Message::is_authentic).collect();
            assert_eq!(authentic, (0..count).map(|at| at > 0).collect::<Vec<_>>());
            assert!(texts[0].iter().all(|&byte| byte == 0));
            assert!(texts[1..].iter().zip(&plain[1..]).all(|(a, b)| a[..100] == b[..100]));
        }
    }
}
