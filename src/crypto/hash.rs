//! BLAKE2s as WireGuard uses it: hash, keyed MAC, HMAC and the key derivation. [WG §5.4] [RFC 7693]
//!
//! Inputs come in parts, so that nobody concatenates secrets in a buffer of his own. Everything
//! derived from a key is wiped here; the outputs are the caller's to wipe.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use zeroize::Zeroizing;

/// Length of a hash, an HMAC and each output of the key derivation, in bytes.
pub const HASH_BYTES: usize = 32;

/// Length of a keyed MAC, in bytes.
pub const MAC_BYTES: usize = 16;

/// Block length of BLAKE2s, in bytes.
const BLOCK_BYTES: usize = 64;

/// An output of the key derivation, wiped on drop.
pub type Derived = Zeroizing<[u8; HASH_BYTES]>;

/// BLAKE2s-256 over the concatenation of `parts`.
pub fn hash(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut state = Blake2s256::default();
    for part in parts {
        state.update(part);
    }
    state.finalize_fixed().into()
}

/// Keyed BLAKE2s with 16 bytes of output over the concatenation of `parts`.
///
/// The key has 1 to 32 bytes, which the compiler checks.
pub fn mac<const N: usize>(key: &[u8; N], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    const { assert!(N >= 1 && N <= 32, "BLAKE2s takes keys of 1 to 32 bytes") };
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("the key has 1 to 32 bytes");
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// HMAC-BLAKE2s over the concatenation of `parts`. [RFC 2104]
///
/// By hand, because the state of the `hmac` crate keeps the padded key after it is dropped.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut block = Zeroizing::new([0; BLOCK_BYTES]);
    if key.len() <= BLOCK_BYTES {
        block[..key.len()].copy_from_slice(key);
    } else {
        block[..HASH_BYTES].copy_from_slice(&hash(&[key]));
    }
    block.iter_mut().for_each(|byte| *byte ^= 0x36);
    let mut inner = Blake2s256::default();
    inner.update(block.as_slice());
    for part in parts {
        inner.update(part);
    }
    let inner = Zeroizing::new(<[u8; HASH_BYTES]>::from(inner.finalize_fixed()));
    block.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5c);
    hash(&[block.as_slice(), inner.as_slice()])
}

/// One derived key. [WG §5.4]
pub fn kdf1(key: &[u8; HASH_BYTES], input: &[u8]) -> Derived {
    let extracted = Zeroizing::new(hmac(key, &[input]));
    Zeroizing::new(hmac(&*extracted, &[&[1]]))
}

/// Two derived keys. [WG §5.4]
pub fn kdf2(key: &[u8; HASH_BYTES], input: &[u8]) -> (Derived, Derived) {
    let extracted = Zeroizing::new(hmac(key, &[input]));
    let first = Zeroizing::new(hmac(&*extracted, &[&[1]]));
    let second = Zeroizing::new(hmac(&*extracted, &[first.as_slice(), &[2]]));
    (first, second)
}

/// Three derived keys. [WG §5.4]
pub fn kdf3(key: &[u8; HASH_BYTES], input: &[u8]) -> (Derived, Derived, Derived) {
    let extracted = Zeroizing::new(hmac(key, &[input]));
    let first = Zeroizing::new(hmac(&*extracted, &[&[1]]));
    let second = Zeroizing::new(hmac(&*extracted, &[first.as_slice(), &[2]]));
    let third = Zeroizing::new(hmac(&*extracted, &[second.as_slice(), &[3]]));
    (first, second, third)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn bytes(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().unwrap()).unwrap()
    }

    fn each<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
        value[key].as_array().unwrap()
    }

    #[test]
    fn hash_gives_the_known_answers() {
        let file = vectors(include_str!("../../tests/data/blake2s-kat.json"));
        let unkeyed: Vec<_> = each(&file, "vectors").iter().filter(|v| v["key"] == "").collect();
        assert_eq!(unkeyed.len(), 256);
        for vector in unkeyed {
            let input = bytes(&vector["in"]);
            let expected = bytes(&vector["out"]);
            assert_eq!(hash(&[&input])[..], expected);
            let (head, tail) = input.split_at(input.len() / 3);
            assert_eq!(hash(&[head, &[], tail])[..], expected, "in parts");
        }
    }

    #[test]
    fn mac_gives_the_known_answers_for_both_key_lengths_in_use() {
        let file = vectors(include_str!("../../tests/data/blake2s-mac-hmac-kdf.json"));
        let mut lengths = [0, 0];
        for vector in each(&file, "mac16") {
            let input = bytes(&vector["in"]);
            let key = bytes(&vector["key"]);
            let (head, tail) = input.split_at(input.len() / 2);
            let found = match key.len() {
                16 => {
                    lengths[0] += 1;
                    mac::<16>(&key.try_into().unwrap(), &[head, tail])
                }
                32 => {
                    lengths[1] += 1;
                    mac::<32>(&key.try_into().unwrap(), &[head, tail])
                }
                other => panic!("key of {other} bytes"),
            };
            assert_eq!(found[..], bytes(&vector["out"]));
        }
        assert!(lengths[0] > 5 && lengths[1] > 5, "{lengths:?}");
    }

    #[test]
    fn hmac_gives_the_known_answers() {
        let file = vectors(include_str!("../../tests/data/blake2s-mac-hmac-kdf.json"));
        assert!(each(&file, "hmac").len() > 30);
        for vector in each(&file, "hmac") {
            let input = bytes(&vector["in"]);
            let (head, tail) = input.split_at(input.len() / 2);
            assert_eq!(hmac(&bytes(&vector["key"]), &[head, tail])[..], bytes(&vector["out"]));
        }
    }

    #[test]
    fn key_derivation_gives_the_known_answers() {
        let file = vectors(include_str!("../../tests/data/blake2s-mac-hmac-kdf.json"));
        for vector in each(&file, "kdf") {
            let key: [u8; 32] = bytes(&vector["key"]).try_into().unwrap();
            let input = bytes(&vector["in"]);
            let expected: Vec<_> = each(vector, "out").iter().map(bytes).collect();
            assert_eq!(kdf1(&key, &input)[..], expected[0]);
            let (first, second) = kdf2(&key, &input);
            assert_eq!((&first[..], &second[..]), (&expected[0][..], &expected[1][..]));
            let (first, second, third) = kdf3(&key, &input);
            assert_eq!((&first[..], &second[..]), (&expected[0][..], &expected[1][..]));
            assert_eq!(third[..], expected[2]);
        }
    }
}
