//! A password: zeroized on drop, compared in constant time, redacted when printed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::hash::hash;

/// What somebody has to know who wants to be let in.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// No more fit the message that carries one. [RFC 1929 §2]
    pub const MAX_BYTES: usize = 255;

    /// `None` if it has no byte or more than [`Self::MAX_BYTES`].
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Whether `offered` is the same, in a time that tells nothing but the length of `offered`: what
    /// is compared are hashes.
    pub fn is(&self, offered: &[u8]) -> bool {
        let (own, offered) =
            (Zeroizing::new(hash(&[self.0.as_bytes()])), Zeroizing::new(hash(&[offered])));
        bool::from(own.ct_eq(&*offered))
    }

    /// The password. Show it only where a password was asked for.
    pub fn as_text(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.0.as_bytes())
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_itself_and_nothing_else_and_is_not_printed() {
        let password = Password::new("open sesame").unwrap();
        assert!(password.is(b"open sesame"));
        for other in [&b"open sesam"[..], b"open sesame ", b"Open sesame", b""] {
            assert!(!password.is(other));
        }
        assert_eq!(format!("{password:?}"), "Password(hidden)");
        assert!(Password::new("").is_none() && Password::new(&"x".repeat(256)).is_none());
        assert!(Password::new(&"x".repeat(255)).is_some());
    }
}
