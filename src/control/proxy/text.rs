//! What is to be listened for, and where a client wants to be led, as lines of the UAPI socket. These
//! keys and operations are our own. [UAPI]

use std::fmt::{self, Write};

use super::names::Failure;
use super::{Serve, Serving};
use crate::control::config::parse_endpoint;
use crate::control::ends::parse_user;
use crate::control::ends::{Forward, HostPort, Listen, Login, Proxy, ProxyKind, ResolveVia};
use crate::control::uapi::{Errno, Operation, reply};
use crate::crypto::password::Password;

/// `replace`: what follows takes the place of what there was. `restore`: what was before the last
/// change does.
pub const SERVE: &str = "hybridwg_serve";
const FORWARD: &str = "hybridwg_serve_forward";
/// What it speaks, a blank, and where.
const PROXY: &str = "hybridwg_serve_proxy";
/// Of the proxy before: the user.
const USER: &str = "hybridwg_serve_user";
/// And the password in hexadecimal; without it, that which there was stays.
const PASSWORD: &str = "hybridwg_serve_password";
const NAME_SERVER: &str = "hybridwg_serve_name_server";
const RESOLVE_VIA: &str = "hybridwg_serve_resolve_via";

/// Whether a key is one of these.
pub fn is_key(key: &str) -> bool {
    key.starts_with(SERVE)
}

/// Takes one line.
///
/// # Errors
/// It makes no sense at this place.
pub fn line(serve: &mut Option<Serve>, key: &str, value: &str) -> Result<(), &'static str> {
    let said = match (key, value) {
        (SERVE, "replace") => Some(Serve::Replace(Serving::default())),
        (SERVE, "restore") => Some(Serve::Restore),
        _ => None,
    };
    if said.is_some() {
        *serve = said;
        return Ok(());
    }
    let Some(Serve::Replace(serving)) = serve else {
        return Err("a listener without hybridwg_serve=replace before it");
    };
    let last = serving.proxies.last_mut();
    let understood = match key {
        FORWARD => Forward::parse(value).ok().map(|forward| serving.forwards.push(forward)),
        PROXY => proxy(value).map(|proxy| serving.proxies.push(proxy)),
        USER => last.zip(parse_user(value)).map(|(proxy, user)| {
            proxy.login = Some(Login { user, passfile: None, password: None });
        }),
        PASSWORD => {
            let login = last.and_then(|proxy| proxy.login.as_mut());
            login.zip(password(value)).map(|(login, password)| login.password = Some(password))
        }
        NAME_SERVER => value.parse().ok().map(|it| serving.resolving.servers.push(it)),
        RESOLVE_VIA => {
            let via = ResolveVia::ALL.into_iter().find(|via| via.name() == value);
            via.map(|via| serving.resolving.via = via)
        }
        _ => None,
    };
    understood.ok_or("a listener that makes no sense")
}

fn proxy(value: &str) -> Option<Proxy> {
    let (kind, listen) = value.split_once(' ')?;
    let kind = ProxyKind::ALL.into_iter().find(|it| it.name() == kind)?;
    // Whoever may configure a device has been asked already whether it may be open.
    Some(Proxy { kind, listen: Listen::parse(listen)?, login: None, open: true })
}

fn password(hex: &str) -> Option<Password> {
    let digits = zeroize::Zeroizing::new(hex.as_bytes().to_vec());
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let byte = |pair: &[u8]| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?);
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    let text = zeroize::Zeroizing::new(String::from_utf8(bytes?).ok()?);
    Password::new(&text)
}

/// The lines that say the same.
pub fn write(out: &mut impl Write, serve: &Serve) -> fmt::Result {
    let Serve::Replace(serving) = serve else { return writeln!(out, "{SERVE}=restore") };
    writeln!(out, "{SERVE}=replace")?;
    for forward in &serving.forwards {
        writeln!(out, "{FORWARD}={forward}")?;
    }
    for Proxy { kind, listen, login, .. } in &serving.proxies {
        writeln!(out, "{PROXY}={} {listen}", kind.name())?;
        let Some(Login { user, password, .. }) = login else { continue };
        writeln!(out, "{USER}={user}")?;
        if let Some(password) = password {
            write!(out, "{PASSWORD}=")?;
            password.as_text().bytes().try_for_each(|byte| write!(out, "{byte:02x}"))?;
            writeln!(out)?;
        }
    }
    for server in &serving.resolving.servers {
        writeln!(out, "{NAME_SERVER}={server}")?;
    }
    writeln!(out, "{RESOLVE_VIA}={}", serving.resolving.via.name())
}

