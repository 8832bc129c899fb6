//! A Rust file as the rules see it: its text, and its code with everything else blanked.
//!
//! Knows just enough of the language to skip comments and literals and to pair braces. Blanking
//! keeps every byte's position, so that a finding in the code names the right line of the text.

use std::ops::Range;

/// One file, by its path from the root of the repository.
pub struct Source {
    pub path: String,
    pub text: String,
    /// `text` without comments, literals and items under `#[cfg(test)]`; same length, same lines.
    pub code: String,
    /// Where in `text` the items under `#[cfg(test)]` are.
    pub tests: Vec<Range<usize>>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let mut code = blank_comments_and_literals(text);
        let tests = test_items(&code);
        for item in &tests {
            blank(&mut code[item.clone()]);
        }
        let code = String::from_utf8(code).expect("only whole characters were blanked");
        Self { path: path.to_owned(), text: text.to_owned(), code, tests }
    }

    /// Whether the whole file is test code: anything outside `src`, and `tests.rs` or `tests/` in it.
    pub fn is_test(&self) -> bool {
        !self.path.starts_with("src/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }

    /// The layer, i.e. the first module below the root: `proto` for `src/proto/peer.rs`.
    pub fn layer(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let end = below.find(['/', '.']).unwrap_or(below.len());
        &below[..end]
    }

    /// How many `super::` lead from this file's module to the root of the crate.
    pub fn depth(&self) -> usize {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let below = below.strip_suffix("/mod.rs").unwrap_or(below);
        1 + below.matches('/').count()
    }

    /// The line, from 1, that holds the byte at `offset`.
    pub fn line_of(&self, offset: usize) -> usize {
        1 + self.text[..offset].matches('\n').count()
    }

    /// The code's words and marks, each with its offset.
    pub fn tokens(&self) -> Vec<(usize, &str)> {
        let bytes = self.code.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            if is_word(bytes[at]) {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
            } else if bytes[at..].starts_with(b"::") {
                at += 2;
            } else {
                at += 1;
                if bytes[start].is_ascii_whitespace() {
                    continue;
                }
            }
            tokens.push((start, &self.code[start..at]));
        }
        tokens
    }
}

/// Whether `byte` can stand in an identifier; bytes beyond ASCII count, so characters stay whole.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn blank(code: &mut [u8]) {
    for byte in code {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn blank_comments_and_literals(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && is_word(bytes[at - 1]);
        let len = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'r' && !after_word {
            raw_string(rest)
        } else if (rest.starts_with(b"br") || rest.starts_with(b"cr")) && !after_word {
            raw_string(&rest[1..]).checked_add(1).filter(|&n| n > 1).unwrap_or(0)
        } else if rest[0] == b'\'' {
            char_literal(rest)
        } else {
            0
        };
        blank(&mut code[at..at + len]);
        at += len.max(1);
    }
    code
}

/// Length of the block comment that `rest` starts with; they nest.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// Length of the literal that `rest` starts with, up to the unescaped `end` that closes it.
fn quoted(rest: &[u8], end: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == end => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of the raw string that `rest` starts with, or 0 if the `r` is an ordinary letter.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = 2 + hashes;
    let end = rest[body..].windows(close.len()).position(|w| w == close);
    end.map_or(rest.len(), |end| body + end + close.len())
}

/// Length of the character literal that `rest` starts with, or 0 if the quote opens a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => quoted(rest, b'\''),
        Some(_) => {
            let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]);
            let width = text.chars().next().map_or(1, char::len_utf8);
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        None => 0,
    }
}

/// Finds each `#[cfg(test)]` with its item, to the closing brace or semicolon.
fn test_items(code: &[u8]) -> Vec<Range<usize>> {
    const MARK: &[u8] = b"#[cfg(test)]";
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].windows(MARK.len()).position(|w| w == MARK) {
        let start = from + found;
        let end = item_end(code, start + MARK.len());
        items.push(start..end);
        from = end;
    }
    items
}

/// One past the end of the item that starts at `at`.
fn item_end(code: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code[at..].iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + offset + 1;
                }
            }
            b';' if depth == 0 => return at + offset + 1,
            _ => {}
        }
    }
    code.len()
}

mod tests {
    use super::Source;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = r####"
            fn a<'x>(s: &'x str) -> char { // unsafe
                let _ = "unsafe \" unsafe"; /* unsafe /* unsafe */ unsafe */
                let _ = (r#"unsafe " unsafe"#, b"unsafe", br"unsafe", '\'', '"', 'ü');
                r'"' }
        "####;
        let source = Source::new("src/a.rs", text);
        assert!(!source.code.contains("unsafe"), "{}", source.code);
        assert!(source.code.contains("fn a<'x>(s: &'x str) -> char {"));
        assert_eq!(source.code.len(), source.text.len());
        assert_eq!(source.code.matches('\n').count(), source.text.matches('\n').count());
    }

    #[test]
    fn items_under_cfg_test_are_not_code() {
        let text = "#[cfg(test)]\nmod tests;\nfn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod t { fn b() { {} } }\nfn c() {}\n";
        let code = Source::new("src/a.rs", text).code;
        assert!(code.contains("fn a") && code.contains("fn c"));
        assert!(!code.contains("fn b") && !code.contains("mod tests"));
    }

    #[test]
    fn a_file_knows_its_place() {
        for (path, layer, depth) in [
            ("src/time.rs", "time", 1),
            ("src/proto/mod.rs", "proto", 1),
            ("src/proto/peer.rs", "proto", 2),
            ("src/control/config/mod.rs", "control", 2),
            ("src/control/config/lex.rs", "control", 3),
        ] {
            let source = Source::new(path, "");
            assert_eq!((source.layer(), source.depth()), (layer, depth), "{path}");
        }
    }
}
