//! X25519. [RFC 7748] [WG §5.4]
//!
//! Private keys are clamped when they are used. A product of zero, which only a point of low order
//! gives, is an error: such a "peer" would take part in every session without a key of its own.
//! Non-canonical points are taken as RFC 7748 says.

use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::key::{KEY_BYTES, PrivateKey, PublicKey};

/// The product of a private and a public key, wiped on drop; never zero.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret([u8; KEY_BYTES]);

impl SharedSecret {
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedSecret(hidden)")
    }
}

/// The public key is a point of low order: its product with every private key is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key is a point of low order")]
pub struct LowOrder;

/// Multiplies `public` by `private`, in constant time.
///
/// # Errors
/// [`LowOrder`] if the product is zero.
pub fn dh(private: &PrivateKey, public: &PublicKey) -> Result<SharedSecret, LowOrder> {
    let scalar = StaticSecret::from(*private.as_bytes());
    let product = scalar.diffie_hellman(&x25519_dalek::PublicKey::from(*public.as_bytes()));
    let shared = SharedSecret(*product.as_bytes());
    if bool::from(shared.0.ct_eq(&[0; KEY_BYTES])) { Err(LowOrder) } else { Ok(shared) }
}

/// The public key that belongs to `private`.
pub fn public_key(private: &PrivateKey) -> PublicKey {
    let scalar = StaticSecret::from(*private.as_bytes());
    PublicKey::from_bytes(x25519_dalek::PublicKey::from(&scalar).to_bytes())
}

/// Sets and clears the bits that every use sets and clears anyway, so that a printed private key
/// is the one other tools would print. [RFC 7748 §5]
pub fn clamp(private: &PrivateKey) -> PrivateKey {
    let mut bytes = *private.as_bytes();
    bytes[0] &= 0b1111_1000;
    bytes[31] = (bytes[31] & 0b0111_1111) | 0b0100_0000;
    let clamped = PrivateKey::from_bytes(bytes);
    bytes.zeroize();
    clamped
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn key(value: &Value) -> [u8; KEY_BYTES] {
        hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
    }

    fn product(private: [u8; 32], public: [u8; 32]) -> Option<[u8; 32]> {
        dh(&PrivateKey::from_bytes(private), &PublicKey::from_bytes(public))
            .ok()
            .map(|shared| *shared.as_bytes())
    }

    #[test]
    fn products_and_public_keys_are_those_of_rfc_7748() {
        let file: Value =
            serde_json::from_str(include_str!("../../tests/data/rfc7748.json")).unwrap();
        for vector in file["x25519"].as_array().unwrap() {
            let found = product(key(&vector["scalar"]), key(&vector["u"]));
            assert_eq!(found, Some(key(&vector["out"])));
        }

        let iterated = &file["iterated"];
        let mut scalar = key(&iterated["start_scalar_and_u"]);
        let mut u = scalar;
        for round in 1..=1000 {
            (scalar, u) = (product(scalar, u).unwrap(), scalar);
            if round == 1 {
                assert_eq!(scalar, key(&iterated["after_1"]));
            }
        }
        assert_eq!(scalar, key(&iterated["after_1000"]));

        let pair = &file["dh"];
        for (mine, theirs) in [("a", "b"), ("b", "a")] {
            let public = |name| key(&pair[format!("{name}_public")]);
            let private = PrivateKey::from_bytes(key(&pair[mine]));
            assert_eq!(public_key(&private).as_bytes(), &public(mine));
            assert_eq!(product(key(&pair[mine]), public(theirs)), Some(key(&pair["shared"])));
        }
    }

    #[test]
    fn exactly_the_products_that_are_zero_are_refused() {
        let text = include_str!("../../tests/data/wycheproof-x25519.json");
        let file: Value = serde_json::from_str(text).unwrap();
        let (mut good, mut refused) = (0, 0);
        for group in file["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                let shared = key(&test["shared"]);
                let found = product(key(&test["private"]), key(&test["public"]));
                if shared == [0; 32] {
                    refused += 1;
                    assert_eq!(found, None, "tcId {}", test["tcId"]);
                } else {
                    good += 1;
                    assert_eq!(found, Some(shared), "tcId {}", test["tcId"]);
                }
            }
        }
        assert_eq!(good + refused, file["numberOfTests"].as_i64().unwrap());
        assert!(refused > 10, "{refused} low-order points");
    }

    #[test]
    fn clamping_changes_the_text_of_a_key_and_not_its_meaning() {
        let raw = PrivateKey::from_bytes([0xff; KEY_BYTES]);
        let clamped = clamp(&raw);
        assert_eq!(clamped.as_bytes()[0], 0xf8);
        assert_eq!(clamped.as_bytes()[31], 0x7f);
        assert_eq!(public_key(&clamped), public_key(&raw));
        assert_eq!(clamp(&clamped), clamped);
        assert_eq!(clamp(&PrivateKey::from_bytes([0; KEY_BYTES])).as_bytes()[31], 0x40);
    }
}
