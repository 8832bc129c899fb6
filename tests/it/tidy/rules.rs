//! The rules of the house, each a function from one file to its faults.
//!
//! The faults are sentences with path and line, written for the person who has to mend them. A rule
//! reads text and decides nothing else: which files it sees is up to the caller.

use std::collections::HashSet;

use super::source::Source;

/// Non-test lines that a file may have.
pub const FILE_LINES: usize = 600;

/// Lines that a function may have, from `fn` to its closing brace.
pub const FUNCTION_LINES: usize = 80;

/// Bytes that a file in the repository may have. The largest are results of `bench` with five programs.
pub const FILE_BYTES: usize = 550_000;

/// Who may import whom, as paths below `crate::`. ARCHITECTURE.md has the picture and the reasons.
///
/// A layer may always import itself. `lib.rs` lists the modules and imports nothing.
pub const LAYERS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("wire", &[]),
    ("crypto", &["time"]),
    ("proto", &["wire", "crypto", "time"]),
    ("packet", &["proto::endpoint", "wire"]),
    ("sys", &["packet", "proto::endpoint", "crypto::entropy", "time"]),
    ("dataplane", &["sys", "proto", "packet", "wire", "crypto", "time"]),
    (
        "flow",
        &[
            "dataplane",
            "sys",
            "packet",
            "proto::allowed_ips",
            "proto::drop_reason",
            "proto::endpoint",
            "proto::peer",
            "wire",
            "crypto::entropy",
            "time",
        ],
    ),
    ("control", &["flow", "dataplane", "sys", "proto", "packet", "wire", "crypto", "time"]),
    ("bench", &["control", "flow::tcp", "sys", "proto", "wire", "crypto", "time"]),
    ("cli", &["bench", "control", "dataplane", "sys", "proto", "crypto", "time"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Words that a layer must not name in its code, with the reason.
pub const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "proto",
        &[
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "Mutex",
            "RwLock",
            "getrandom",
            "rustix",
            "libc",
        ],
        "the protocol core does no I/O, takes no lock and draws no randomness of its own",
    ),
    ("proto", &["SystemTime", "fs", "thread", "tokio"], "the protocol core is bytes and `now` in"),
    ("dataplane", &["tokio"], "the data plane is plain threads and poll loops"),
    ("packet", &["tokio"], "the data plane is plain threads and poll loops"),
    ("wire", &["Vec", "Box", "String"], "views of bytes do not allocate"),
];

/// Crates that only `crypto` may name.
const CRYPTO_CRATES: &[&str] =
    &["aws_lc_rs", "blake2", "chacha20poly1305", "hmac", "ring", "x25519_dalek"];

/// Reports imports that point upwards or sideways in [`LAYERS`].
pub fn imports(source: &Source) -> Vec<String> {
    let layer = source.layer();
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{}: layer `{layer}` has no row in the import table", source.path)];
    };
    let mut faults = Vec::new();
    for (offset, path) in crate_paths(source) {
        let first = path.split("::").next().unwrap_or_default();
        // A module of the crate starts in lower case; a macro or an item of the root does not matter.
        if first == layer || !LAYERS.iter().any(|(name, _)| *name == first) {
            continue;
        }
        if !allowed.iter().any(|prefix| is_below(&path, prefix)) {
            let line = source.line_of(offset);
            faults.push(format!("{}:{line}: `{layer}` must not import `{path}`", source.path));
        }
    }
    faults
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path of the file's code that starts at the root of the crate, without its root.
pub fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let tokens = source.tokens();
    let words: Vec<&str> = tokens.iter().map(|&(_, word)| word).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let Some(after) = after_root(&words, at, source) else {
            at += 1;
            continue;
        };
        let visibility = at > 0 && words[at - 1] == "in";
        let mut paths = Vec::new();
        at = path_tree(&words, after, "", &mut paths);
        if !visibility {
            let offset = tokens[after - 1].0;
            found.extend(paths.into_iter().map(|path| (offset, path)));
        }
    }
    found
}

/// If a path to the root starts at `at`, the position of what follows its last `::`.
fn after_root(words: &[&str], at: usize, source: &Source) -> Option<usize> {
    let is_name = |word: &&str| matches!(*word, "crate" | "hybridwg");
    if words.get(at).is_some_and(is_name) && words.get(at + 1) == Some(&"::") {
        return Some(at + 2);
    }
    let mut end = at;
    while words.get(end) == Some(&"super") && words.get(end + 1) == Some(&"::") {
        end += 2;
    }
    let supers = (end - at) / 2;
    (supers > 0 && supers >= source.depth()).then_some(end)
}

