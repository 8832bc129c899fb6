//! `/etc/resolv.conf` while a tunnel is up: the tunnel's lines, and in comments what stood there.
//!
//! Nothing else is needed to restore the file, not even after a reboot, and of several tunnels each
//! can go first. The one that came last decides. Whoever rewrites the file meanwhile has the last
//! word: without our comments there is nothing to restore. Lines that somebody has added stay.

/// The text with the lines of this tunnel in charge.
pub fn with(text: Option<&str>, interface: &str, lines: &[String]) -> String {
    let mut file = File::read(text);
    file.tunnels.retain(|(name, _)| name != interface);
    file.tunnels.push((interface.to_owned(), lines.to_vec()));
    file.write().unwrap_or_default()
}

/// The text without this tunnel; `None` if there was no file before the first one.
pub fn without(text: Option<&str>, interface: &str) -> Option<String> {
    let mut file = File::read(text);
    file.tunnels.retain(|(name, _)| name != interface);
    file.write()
}

const MARK: &str = "#hybridwg";
const HEADER: &str = "# hybridwg has put the lines of a tunnel in place of those in the comments.";

#[derive(Default)]
struct File {
    /// The file without tunnels, split at line breaks; nothing if there was none.
    base: Vec<String>,
    /// By their names, in the order in which they came.
    tunnels: Vec<(String, Vec<String>)>,
}

impl File {
    fn read(text: Option<&str>) -> Self {
        let mut file = Self::default();
        let Some(text) = text else { return file };
        let mut unmarked = Vec::new();
        for line in text.split('\n') {
            let marked = line.strip_prefix(MARK).and_then(|rest| rest.split_once(": "));
            match marked {
                Some(("", line)) => file.base.push(line.to_owned()),
                Some((name, line)) => file.add(name.trim_start(), line),
                None => unmarked.push(line.to_owned()),
            }
        }
        if file.tunnels.is_empty() {
            return Self { base: unmarked, ..Self::default() };
        }
        let ours = file.active();
        let added = unmarked
            .into_iter()
            .filter(|line| !line.is_empty() && line != HEADER && !ours.contains(line));
        // Before the line break at the end.
        let end = file.base.len() - usize::from(file.base.last().is_some_and(String::is_empty));
        let added: Vec<String> = added.collect();
        file.base.splice(end..end, added);
        file
    }

    fn add(&mut self, interface: &str, line: &str) {
        match self.tunnels.iter_mut().find(|(name, _)| name == interface) {
            Some((_, lines)) => lines.push(line.to_owned()),
            None => self.tunnels.push((interface.to_owned(), vec![line.to_owned()])),
        }
    }

    fn write(&self) -> Option<String> {
        if self.tunnels.is_empty() {
            return (!self.base.is_empty()).then(|| self.base.join("\n"));
        }
        let mut lines = vec![HEADER.to_owned()];
        lines.extend(self.active());
        for (name, theirs) in &self.tunnels {
            lines.extend(theirs.iter().map(|line| format!("{MARK} {name}: {line}")));
        }
        lines.extend(self.base.iter().map(|line| format!("{MARK}: {line}")));
        Some(lines.join("\n") + "\n")
    }

    /// What the resolver is to read.
    fn active(&self) -> Vec<String> {
        let Some((_, theirs)) = self.tunnels.last() else { return Vec::new() };
        let has_servers = theirs.iter().any(|line| key(line) == "nameserver");
        let has_search = theirs.iter().any(|line| key(line) == "search");
        let stays = |line: &&String| match key(line) {
            "nameserver" => !has_servers,
            "search" | "domain" => !has_servers && !has_search,
            "" => false,
            word => !word.starts_with(['#', ';']),
        };
        let mut lines = theirs.clone();
        if has_search && !has_servers {
            let more = self.base.iter().filter(|line| matches!(key(line), "search" | "domain"));
            let words = more.flat_map(|line| line.split_whitespace().skip(1));
            let words: Vec<&str> = words.collect();
            for search in lines.iter_mut().filter(|line| key(line) == "search") {
                *search = [&[search.as_str()], words.as_slice()].concat().join(" ");
            }
        }
        lines.extend(self.base.iter().filter(stays).cloned());
        lines
    }
}

fn key(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "# by hand\nnameserver 192.0.2.53\nsearch lan\noptions edns0\n";

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn read_by_a_resolver(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn a_tunnels_servers_are_the_only_ones_and_the_file_comes_back_to_the_byte() {
        for base in [BASE, "", "nameserver 192.0.2.53", "\n\n"] {
            let during = with(Some(base), "wg0", &lines(&["nameserver 10.0.0.53"]));
            let options = if base == BASE { &["options edns0"][..] } else { &[] };
            assert_eq!(read_by_a_resolver(&during), [&["nameserver 10.0.0.53"], options].concat());
            assert_eq!(with(Some(&during), "wg0", &lines(&["nameserver 10.0.0.53"])), during);
            assert_eq!(without(Some(&during), "wg1").as_ref(), Some(&during));
            assert_eq!(without(Some(&during), "wg0").as_deref(), Some(base));
        }
        let alone = with(None, "wg0", &lines(&["nameserver 10.0.0.53"]));
        assert_eq!(without(Some(&alone), "wg0"), None);
        assert_eq!(without(None, "wg0"), None);
    }

    /// U-03.
    #[test]
    fn search_domains_alone_come_before_those_of_the_host_and_leave_its_servers() {
        let during = with(Some(BASE), "wg0", &lines(&["search a.test b.test"]));
        assert_eq!(
            read_by_a_resolver(&during),
            ["search a.test b.test lan", "nameserver 192.0.2.53", "options edns0"]
        );
        assert_eq!(without(Some(&during), "wg0").as_deref(), Some(BASE));
    }

    #[test]
    fn the_tunnel_that_came_last_decides_and_each_can_go_first() {
        let one = with(Some(BASE), "wg0", &lines(&["nameserver 10.0.0.1"]));
        let both = with(Some(&one), "wg1", &lines(&["nameserver 10.0.0.2", "search b.test"]));
        assert_eq!(
            read_by_a_resolver(&both),
            ["nameserver 10.0.0.2", "search b.test", "options edns0"]
        );
        assert_eq!(without(Some(&both), "wg1"), Some(one));
        let other = without(Some(&both), "wg0").unwrap();
        assert_eq!(read_by_a_resolver(&other), read_by_a_resolver(&both));
        assert_eq!(without(Some(&other), "wg1").as_deref(), Some(BASE));
    }

    #[test]
    fn what_others_write_meanwhile_stays() {
        let during = with(Some(BASE), "wg0", &lines(&["nameserver 10.0.0.53"]));
        let added = during + "options rotate\n";
        let after = without(Some(&added), "wg0").unwrap();
        assert_eq!(after, BASE.to_owned() + "options rotate\n");
        assert_eq!(without(Some("nameserver 9.9.9.9\n"), "wg0").unwrap(), "nameserver 9.9.9.9\n");
    }
}