/// The operation after which the stream is a connection.
const CONNECT: &str = "connect";

/// The request for a connection to `to`.
pub fn request(to: &HostPort) -> String {
    format!("{CONNECT}={to}\n\n")
}

/// Where the first line of a request wants to be led, if it is that.
pub fn asked(line: &[u8]) -> Option<HostPort> {
    let line = std::str::from_utf8(line).ok()?;
    parse_endpoint(line.strip_prefix(CONNECT)?.strip_prefix('=')?)
}

/// That the stream is the connection from here on, or why not.
pub fn answer(outcome: Result<(), Failure>) -> String {
    match outcome {
        Ok(()) => reply(Operation::Get, Ok(())),
        Err(failure) => {
            format!("reason={failure}\n{}", reply(Operation::Get, Err(Errno::UNREACHED)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listened_for_comes_back_as_written_with_its_passwords() {
        let kinds = ProxyKind::ALL.into_iter().zip(["127.0.0.1:1080", "[::]:8080", "unix:/s"]);
        let proxies = kinds.map(|(kind, listen)| {
            let mut proxy = Proxy::parse(kind, &format!("{listen} open=yes")).unwrap();
            let password = Some(Password::new("pä ss").unwrap());
            let login = Login { user: "ci".to_owned(), passfile: None, password };
            proxy.login = (kind != ProxyKind::Socks5).then_some(login);
            if kind == ProxyKind::Both {
                proxy.login.as_mut().unwrap().password = None;
            }
            proxy
        });
        let forward = Forward::parse("127.0.0.1:53/udp dns.example:53 idle=9").unwrap();
        let mut serving =
            Serving { forwards: vec![forward], proxies: proxies.collect(), ..Serving::default() };
        serving.resolving.servers =
            vec!["10.0.0.53:53".parse().unwrap(), "[fd00::53]:53".parse().unwrap()];
        serving.resolving.via = ResolveVia::System;
        let mut text = String::new();
        let serve = Serve::Replace(serving);
        write(&mut text, &serve).unwrap();
        let mut read = None;
        for pair in text.lines() {
            let (key, value) = pair.split_once('=').unwrap();
            assert!(is_key(key));
            line(&mut read, key, value).unwrap();
        }
        assert_eq!(read, Some(serve));
    }

    #[test]
    fn lines_out_of_place_are_refused() {
        assert!(line(&mut None, FORWARD, "127.0.0.1:1 a:1").is_err());
        assert!(line(&mut Some(Serve::Restore), FORWARD, "127.0.0.1:1 a:1").is_err());
        let mut serving = Some(Serve::Replace(Serving::default()));
        for (key, value) in [
            (USER, "ci"),
            (PASSWORD, "00"),
            (PROXY, "socks4 127.0.0.1:1"),
            (PROXY, "socks5"),
            (SERVE, "on"),
            ("hybridwg_serve_x", "1"),
        ] {
            assert!(line(&mut serving, key, value).is_err(), "{key}={value}");
        }
        line(&mut serving, PROXY, "socks5 127.0.0.1:1").unwrap();
        line(&mut serving, USER, "ci").unwrap();
        for hex in ["", "0", "zz", "ff"] {
            assert!(line(&mut serving, PASSWORD, hex).is_err(), "{hex}");
        }
    }

    #[test]
    fn a_request_for_a_connection_names_a_place() {
        let place = asked(b"connect=db.example:22").unwrap();
        assert_eq!(request(&place), "connect=db.example:22\n\n");
        assert!(asked(b"connect=db").is_none() && asked(b"connect").is_none());
    }
}