/// Reads one path or `{…}` of paths at `at` and returns the position behind it.
fn path_tree(words: &[&str], mut at: usize, prefix: &str, out: &mut Vec<String>) -> usize {
    if words.get(at) == Some(&"{") {
        at += 1;
        while at < words.len() && words[at] != "}" {
            at = if words[at] == "," { at + 1 } else { path_tree(words, at, prefix, out) };
        }
        return at + 1;
    }
    let Some(word) = words.get(at) else { return at };
    let path = if prefix.is_empty() { (*word).to_owned() } else { format!("{prefix}::{word}") };
    at += 1;
    let goes_on = |word: &&str| *word == "{" || *word == "*" || is_identifier(word);
    if words.get(at) == Some(&"::") && words.get(at + 1).is_some_and(goes_on) {
        return path_tree(words, at + 1, &path, out);
    }
    if words.get(at) == Some(&"as") {
        at += 2;
    }
    out.push(path);
    at
}

fn is_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reports words that the file's layer must not name.
pub fn forbidden_words(source: &Source) -> Vec<String> {
    let layer = source.layer();
    let mut faults = Vec::new();
    for (offset, word) in source.tokens() {
        let line = source.line_of(offset);
        for (_, words, reason) in FORBIDDEN.iter().filter(|(name, ..)| *name == layer) {
            if words.contains(&word) {
                faults.push(format!("{}:{line}: `{word}` in `{layer}`: {reason}", source.path));
            }
        }
        if layer != "crypto" && CRYPTO_CRATES.contains(&word) && is_path_root(source, offset, word)
        {
            let path = &source.path;
            faults.push(format!("{path}:{line}: only `crypto` names the crate `{word}`"));
        }
    }
    faults
}

/// Whether `word` stands where a crate's name stands: first in a path, or after `use`.
fn is_path_root(source: &Source, offset: usize, word: &str) -> bool {
    let before = source.code[..offset].trim_end();
    let after = source.code[offset + word.len()..].trim_start();
    !before.ends_with("::") && (after.starts_with("::") || before.ends_with("use"))
}

/// Where `unsafe` may be: for the calls of the system, and for instructions that only some processors
/// have.
const UNSAFE: &[&str] = &["src/sys/", "src/crypto/batch/"];

/// Reports the keyword `unsafe` outside of [`UNSAFE`].
pub fn unsafe_elsewhere(source: &Source) -> Vec<String> {
    if UNSAFE.iter().any(|prefix| source.path.starts_with(prefix)) {
        return Vec::new();
    }
    let tokens = source.tokens();
    let found = tokens.iter().filter(|(_, word)| *word == "unsafe");
    found
        .map(|&(offset, _)| {
            let line = source.line_of(offset);
            format!("{}:{line}: `unsafe` is for src/sys and src/crypto/batch", source.path)
        })
        .collect()
}

/// Reports a file with more than [`FILE_LINES`] lines outside its tests.
pub fn file_budget(source: &Source) -> Vec<String> {
    let lines = |text: &str| text.lines().count();
    let tests: usize = source.tests.iter().map(|item| lines(&source.text[item.clone()])).sum();
    let count = lines(&source.text) - tests;
    if count <= FILE_LINES {
        return Vec::new();
    }
    vec![format!("{}: {count} non-test lines, at most {FILE_LINES}: split by noun", source.path)]
}

/// What of a file is test code.
pub fn test_text(source: &Source) -> String {
    if source.is_test() {
        return source.text.clone();
    }
    source.tests.iter().map(|item| &source.text[item.clone()]).collect()
}

/// Reports functions with more than [`FUNCTION_LINES`] lines.
pub fn function_budget(source: &Source) -> Vec<String> {
    let tokens = source.tokens();
    let mut faults = Vec::new();
    for (at, &(offset, word)) in tokens.iter().enumerate() {
        let Some(&(_, name)) = tokens.get(at + 1) else { break };
        if word != "fn" || !is_identifier(name) {
            continue;
        }
        let Some(end) = body_end(&tokens[at..]) else { continue };
        let lines = 1 + source.line_of(end) - source.line_of(offset);
        if lines > FUNCTION_LINES {
            let (path, line) = (&source.path, source.line_of(offset));
            faults.push(format!(
                "{path}:{line}: `{name}` has {lines} lines, at most {FUNCTION_LINES}"
            ));
        }
    }
    faults
}

