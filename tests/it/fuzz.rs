//! Replays the fuzzing corpora on the stable toolchain, without libFuzzer.
//!
//! Each file of `fuzz/corpus/<target>/` is an input that once reached something new; one that found
//! a fault stays there as its regression test.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[track_caller]
fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        // Shown only if the body panics: the input to look at.
        println!("{}", path.display());
        let input = fs::read(path).unwrap();
        body(&input);
        // Every beginning of it, too: what the parsers see when a sender stops.
        for end in 0..input.len().min(512) {
            body(&input[..end]);
        }
        inputs += 1;
    }
    assert!(inputs >= 3, "{} holds {inputs} inputs", folder.display());
}

#[test]
fn the_aead_corpus_holds() {
    replay("aead", targets::aead);
}

#[test]
fn the_allowed_ips_corpus_holds() {
    replay("allowed_ips", targets::allowed_ips);
}

#[test]
fn the_config_corpus_holds() {
    replay("config", targets::config);
}

#[test]
fn the_uapi_corpus_holds() {
    replay("uapi", targets::uapi);
}

#[test]
fn the_datagram_corpus_holds() {
    replay("datagram", targets::datagram);
}

#[test]
fn the_split_corpus_holds() {
    replay("split", targets::split);
}

#[test]
fn the_coalesce_corpus_holds() {
    replay("coalesce", targets::coalesce);
}

#[test]
fn the_mss_corpus_holds() {
    replay("mss", targets::mss);
}

#[test]
fn the_tcp_corpus_holds() {
    replay("tcp", targets::tcp);
}

#[test]
fn the_flows_corpus_holds() {
    replay("flows", targets::flows);
}

#[test]
fn the_translation_corpus_holds() {
    replay("translation", targets::translation);
}

#[test]
fn the_reassembly_corpus_holds() {
    replay("reassembly", targets::reassembly);
}

#[test]
fn the_socks_corpus_holds() {
    replay("socks", targets::socks);
}

#[test]
fn the_http_corpus_holds() {
    replay("http", targets::http);
}

#[test]
fn the_dns_corpus_holds() {
    replay("dns", targets::dns);
}
