//! `genkey`, `genpsk` and `pubkey`, as those of wg(8).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use zeroize::Zeroizing;

use crate::cli::message::{self, Failure};
use crate::crypto::dh;
use crate::crypto::entropy::Entropy;
use crate::crypto::key::{KEY_BYTES, PresharedKey, PrivateKey};

/// A longer standard input cannot be a key.
const MAX_INPUT_BYTES: u64 = 4096;

/// Prints a new private key.
///
/// # Errors
/// If standard output fails.
pub fn genkey(entropy: &mut dyn Entropy) -> Result<(), Failure> {
    warn_if_world_accessible();
    let bytes = Zeroizing::new(entropy.bytes::<KEY_BYTES>());
    print_key(dh::clamp(&PrivateKey::from_bytes(*bytes)).to_base64())
}

/// Prints a new preshared key.
///
/// # Errors
/// If standard output fails.
pub fn genpsk(entropy: &mut dyn Entropy) -> Result<(), Failure> {
    warn_if_world_accessible();
    let bytes = Zeroizing::new(entropy.bytes::<KEY_BYTES>());
    print_key(PresharedKey::from_bytes(*bytes).to_base64())
}

/// Prints the public key of the private key on standard input.
///
/// # Errors
/// If that is not a private key.
pub fn pubkey() -> Result<(), Failure> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_INPUT_BYTES as usize + 1));
    io::stdin().lock().take(MAX_INPUT_BYTES + 1).read_to_end(&mut text)?;
    let public_key = public_key_of(&text)
        .ok_or_else(|| Failure::run(anyhow::anyhow!("standard input is not one private key")))?;
    print_key(public_key)
}

/// White space may follow the key, as the line end does, but not precede it.
fn public_key_of(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let private_key = PrivateKey::from_base64(text.trim_ascii_end()).ok()?;
    Some(dh::public_key(&private_key).to_base64())
}

fn print_key(key: String) -> Result<(), Failure> {
    let line = Zeroizing::new(format!("{}\n", *Zeroizing::new(key)));
    Ok(message::result(&line)?)
}

/// Keys are often redirected into a file, whose mode nobody thought of.
fn warn_if_world_accessible() {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let Ok(metadata) = stdout.and_then(|file| file.metadata()) else { return };
    if metadata.is_file() && metadata.permissions().mode() & 0o007 != 0 {
        message::warning("writing to world accessible file.");
        message::note("Consider setting the umask to 077 and trying again.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The private keys and public keys of [RFC 7748 §6.1].
    const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn wg_14_pubkey_takes_one_key_and_white_space_after_it() {
        for text in [ALICE.to_owned(), format!("{ALICE}\n"), format!("{ALICE} \r\n\n")] {
            assert_eq!(public_key_of(text.as_bytes()).as_deref(), Some(ALICE_PUBLIC), "{text:?}");
        }
    }

    #[test]
    fn wg_14_pubkey_refuses_what_is_not_one_key() {
        let twice = format!("{ALICE}\n{ALICE}\n");
        let after = format!("{ALICE}x");
        for text in ["", "\n", &ALICE[..43], &twice, &after] {
            assert_eq!(public_key_of(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(public_key_of(&[0xff; 44]), None);
    }
}
