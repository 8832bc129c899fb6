//! The answers of the command line that need no device.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hybridwg")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_of_another_program_makes_no_interface_and_names_what_to_type() {
    for (arguments, meant) in [
        (&["set", "wg0", "listen-port", "1"][..], "`wg set`"),
        (&["showconf", "wg0"], "`wg showconf`"),
        (&["-f", "setconf"], "`wg setconf`"),
        (&["--foreground", "--", "all"], "`hybridwg show all`"),
        (&["status"], "`hybridwg show`"),
        (&["version"], "`hybridwg --version`"),
        (&["interfaces"], "`hybridwg show interfaces`"),
    ] {
        let output = run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(&format!("hint: it is {meant};")), "{arguments:?}: {told}");
    }
}

#[test]
fn a_command_behind_an_option_makes_no_interface() {
    for word in ["save", "up", "show", "genkey"] {
        let output = run(&["-f", word]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{word}: {told}");
        assert!(told.contains(&format!("`hybridwg {word}`")), "{word}: {told}");
    }
}

#[test]
fn help_is_printed_when_it_is_asked_for_in_any_way() {
    let [word, option] = ["help", "--help"].map(|way| {
        let output = run(&[way]);
        assert!(output.status.success(), "{way}");
        text(&output.stdout)
    });
    assert_eq!(word, option);
    assert!(word.contains("Usage: hybridwg"), "{word}");
}

#[test]
fn wq_01_wrong_usage_ends_with_status_2_and_prints_no_result() {
    for command in ["up", "down", "save", "strip", "reload", "check"] {
        for arguments in [&[command][..], &[command, "a", "b"], &[command, "/no/such/wg0.conf"]] {
            let output = run(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            assert_eq!(text(&output.stdout), "", "{arguments:?}");
            assert!(!output.stderr.is_empty(), "{arguments:?}");
        }
    }
}

#[test]
fn wg_01_without_arguments_the_help_is_printed_and_the_version_if_it_is_asked_for() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage: hybridwg"));
    for option in ["-V", "--version"] {
        let output = run(&[option]);
        assert!(output.status.success());
        assert_eq!(text(&output.stdout), concat!("hybridwg ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}
