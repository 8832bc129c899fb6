//! Ends of the tunnel as ssh(1) spells them, `-L`, `-R` and `-D`, as lines of a configuration file.
//!
//! IPv6 addresses stand in brackets. `/udp` behind the whole is our own.

use super::{Expose, Forward, Listen, Protocol, Proxy, ProxyKind, Target};
use super::{parse_host_port, parse_port, parse_target};

/// What `-L` takes.
const LOCAL: &str = "[ADDRESS:]PORT:HOST:PORT or /PATH:HOST:PORT, and /udp behind it for UDP";
/// What `-R` takes.
const REMOTE: &str = "PORT:HOST:PORT or PORT:/PATH, and /udp behind it for UDP";
/// What `-D` takes.
const DYNAMIC: &str = "[ADDRESS:]PORT";

/// `-L`: a listener on this host, on loopback unless an address is named, that leads to a place in
/// the tunnel.
///
/// # Errors
/// What is accepted.
pub fn local(text: &str) -> Result<String, String> {
    let refused = || format!("accepted is {LOCAL}");
    let (text, protocol) = with_protocol(text);
    let parts = parts(text).ok_or_else(refused)?;
    let forward = match *parts {
        [port, host, to] if !port.starts_with('/') => {
            Some((listener("localhost", port), format!("{host}:{to}")))
        }
        [path, host, to] => Some((Listen::parse(&format!("unix:{path}")), format!("{host}:{to}"))),
        [address, port, host, to] => Some((listener(address, port), format!("{host}:{to}"))),
        _ => None,
    };
    let forward = forward.and_then(|(listen, to)| {
        let listen = listen?;
        let is_possible = protocol == Protocol::Tcp || matches!(listen, Listen::Address(_));
        let to = parse_host_port(&to).filter(|_| is_possible)?;
        Some(Forward { listen, protocol, to, idle: None })
    });
    forward.map(|forward| format!("Forward = {forward}")).ok_or_else(refused)
}

/// `-R`: a port of the tunnel's addresses, behind which peers find a service of this host.
///
/// # Errors
/// What is accepted.
pub fn remote(text: &str) -> Result<String, String> {
    let refused = || format!("accepted is {REMOTE}");
    let (text, protocol) = with_protocol(text);
    let parts = parts(text).ok_or_else(refused)?;
    let (port, target) = match *parts {
        [port, path] => (port, format!("unix:{path}")),
        [port, host, to] => (port, format!("{host}:{to}")),
        // The addresses of the tunnel are those of the file, all of them.
        _ => return Err(refused()),
    };
    let (port, target) = parse_port(port).zip(parse_target(&target)).ok_or_else(refused)?;
    if protocol == Protocol::Udp && matches!(target, Target::Unix(_)) {
        return Err(refused());
    }
    let expose = Expose { port, protocol, target, from: vec![], source: None, proxy_v2: false };
    Ok(format!("Expose = {expose}"))
}

/// `-D`: a SOCKS5 proxy, on loopback unless an address is named.
///
/// # Errors
/// What is accepted, or that everybody would be let in.
pub fn dynamic(text: &str) -> Result<String, String> {
    let parts = parts(text);
    let listen = match parts.as_deref() {
        Some([port]) => listener("localhost", port),
        Some([address, port]) => listener(address, port),
        _ => None,
    };
    let listen = listen.ok_or_else(|| format!("accepted is {DYNAMIC}"))?;
    let proxy = Proxy { kind: ProxyKind::Socks5, listen, login: None, open: false };
    if proxy.is_left_open() {
        return Err(format!(
            "everybody who reaches {listen} would be let in: the key Socks5 of the file takes \
             user= and passfile=, or open=yes",
            listen = proxy.listen
        ));
    }
    Ok(format!("Socks5 = {}", proxy.listen))
}

/// Behind which colons it is cut: not those inside brackets.
fn parts(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut start, mut is_inside) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' if !is_inside && at == start => is_inside = true,
            b']' if is_inside => is_inside = false,
            b'[' | b']' => return None,
            b':' if !is_inside => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    (!is_inside).then_some(found)
}

fn with_protocol(text: &str) -> (&str, Protocol) {
    match text.strip_suffix("/udp") {
        Some(text) => (text, Protocol::Udp),
        None => (text, Protocol::Tcp),
    }
}

/// No address is all addresses, as for ssh.
fn listener(address: &str, port: &str) -> Option<Listen> {
    Listen::parse(&format!("{address}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_forward_listens_on_loopback_unless_told_otherwise() {
        for (text, line) in [
            ("8080:web.example:80", "127.0.0.1:8080 web.example:80"),
            ("[::1]:8080:[fd00::1]:80", "[::1]:8080 [fd00::1]:80"),
            ("0.0.0.0:8080:10.0.0.1:80", "0.0.0.0:8080 10.0.0.1:80"),
            ("*:8080:10.0.0.1:80", "[::]:8080 10.0.0.1:80"),
            (":8080:10.0.0.1:80", "[::]:8080 10.0.0.1:80"),
            ("/run/db.sock:10.0.0.1:5432", "unix:/run/db.sock 10.0.0.1:5432"),
            ("5353:10.0.0.1:53/udp", "127.0.0.1:5353/udp 10.0.0.1:53"),
        ] {
            assert_eq!(local(text), Ok(format!("Forward = {line}")), "{text}");
        }
        for text in
            ["", "80", "80:a", "0:a:1", "a:b:c:d:e", "1:[::1:2", "80:/s", "/s:a:1/udp", "1:a]:2"]
        {
            let told = local(text).unwrap_err();
            assert!(told.contains("[ADDRESS:]PORT:HOST:PORT"), "{text}: {told}");
        }
    }

    #[test]
    fn a_remote_forward_exposes_a_service_to_the_peers() {
        for (text, line) in [
            ("5432:localhost:5432", "5432 127.0.0.1:5432"),
            ("5432:[::1]:5433", "5432 [::1]:5433"),
            ("5432:/run/postgresql/s", "5432 unix:/run/postgresql/s"),
            ("53:127.0.0.1:53/udp", "53/udp 127.0.0.1:53"),
        ] {
            assert_eq!(remote(text), Ok(format!("Expose = {line}")), "{text}");
        }
        for text in ["", "80", "10.0.0.1:80:a:1", "80:a:0", "53:/s/udp", "80:relative"] {
            assert!(remote(text).unwrap_err().contains("PORT:HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn a_dynamic_forward_is_a_proxy_that_is_not_left_open() {
        assert_eq!(dynamic("1080").as_deref(), Ok("Socks5 = 127.0.0.1:1080"));
        assert_eq!(dynamic("[::1]:1080").as_deref(), Ok("Socks5 = [::1]:1080"));
        for open in ["*:1080", ":1080", "0.0.0.0:1080", "10.0.0.1:1080"] {
            assert!(dynamic(open).unwrap_err().contains("would be let in"), "{open}");
        }
        for text in ["", "x", "a:b:c", "0"] {
            assert_eq!(dynamic(text).unwrap_err(), "accepted is [ADDRESS:]PORT", "{text}");
        }
    }
}
