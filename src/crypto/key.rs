//! Key newtypes: zeroized on drop, compared in constant time, redacted when printed.
//!
//! The text forms are base64 (configuration files, `wg`) and lower-case hex (UAPI). Parsing
//! errors never repeat the text: it may be a secret.

use std::fmt;

use base64ct::{Base64, Encoding};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of every key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key is 44 characters of base64 ending in '='")]
    NotBase64,
    #[error("a key is 64 hexadecimal digits")]
    NotHex,
}

/// What all keys have in common. A key that may be copied is turned into text by value, a secret by
/// reference: `$this` is `self`, and `$receiver` how the methods take it.
macro_rules! key_forms {
    ($name:ident, $this:ident, $receiver:ty) => {
        impl $name {
            pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }

            /// # Errors
            /// [`KeyError::NotBase64`] unless `text` is exactly one key in base64.
            pub fn from_base64(text: &str) -> Result<Self, KeyError> {
                parse_base64(text).map(Self)
            }

            /// # Errors
            /// [`KeyError::NotHex`] unless `text` is exactly one key in hexadecimal.
            pub fn from_hex(text: &str) -> Result<Self, KeyError> {
                parse_hex(text).map(Self)
            }

            /// The key in base64. Of a secret: print it only where a key was asked for.
            pub fn to_base64($this: $receiver) -> String {
                Base64::encode_string(&$this.0)
            }

            /// The key in lower-case hex. Of a secret: print it only where a key was asked for.
            pub fn to_hex($this: $receiver) -> String {
                hex_text(&$this.0)
            }
        }
    };
}

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_BYTES]);

        key_forms!($name, self, &Self);

        impl $name {
            /// Whether all bytes are zero, which UAPI reads as "no key".
            pub fn is_zero(&self) -> bool {
                bool::from(self.0.ct_eq(&[0; KEY_BYTES]))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                bool::from(self.0.ct_eq(&other.0))
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(hidden)"))
            }
        }
    };
}

secret_key! {
    /// A static or ephemeral X25519 private key. Clamped when it is used, not when it is stored.
    PrivateKey
}
secret_key! {
    /// The optional symmetric key of a pair of peers; all zero when there is none. [WG §5.2]
    PresharedKey
}
secret_key! {
    /// A key of ChaCha20-Poly1305.
    SymmetricKey
}

impl PresharedKey {
    /// What a peer without a preshared key mixes in. [WG §5.4.3]
    pub const NONE: Self = Self([0; KEY_BYTES]);
}

/// An X25519 public key: the name of a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

key_forms!(PublicKey, self, Self);

impl fmt::Display for PublicKey {
    /// The first characters, enough to tell peers apart in a log, as the kernel prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_base64();
        write!(f, "peer({}…{})", &text[..4], &text[39..43])
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn parse_base64(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let mut bytes = [0; KEY_BYTES];
    match Base64::decode(text, &mut bytes) {
        Ok(decoded) if decoded.len() == KEY_BYTES && text.len() == 44 => Ok(bytes),
        Ok(_) | Err(_) => {
            bytes.zeroize();
            Err(KeyError::NotBase64)
        }
    }
}

fn parse_hex(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    let mut bytes = [0; KEY_BYTES];
    decode_hex(text, &mut bytes)?;
    Ok(bytes)
}

/// Leaves nothing in `bytes` of a text that is refused.
fn decode_hex(text: &str, bytes: &mut [u8; KEY_BYTES]) -> Result<(), KeyError> {
    let digits = text.as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return Err(KeyError::NotHex);
    }
    let outcome = bytes.iter_mut().zip(digits.chunks_exact(2)).try_for_each(|(byte, pair)| {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        Ok(())
    });
    if outcome.is_err() {
        bytes.zeroize();
    }
    outcome
}

fn nibble(digit: u8) -> Result<u8, KeyError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(KeyError::NotHex),
    }
}

fn hex_text(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|&b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        let key = PublicKey::from_bytes([0xa5; KEY_BYTES]);
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key));
        assert_eq!(PublicKey::from_hex(&key.to_hex()), Ok(key));
        assert_eq!(PublicKey::from_hex(&key.to_hex().to_uppercase()), Ok(key));
    }

    #[test]
    fn texts_that_are_not_one_key_are_refused() {
        for text in ["", "AAAA", &"A".repeat(44), &"A".repeat(43), &format!("{}=", "A".repeat(44))]
        {
            assert_eq!(PublicKey::from_base64(text), Err(KeyError::NotBase64), "{text:?}");
        }
        for text in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(PublicKey::from_hex(text), Err(KeyError::NotHex), "{text:?}");
        }
    }

    #[test]
    fn nothing_of_a_damaged_key_stays_behind() {
        let mut bytes = [0; KEY_BYTES];
        let damaged = format!("{}g", "a".repeat(63));
        assert_eq!(decode_hex(&damaged, &mut bytes), Err(KeyError::NotHex));
        assert_eq!(bytes, [0; KEY_BYTES]);
        decode_hex(&"a5".repeat(32), &mut bytes).unwrap();
        assert_eq!(bytes, [0xa5; KEY_BYTES]);
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = PrivateKey::from_bytes([0x42; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "PrivateKey(hidden)");
        assert_eq!(format!("{:?}", PresharedKey::from_bytes([7; 32])), "PresharedKey(hidden)");
    }
}
