//! From a file of wg-quick(8) to one of wg(8), as `wg-quick strip` makes it.

use zeroize::Zeroizing;

use super::lex::{Key, Line, Reader, lex};
use super::parse::wireproxy::is_foreign;

/// The text without the lines that give a key of wg-quick or of our own a value, and without the
/// sections of wireproxy. All other lines stay as they are, comments included.
pub(super) fn strip(text: &str) -> Zeroizing<String> {
    // Full size at once, because growing would leave copies of keys behind.
    let mut stripped = Zeroizing::new(String::with_capacity(text.len()));
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).split_inclusive('\n');
    let (mut is_in_foreign, mut is_before) = (false, true);
    for line in lines {
        let is_left_out = match lex(line) {
            Some(Line::Section(name)) => {
                (is_in_foreign, is_before) = (is_foreign(name), false);
                is_in_foreign
            }
            Some(Line::Pair { key, in_comment: false, .. }) => {
                let is_beyond = Key::find(key).is_some_and(|key| key.reader() != Reader::Wg);
                is_in_foreign || is_before || is_beyond
            }
            _ => false,
        };
        if !is_left_out {
            stripped.push_str(line);
        }
    }
    stripped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wq_31_only_what_wg_does_not_understand_is_left_out_and_comments_stay() {
        let text = "# hub\n[Interface] # here\nAddress = 10.0.0.1\nPrivateKey = k # key\n\n\
                    listenport=1\nPostUp = a = b # c\nPrivateKeyFile = x\n\
                    #hybridwg: PresharedKeyFile = y\n  saveConfig = true\r\n[Peer]\n\
                    PublicKey = p\nEndpoint = a:1";
        let stripped = "# hub\n[Interface] # here\nPrivateKey = k # key\n\nlistenport=1\n\
                        #hybridwg: PresharedKeyFile = y\n[Peer]\nPublicKey = p\nEndpoint = a:1";
        assert_eq!(*strip(text), *stripped);
    }

    #[test]
    fn what_only_wireproxy_understands_is_left_out() {
        let text = "WGConfig = wg0.conf\n[http]\nBindAddress = a\n# why\n[interface]\n\
                    listenport = 1\n[Socks5]\nPassword = p\n";
        assert_eq!(*strip(text), "# why\n[interface]\nlistenport = 1\n");
    }
}
