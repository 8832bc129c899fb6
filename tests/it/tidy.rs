//! The repository keeps its own rules: layers, budgets, headers, and what must not be in it.
//!
//! Each rule is a function in `rules`, tested there on a fault of its own; here they meet the files.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use hybridwg::control::config;
use hybridwg::crypto::key::PublicKey;
use hybridwg::proto::drop_reason::DropReason;

mod rules;
mod source;

use source::Source;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &[".git", "target", "artifacts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below the root, as path from there and content, in the order of their paths.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let entry = entry.expect("an entry of that folder");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("its type");
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    folders.push(entry.path());
                }
            } else if kind.is_file() {
                let path = entry.path();
                let below = path.strip_prefix(root()).expect("a path below the root");
                let content = fs::read(&path).expect("a file of the repository");
                found.push((below.to_string_lossy().into_owned(), content));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the walk found next to nothing: {}", found.len());
    found
}

fn texts() -> Vec<(String, String)> {
    let texts = files().into_iter();
    texts.filter_map(|(path, content)| Some((path, String::from_utf8(content).ok()?))).collect()
}

fn sources() -> Vec<Source> {
    let rust = texts().into_iter().filter(|(path, _)| path.ends_with(".rs"));
    rust.map(|(path, text)| Source::new(&path, &text)).collect()
}

/// The files under `src` that are not test code.
fn product() -> Vec<Source> {
    sources().into_iter().filter(|source| !source.is_test()).collect()
}

#[track_caller]
fn assert_none(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_import_follows_the_layer_table() {
    assert_none(product().iter().flat_map(rules::imports));
}

#[test]
fn no_layer_names_what_it_must_not() {
    assert_none(product().iter().flat_map(rules::forbidden_words));
}

#[test]
fn unsafe_has_two_addresses() {
    assert_none(sources().iter().flat_map(rules::unsafe_elsewhere));
}

#[test]
fn files_stay_within_their_budget() {
    assert_none(product().iter().flat_map(rules::file_budget));
}

#[test]
fn functions_stay_within_their_budget() {
    assert_none(product().iter().flat_map(rules::function_budget));
}

#[test]
fn every_module_opens_with_its_header() {
    assert_none(product().iter().flat_map(rules::module_header));
}

#[test]
fn every_note_to_oneself_names_an_issue() {
    assert_none(texts().iter().flat_map(|(path, text)| rules::notes_without_issue(path, text)));
}

#[test]
fn nothing_names_a_place_on_one_machine() {
    assert_none(texts().iter().flat_map(|(path, text)| rules::machine_paths(path, text)));
}

#[test]
fn labels_have_the_form_that_lib_rs_gives_them() {
    let labelled = product().into_iter().filter(|source| source.path != "src/lib.rs");
    assert_none(labelled.flat_map(|source| rules::labels(&source.path, &source.text)));
}

#[test]
fn every_drop_reason_is_explained_in_a_sentence_and_has_a_name_of_its_own() {
    let mut names = HashSet::new();
    for reason in DropReason::ALL {
        let (name, explanation) = (reason.name(), reason.explanation());
        assert!(names.insert(name), "two reasons are called {name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        assert!(explanation.starts_with(char::is_uppercase), "{name}: {explanation}");
        assert!(explanation.ends_with(['.', ']']), "{name}: {explanation}");
    }
}

#[test]
fn every_drop_reason_is_given_by_something() {
    let home = "src/proto/drop_reason.rs";
    let product: Vec<_> = product().into_iter().filter(|source| source.path != home).collect();
    let reasons = DropReason::ALL.map(|reason| format!("{reason:?}"));
    assert_none(reasons.iter().filter_map(|reason| rules::unused_reason(reason, &product)));
}

#[test]
fn every_configuration_parses_once_keys_stand_for_its_words_in_capitals() {
    let is_config = |path: &str| path.starts_with("configs/") && path.ends_with(".conf");
    let configs = texts().into_iter().filter(|(path, _)| is_config(path));
    let mut count = 0;
    for (path, text) in configs {
        let written = config::parse(&with_keys(&text), &path);
        let faults = written.as_ref().err().into_iter().flatten();
        assert_none(faults.map(ToString::to_string));
        let written = written.expect("no faults");
        assert!(written.warnings.is_empty(), "{path}: {:?}", written.warnings);
        count += 1;
    }
    assert!(count >= 2, "hub and client are not in configs/");
}

/// Puts a key of its own in for each of `HUB_PRIVATE_KEY`, `CLIENT_PUBLIC_KEY` and the like.
pub fn with_keys(text: &str) -> String {
    let mut keys = 0;
    let line_with_key = |line: &str| match line.split_once(" = ") {
        Some((key, word)) if key.ends_with("Key") && word.ends_with("_KEY") => {
            keys += 1;
            format!("{key} = {}", PublicKey::from_bytes([keys; 32]).to_base64())
        }
        _ => line.to_owned(),
    };
    text.lines().map(line_with_key).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let documents = texts().into_iter().filter(|(path, _)| path.ends_with(".md"));
    assert_none(documents.flat_map(|(path, text)| {
        let folder = root().join(&path).parent().expect("a file has a folder").to_path_buf();
        rules::dead_links(&path, &text, |link| folder.join(link).exists())
    }));
}

/// The names of all test functions.
fn tests_of_the_repository() -> HashSet<String> {
    sources().iter().flat_map(rules::test_names).collect()
}

#[test]
fn every_rule_names_tests_that_exist() {
    let tests = tests_of_the_repository();
    let text = fs::read_to_string(root().join("docs/rules.md")).expect("it is there");
    assert_none(rules::missing_tests("docs/rules.md", &text, &tests));
    // 25 is the choice of a cipher, which only a benchmark can judge.
    let traps = (1..=29).filter(|&trap| trap != 25).map(|trap| (trap.to_string(), "trap_"));
    let rules = [1..=22, 30..=37, 40..=50, 60..=65, 70..=74, 80..=80].into_iter().flatten();
    let flows = (1..=20).map(|rule: u32| (format!("F-{rule:02}"), ""));
    let rows = rules.map(|rule: u32| (format!("P-{rule:02}"), "")).chain(flows).chain(traps);
    assert_none(rows.filter_map(|(label, start)| rules::unproved_row(&text, &label, start)));
}

/// The rows of wg-quick, wg and the configuration protocol that we keep a list of.
fn parity_labels() -> impl Iterator<Item = String> {
    let rows = [("WQ", 33), ("WG", 15), ("UA", 11)];
    rows.into_iter().flat_map(|(kind, last)| (1..=last).map(move |row| format!("{kind}-{row:02}")))
}

#[test]
fn every_behaviour_of_wg_quick_and_wg_has_a_test_or_is_told_to_differ() {
    let text = fs::read_to_string(root().join("docs/compatibility.md")).expect("it is there");
    let tests: String = sources().iter().map(rules::test_text).collect();
    let is_tested = |label: &str| {
        tests.contains(label) || tests.contains(&label.to_ascii_lowercase().replace('-', "_"))
    };
    assert_none(parity_labels().filter_map(|label| {
        let is_told = text.contains(&format!("| {label} |"));
        (!is_told && !is_tested(&label)).then(|| format!("{label}: neither tested nor told"))
    }));
}

#[test]
fn the_picture_stays_short() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    assert!(text.lines().count() <= 200, "ARCHITECTURE.md has more than 200 lines");
}

#[test]
fn no_file_is_large() {
    let large = files().into_iter().filter(|(_, content)| content.len() > rules::FILE_BYTES);
    assert_none(large.map(|(path, content)| format!("{path}: {} bytes", content.len())));
}