/// Where the body of the function that `tokens` starts with closes; `None` if it has no body.
fn body_end(tokens: &[(usize, &str)]) -> Option<usize> {
    let mut nested = 0_usize;
    let mut braces = 0_usize;
    for &(offset, word) in tokens {
        match word {
            "(" | "[" => nested += 1,
            ")" | "]" => nested = nested.saturating_sub(1),
            ";" if nested == 0 && braces == 0 => return None,
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if braces == 0 {
                    return Some(offset);
                }
            }
            _ => {}
        }
    }
    None
}

/// Reports a module that does not open with a header saying what it is.
pub fn module_header(source: &Source) -> Vec<String> {
    // A word like "placeholder" says nothing; five or six words may say enough.
    const LEAST: usize = 16;
    let header = source.text.lines().take_while(|line| line.starts_with("//!"));
    let words: usize = header.map(|line| line.trim_start_matches("//!").trim().len()).sum();
    if words >= LEAST {
        return Vec::new();
    }
    vec![format!("{}: opens without a `//!` header that says what the module is", source.path)]
}

/// Reports notes to oneself that name no issue, e.g. without a `(#12)`.
pub fn notes_without_issue(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not report itself.
    let notes =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("X", "XX")];
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for note in notes {
            for (at, _) in line.match_indices(note) {
                let before = line[..at].chars().next_back();
                let after = &line[at + note.len()..];
                if before.is_some_and(is_word_char) || after.starts_with(is_word_char) {
                    continue;
                }
                let issue = after.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
                let named = issue.is_some_and(|(n, _)| n.parse::<u32>().is_ok());
                if !named {
                    faults.push(format!("{path}:{}: `{note}` without an issue", number + 1));
                }
            }
        }
    }
    faults
}

/// Reports paths and hosts that exist on one machine only.
pub fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("index.crates", ".io-"),
        concat!("/opt/", "rust"),
    ];
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for place in places.iter().filter(|place| line.contains(*place)) {
            faults.push(format!("{path}:{}: `{place}` is a place on one machine", number + 1));
        }
    }
    faults
}

/// Reports labels of specifications that do not have the form that `lib.rs` gives them.
pub fn labels(path: &str, text: &str) -> Vec<String> {
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices('[') {
            let Some((label, _)) = line[at + 1..].split_once(']') else { continue };
            let fits = match label.split_once(' ') {
                Some(("WG" | "NOISE", rest)) => rest.strip_prefix('§').is_some_and(digit),
                Some(("RFC", rest)) => digit(rest),
                Some(("LNX", rest)) => rest
                    .split_once(':')
                    .is_some_and(|(file, symbol)| file.contains('.') && !symbol.trim().is_empty()),
                _ => true,
            };
            if !fits {
                faults.push(format!(
                    "{path}:{}: label `[{label}]` is not of lib.rs's form",
                    number + 1
                ));
            }
        }
    }
    faults
}

/// Reports a drop reason that nothing outside its list names: its counter could never move.
pub fn unused_reason(reason: &str, product: &[Source]) -> Option<String> {
    let path = format!("DropReason::{reason}");
    let names_it = |source: &Source| {
        let mut places = source.code.match_indices(&path);
        places.any(|(at, _)| !source.code[at + path.len()..].starts_with(is_word_char))
    };
    (!product.iter().any(names_it)).then(|| format!("`{path}` is never given as a reason"))
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reports relative links of a Markdown file for which `exists` says no.
pub fn dead_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for part in line.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if !(target.is_empty() || target.contains("://") || exists(target)) {
                faults.push(format!("{path}:{}: `{target}` is not there", number + 1));
            }
        }
    }
    faults
}

/// The names of the file's test functions, those in `#[cfg(test)]` modules included.
pub fn test_names(source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = source.text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != "#[test]" {
            continue;
        }
        // Further attributes may stand between.
        let function = lines.by_ref().find(|line| !line.starts_with('#'));
        let name = function.and_then(|line| line.strip_prefix("fn ")?.split('(').next());
        names.extend(name.map(str::to_owned));
    }
    names
}

/// Reports what a document puts in backticks like the name of a test, of which there is none.
pub fn missing_tests(path: &str, text: &str, tests: &HashSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for name in quoted_names(line).filter(|name| !tests.contains(*name)) {
            faults.push(format!("{path}:{}: there is no test `{name}`", number + 1));
        }
    }
    faults
}

/// Reports a label that has no row in the tables of `text`, or whose row names no test that starts
/// with `start` (and the label's number, if `start` is not empty).
pub fn unproved_row(text: &str, label: &str, start: &str) -> Option<String> {
    let Some(row) = text.lines().find(|line| line.starts_with(&format!("| {label} |"))) else {
        return Some(format!("`{label}` has no row"));
    };
    let start = if start.is_empty() { String::new() } else { format!("{start}{label}_") };
    // What cannot be tested says so.
    let excused = start.is_empty() && row.contains("| no test: ");
    let proved = quoted_names(row).any(|name| name.starts_with(&start));
    (!proved && !excused).then(|| format!("the row of `{label}` names no test `{start}…`"))
}

