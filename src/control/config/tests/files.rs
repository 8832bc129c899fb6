//! Which file a word means, who may read it, and what is no text.

use super::*;

fn folder_with(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let text = format!("[Interface]\nPrivateKey = {KEY}\n");
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn wq_03_a_word_is_a_file_here_if_it_is_one_and_else_an_interface_name() {
    let here = folder_with(&["wg0.conf", "wg1"]);
    let etc = folder_with(&["wg0.conf", "wg1.conf", "wg2.conf.conf"]);
    let locate = |argument: &str| locate(argument, here.path(), etc.path());
    let found = |interface: &str, path| Ok(Located { interface: interface.to_owned(), path });
    assert_eq!(locate("wg0.conf"), found("wg0", here.path().join("wg0.conf")));
    let dotted = locate("./wg0.conf");
    assert_eq!(dotted, found("wg0", here.path().join("wg0.conf")));
    let told = dotted.unwrap().path.display().to_string();
    assert_eq!(told, format!("{}/wg0.conf", here.path().display()), "no dot in between");
    assert_eq!(locate("wg0"), found("wg0", etc.path().join("wg0.conf")));
    assert_eq!(locate("wg1"), found("wg1", etc.path().join("wg1.conf")));
    assert_eq!(locate("wg2.conf"), found("wg2.conf", etc.path().join("wg2.conf.conf")));
    let absolute = etc.path().join("wg1.conf");
    assert_eq!(locate(absolute.to_str().unwrap()), found("wg1", absolute));
}

#[test]
fn wq_03_a_missing_file_is_named() {
    let here = folder_with(&[]);
    let etc = folder_with(&[]);
    let missing = |argument| locate(argument, here.path(), etc.path()).unwrap_err();
    assert_eq!(missing("wg0"), LocateError::Missing(etc.path().join("wg0.conf")));
    assert_eq!(missing("a/wg0.conf"), LocateError::Missing(here.path().join("a/wg0.conf")));
    let told = missing("wg0.conf").to_string();
    assert!(told.contains("./wg0.conf") && told.contains("wg0.conf.conf"), "{told}");
}

#[test]
fn a_file_that_cannot_be_looked_for_is_not_said_to_be_missing() {
    let here = folder_with(&[]);
    // As of a folder that may not be entered, which root may.
    std::os::unix::fs::symlink("a", here.path().join("a")).unwrap();
    let located = locate("a/wg0.conf", here.path(), here.path()).unwrap();
    assert!(matches!(load(&located.path), Err(LoadError::Unreadable { .. })));
    assert!(locate("wg0", here.path(), &here.path().join("a")).is_ok());
}

#[test]
fn wq_04_the_file_is_named_after_the_interface_as_it_was_typed() {
    let here = folder_with(&["a-very-long-name.conf", "wg0.txt", "x y.conf"]);
    for argument in ["./a-very-long-name.conf", "./wg0.txt", "./x y.conf", "a b", ""] {
        assert_eq!(
            locate(argument, here.path(), here.path()),
            Err(LocateError::Name),
            "{argument:?}"
        );
    }
    std::os::unix::fs::symlink("wg0.txt", here.path().join("wg7.conf")).unwrap();
    assert_eq!(locate("wg7.conf", here.path(), here.path()).unwrap().interface, "wg7");
}

#[test]
fn wq_05_a_file_is_world_accessible_if_it_and_its_folder_share_a_bit_for_others() {
    let folder = folder_with(&["wg0.conf"]);
    let path = folder.path().join("wg0.conf");
    let key = &*format!("PrivateKey = {KEY}");
    for (folder_mode, file_mode, line, warned) in [
        (0o700, 0o644, key, false),
        (0o755, 0o600, key, false),
        (0o755, 0o640, key, false),
        (0o755, 0o644, key, true),
        (0o711, 0o644, key, false),
        (0o711, 0o601, key, true),
        (0o755, 0o644, &*format!("#{key}"), true),
        (0o755, 0o644, "Socks5 = *:1 user=a password=b", true),
        (0o755, 0o644, "PrivateKeyFile = password", false),
        (0o777, 0o606, "MTU = 1400", true),
    ] {
        fs::write(&path, format!("[Interface]\n{line}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(folder_mode)).unwrap();
        let warnings = load(&path).unwrap().warnings;
        let mut told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        told.retain(|text| !text.contains("has no PrivateKey"));
        let expected = format!("`{}' is world accessible", path.display());
        let expected = if warned { vec![expected] } else { vec![] };
        assert_eq!(told, expected, "{folder_mode:o} {file_mode:o} {line}");
    }
}

#[test]
fn wq_05_permissions_are_those_of_the_file_behind_a_link() {
    let outside = folder_with(&["wg0.conf"]);
    let inside = folder_with(&[]);
    let (real, link) = (outside.path().join("wg0.conf"), inside.path().join("wg0.conf"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(inside.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(load(&link).unwrap().warnings.len(), 1);
}

#[test]
fn a_file_that_is_no_text_is_told_by_its_line() {
    let folder = folder_with(&[]);
    let path = folder.path().join("wg0.conf");
    fs::write(&path, b"[Interface]\n# \xff\n").unwrap();
    assert!(matches!(load(&path), Err(LoadError::NotText { line: 2, .. })));
    fs::write(&path, "[Interface]\nMTU = x\n").unwrap();
    let Err(LoadError::Faulty { errors, .. }) = load(&path) else { panic!("accepted") };
    assert_eq!((errors.len(), errors[0].line), (1, 2));
    assert!(matches!(load(Path::new("/nonexistent")), Err(LoadError::Unreadable { .. })));
}

#[test]
fn whatever_has_the_faults_is_named_and_not_the_file_alone() {
    let folder = folder_with(&["wg0.conf", "wg1.conf"]);
    let beside = [Lines { name: "HYBRIDWG_EXTRA".to_owned(), text: "Forward = x".to_owned() }];
    let told = |name: &str, beside: &[Lines]| {
        let error = load_with(&folder.path().join(name), beside).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    assert_eq!(told("wg0.conf", &beside), "faults in HYBRIDWG_EXTRA");
    fs::write(folder.path().join("wg1.conf"), "[Interface]\nMTU = x\nDNS = ,,%\n").unwrap();
    assert_eq!(told("wg1.conf", &[]), "faults in wg1.conf");
    assert_eq!(told("wg1.conf", &beside), "faults in wg1.conf and HYBRIDWG_EXTRA");
}
