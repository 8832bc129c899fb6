//! The names of routing tables, as iproute2 keeps them.
//!
//! `rt_tables` in `/etc/iproute2`, then the one that the package ships, then the files `*.conf` in
//! the folders beside both; the first that has the name counts. [ip-route(8)]

use std::fs;
use std::path::{Path, PathBuf};

const ETC: &str = "/etc/iproute2";
/// Where packages of iproute2 6.5 and later put their own.
const SHIPPED: &str = "/usr/share/iproute2";

/// The tables that have a name without any file.
const OF_THE_KERNEL: [(&str, u32); 3] = [("default", 253), ("main", 254), ("local", 255)];

/// The number of the table of that name.
pub fn find(name: &str) -> Option<u32> {
    find_in(&[Path::new(ETC), Path::new(SHIPPED)], name)
}

fn find_in(folders: &[&Path], name: &str) -> Option<u32> {
    let mut files: Vec<PathBuf> = folders.iter().map(|folder| folder.join("rt_tables")).collect();
    files.extend(folders.iter().flat_map(|folder| more_files(&folder.join("rt_tables.d"))));
    let in_files = files.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| {
        text.lines().filter_map(entry).find(|(_, entry)| *entry == name).map(|(number, _)| number)
    });
    in_files.or_else(|| {
        OF_THE_KERNEL.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number)
    })
}

/// In the order of their names.
fn more_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    files
}

/// `NUMBER NAME`, where the number may be hexadecimal.
fn entry(line: &str) -> Option<(u32, &str)> {
    let mut words = line.split('#').next()?.split_whitespace();
    let (number, name) = (words.next()?, words.next()?);
    let number = match number.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => number.parse().ok()?,
    };
    // 0 is no table.
    (number != 0).then_some((number, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WQ-18.
    #[test]
    fn names_come_from_the_files_of_iproute2_and_those_of_the_kernel_from_nowhere() {
        let (etc, shipped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = |name| find_in(&[etc.path(), shipped.path()], name);
        assert_eq!((find("main"), find("local"), find("vpn")), (Some(254), Some(255), None));
        let text = "#\n# reserved\n255\tlocal\n0\tunspec\n  100 vpn # mine\n0x1f other\nx y\n7\n";
        fs::write(shipped.path().join("rt_tables"), text).unwrap();
        assert_eq!((find("vpn"), find("other"), find("unspec")), (Some(100), Some(31), None));
        fs::write(etc.path().join("rt_tables"), "200 vpn\n").unwrap();
        fs::create_dir(etc.path().join("rt_tables.d")).unwrap();
        fs::write(etc.path().join("rt_tables.d/a.conf"), "300 more\n").unwrap();
        fs::write(etc.path().join("rt_tables.d/a.txt"), "400 ignored\n").unwrap();
        assert_eq!((find("vpn"), find("more"), find("ignored")), (Some(200), Some(300), None));
    }
}