/// What stands in backticks and has the form of a test's name: several words.
fn quoted_names(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        name.bytes().all(is_name) && name.matches('_').count() >= 2
    })
}

mod tests {
    use super::*;

    #[test]
    fn a_row_without_its_test_is_found() {
        let source = at(
            "src/a.rs",
            "mod tests {\n    #[test]\n    #[ignore]\n    fn it_holds_well() {}\n    fn it_helps_only() {}\n}",
        );
        assert_eq!(test_names(&source), ["it_holds_well"]);
        let tests = test_names(&source).into_iter().collect();
        let text = "| P-01 | `tidy.rs` | `it_holds_well` |\n| P-02 | | `it_helps_only` |\n| 3 | | `it_holds_well` |\n| P-04 | | no test: hard |\n";
        let faults = missing_tests("a.md", text, &tests);
        assert_eq!(faults, ["a.md:2: there is no test `it_helps_only`"]);
        assert_eq!(unproved_row(text, "P-01", ""), None);
        assert_eq!(unproved_row(text, "P-04", ""), None);
        assert!(unproved_row(text, "3", "trap_").is_some_and(|fault| fault.contains("trap_3_")));
        assert!(unproved_row(text, "P-05", "").is_some_and(|fault| fault.contains("no row")));
    }

    fn at(path: &str, text: &str) -> Source {
        Source::new(path, text)
    }

    #[test]
    fn an_import_against_the_table_is_found_however_it_is_written() {
        for text in [
            "use crate::control::engine::Engine;",
            "use crate::{time::Now, control::{engine::{Engine, Command}, config}};",
            "use crate::{\n    time,\n    control,\n};",
            "fn f(now: Now) { crate::control::start() }",
            "use super::super::control::engine;",
            "use super::super::{control, time};",
            "use crate::control::*;",
            "pub use crate::control as c;",
        ] {
            let faults = imports(&at("src/proto/peer.rs", text));
            assert!(!faults.is_empty(), "not found: {text}");
            assert!(faults[0].starts_with("src/proto/peer.rs:"), "{faults:?}");
            assert!(faults[0].contains("`proto` must not import `control"), "{faults:?}");
        }
    }

