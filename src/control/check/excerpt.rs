//! A line of a file as it may be shown.

use std::ops::Range;

/// A line as it may be shown, and the characters of it that a fault is about. What could be a key is
/// or a password is hidden.
pub fn excerpt(line: &str, mark: Option<&str>) -> (String, Range<usize>) {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    let line = line.trim_end();
    let password = password_in(line).unwrap_or(line.len());
    let mut shown = String::new();
    let mut rest = &line[..password];
    while let Some(start) = rest.find(is_base64) {
        let length = rest[start..].find(|c| !is_base64(c)).unwrap_or(rest.len() - start);
        let word = &rest[start..start + length];
        shown.push_str(&rest[..start]);
        shown.push_str(if length >= SUSPICIOUS { HIDDEN } else { word });
        rest = &rest[start + length..];
    }
    shown.push_str(rest);
    shown.push_str(if password < line.len() { HIDDEN } else { "" });
    let shown = shown.replace('\t', " ").replace(char::is_control, "?");
    let code = shown.split('#').next().filter(|code| !code.trim().is_empty()).unwrap_or(&shown);
    let value = code.split_once('=').map_or(code, |(_, value)| value);
    let marked = mark.filter(|mark| code.contains(mark)).unwrap_or(value.trim());
    let marked = if marked.is_empty() { code.trim() } else { marked };
    let start = code.rfind(marked).unwrap_or(0);
    let columns = |text: &str| text.chars().count();
    let first = columns(&shown[..start]);
    let range = first..first + columns(marked);
    (shown, range)
}

/// Where the first password begins, which a word behind it may be the rest of.
fn password_in(line: &str) -> Option<usize> {
    const NAME: &str = "password";
    let lower = line.to_ascii_lowercase();
    lower.match_indices(NAME).find_map(|(start, _)| {
        let behind = &line[start + NAME.len()..];
        let value = behind.trim_start().strip_prefix('=')?.trim_start();
        Some(line.len() - value.len())
    })
}

const HIDDEN: &str = "(hidden)";

/// A key has 43 characters; what is left of a damaged one is not shown either.
const SUSPICIOUS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "oaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaE=";

    #[test]
    fn an_excerpt_marks_what_was_read_and_hides_what_could_be_a_key_or_a_password() {
        let marked = |line: &str, mark: Option<&str>| {
            let (shown, range) = excerpt(line, mark);
            let marked: String = shown.chars().skip(range.start).take(range.len()).collect();
            (shown, marked)
        };
        let show = |line: &str, mark| {
            let (shown, marked) = marked(line, mark);
            format!("{shown}|{marked}")
        };
        assert_eq!(show("MTU = big # x", None), "MTU = big # x|big");
        assert_eq!(show("DNS = 1.1.1.1, ü.x", Some("1.1.1.1")), "DNS = 1.1.1.1, ü.x|1.1.1.1");
        assert_eq!(show("Mtuu = 5", Some("Mtuu")), "Mtuu = 5|Mtuu");
        assert_eq!(
            show(&format!("PrivateKey = {KEY}x"), None),
            "PrivateKey = (hidden)=x|(hidden)=x"
        );
        assert_eq!(show("[Peer", None), "[Peer|[Peer");
        assert_eq!(show("#hybridwg: MTU = 5", None), "#hybridwg: MTU = 5|5");
        assert_eq!(show("MTU =", None), "MTU =|MTU =");
        for (line, shown) in [
            ("Socks5 = *:1 user=ci password=x y # z", "Socks5 = *:1 user=ci password=(hidden)"),
            ("Password = $x", "Password = (hidden)"),
            ("Proxi = *:1 PASSWORD\t=x", "Proxi = *:1 PASSWORD =(hidden)"),
            ("Proxy = *:1 user=password passfile=/password", ""),
        ] {
            assert_eq!(marked(line, None).0, if shown.is_empty() { line } else { shown });
        }
    }
}