    #[test]
    fn each_branch_of_a_nested_import_is_judged_alone() {
        let text =
            "use crate::{crypto::{aead, dh::{self, dh}}, sys::clock, wire, cli::{up, down}};";
        let faults = imports(&at("src/proto/device.rs", text));
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn an_import_that_the_table_allows_passes() {
        for text in [
            "use crate::{wire::message, crypto::{aead, dh}, time::Now};",
            "use super::keypair::Sealer; use crate::proto::peer;",
            "// use crate::control;\nconst A: &str = \"crate::control::x\";",
            "#[cfg(test)] mod tests { use crate::control::x; }",
            "pub(in crate::control) fn f() {}",
        ] {
            assert_eq!(imports(&at("src/proto/peer.rs", text)), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_row_may_open_one_module_of_a_layer_only() {
        let fine = at("src/packet/train.rs", "use crate::proto::endpoint::Endpoint;");
        assert!(imports(&fine).is_empty());
        for text in ["use crate::proto::device::Device;", "use crate::proto::{endpoint, peer};"] {
            assert_eq!(imports(&at("src/packet/train.rs", text)).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_layer_without_a_row_is_a_fault() {
        assert_eq!(imports(&at("src/util.rs", "")).len(), 1);
    }

    #[test]
    fn the_import_table_has_no_cycle() {
        for (name, allowed) in LAYERS {
            for other in *allowed {
                let other = other.split("::").next().unwrap_or_default();
                let (_, back) = LAYERS.iter().find(|(layer, _)| *layer == other).expect("a row");
                assert!(
                    back.iter().all(|path| path.split("::").next() != Some(name)),
                    "`{name}` and `{other}` import each other"
                );
            }
        }
    }

    #[test]
    fn a_forbidden_word_is_found() {
        for (path, text) in [
            ("src/proto/device.rs", "use std::net::UdpSocket;"),
            ("src/proto/device.rs", "struct A { m: std::sync::Mutex<u8> }"),
            ("src/dataplane/shard.rs", "tokio::spawn(x)"),
            ("src/wire/ip.rs", "fn f() -> Vec<u8> {}"),
            ("src/proto/noise.rs", "use blake2::Blake2s;"),
            ("src/control/engine.rs", "let k = aws_lc_rs::aead::X;"),
        ] {
            assert_eq!(forbidden_words(&at(path, text)).len(), 1, "{text}");
        }
        for (path, text) in [
            ("src/proto/device.rs", "use std::net::SocketAddr; // Mutex"),
            ("src/crypto/hash.rs", "use blake2::Blake2s;"),
            ("src/proto/noise.rs", "let hmac = hash::hmac(&key);"),
        ] {
            assert_eq!(forbidden_words(&at(path, text)), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn unsafe_is_found_where_it_may_not_be() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(unsafe_elsewhere(&at("src/packet/slab.rs", text)).len(), 1);
        assert_eq!(unsafe_elsewhere(&at("tests/it/netns.rs", text)).len(), 1);
        assert_eq!(unsafe_elsewhere(&at("src/crypto/aead.rs", text)).len(), 1);
        assert!(unsafe_elsewhere(&at("src/sys/tun.rs", text)).is_empty());
        assert!(unsafe_elsewhere(&at("src/crypto/batch/mod.rs", text)).is_empty());
        assert!(unsafe_elsewhere(&at("src/lib.rs", "#![deny(unsafe_code)] // unsafe")).is_empty());
    }

    #[test]
    fn a_file_is_counted_without_its_tests() {
        let lines = |n: usize| "const A: u8 = 0;\n".repeat(n);
        let fine = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(FILE_LINES), lines(500));
        assert_eq!(file_budget(&at("src/a.rs", &fine)), Vec::<String>::new());
        assert_eq!(file_budget(&at("src/a.rs", &lines(FILE_LINES + 1))).len(), 1);
    }

    #[test]
    fn a_function_is_counted_from_its_name_to_its_brace() {
        let body = |n: usize| {
            format!("trait T {{ fn g(&self); }}\nfn f(a: [u8; 2]) {{\n{}}}\n", "    ;\n".repeat(n))
        };
        assert!(function_budget(&at("src/a.rs", &body(FUNCTION_LINES - 2))).is_empty());
        let faults = function_budget(&at("src/a.rs", &body(FUNCTION_LINES - 1)));
        assert_eq!(faults, ["src/a.rs:2: `f` has 81 lines, at most 80"]);
    }

    #[test]
    fn a_module_without_a_header_is_a_fault() {
        assert_eq!(module_header(&at("src/a.rs", "use std::fmt;\n")).len(), 1);
        assert_eq!(module_header(&at("src/a.rs", "//! placeholder\n")).len(), 1);
        let fine = "//! Instants as plain numbers: no clock is read here.\n";
        assert!(module_header(&at("src/a.rs", fine)).is_empty());
    }

    #[test]
    fn a_note_to_oneself_needs_an_issue() {
        let note = concat!("TO", "DO");
        for text in
            [format!("// {note}: later"), format!("// {note}(#) x"), format!("# {note}(me)")]
        {
            assert_eq!(notes_without_issue("a.rs", &text).len(), 1, "{text}");
        }
        for text in [format!("// {note}(#12): later"), format!("{note}S"), format!("A_{note}")] {
            assert!(notes_without_issue("a.rs", &text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_path_of_one_machine_is_a_fault() {
        assert_eq!(machine_paths("a.md", concat!("see /wo", "rk/x")).len(), 1);
        assert_eq!(machine_paths("a.md", concat!("in /ho", "me/me/x")).len(), 1);
        assert!(machine_paths("a.md", "/etc/wireguard/wg0.conf").is_empty());
    }

    #[test]
    fn a_label_has_the_form_that_lib_rs_gives_it() {
        for text in ["[WG 5.4]", "[RFC six]", "[LNX noise.c]", "[NOISE 5]"] {
            assert_eq!(labels("a.rs", text).len(), 1, "{text}");
        }
        for text in ["[WG §5.4.2]", "[RFC 6040 §4]", "[LNX noise.c:keep_key_fresh]", "[UAPI]"] {
            assert!(labels("a.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_fault() {
        let text = "[a](there.md) [b](gone.md#x) [c](#here) [d](https://example.org/gone)";
        let faults = dead_links("a.md", text, |link| link == "there.md");
        assert_eq!(faults, ["a.md:1: `gone.md` is not there"]);
    }

    #[test]
    fn a_reason_that_is_never_given_is_a_fault() {
        let product = [at("src/a.rs", "Err(DropReason::LaneFullest) // DropReason::LaneFull")];
        assert!(unused_reason("LaneFull", &product).is_some());
        assert!(unused_reason("LaneFullest", &product).is_none());
    }
}
