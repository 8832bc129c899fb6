//! SOCKS5: CONNECT and UDP ASSOCIATE, with or without a password. [RFC 1928] [RFC 1929]
//!
//! BIND is refused. The reply comes when the other end has answered, and says why if it has not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::names::Failure;
use super::talk::{End, Talk};
use super::way::Client;
use super::{Guest, HEAD_TIMEOUT, associate};
use crate::control::config::parse_host;
use crate::control::ends::HostPort;
use crate::flow::gate::Unreached;

/// Of the protocol, and of the exchange of the password in it.
pub const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;

/// Ways to log in. [RFC 1928 §3]
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NO_WAY: u8 = 0xff;

/// No message of a client is longer.
pub const LONGEST: usize = 3 + 2 * 255;

/// What a wrong password costs.
pub const WRONG_PASSWORD: Duration = Duration::from_secs(1);

/// What became of a request. [RFC 1928 §6]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Granted = 0,
    Failed = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    HopsExhausted = 6,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

impl From<Failure> for Code {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreached(why) => match why {
                Unreached::NoPeer | Unreached::Prohibited => Self::NotAllowed,
                Unreached::Refused => Self::Refused,
                Unreached::HostUnreachable | Unreached::TimedOut => Self::HostUnreachable,
                Unreached::NetworkUnreachable => Self::NetworkUnreachable,
                Unreached::HopsExhausted => Self::HopsExhausted,
                Unreached::TooMany | Unreached::Ending => Self::Failed,
            },
            Failure::NoNameServer | Failure::NameServersElsewhere => Self::NotAllowed,
            Failure::NoName => Self::NoSuchAddress,
            Failure::NotFound | Failure::Unanswered => Self::HostUnreachable,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Connect(HostPort),
    /// Datagrams, which will come from this port, if it is not 0.
    Associate(u16),
    Unknown(Code),
}

type Parsed<T> = Result<Option<(T, usize)>, End>;

/// The ways to log in that a client knows; `None` until all of them are there.
///
/// # Errors
/// This is not SOCKS5.
pub fn methods(said: &[u8]) -> Parsed<Vec<u8>> {
    let [version, count, methods @ ..] = said else { return Ok(None) };
    if *version != VERSION {
        return Err(End::Nonsense);
    }
    let methods = methods.get(..usize::from(*count));
    Ok(methods.map(|methods| (methods.to_vec(), 2 + methods.len())))
}

/// Name and password; `None` until both are there.
///
/// # Errors
/// It is neither.
pub fn login(said: &[u8]) -> Parsed<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let [version, rest @ ..] = said else { return Ok(None) };
    if *version != LOGIN_VERSION {
        return Err(End::Nonsense);
    }
    let Some((user, rest)) = counted(rest) else { return Ok(None) };
    let Some((password, _)) = counted(rest) else { return Ok(None) };
    let length = 3 + user.len() + password.len();
    Ok(Some(((user.to_vec(), Zeroizing::new(password.to_vec())), length)))
}

/// As many bytes as the first one says, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&count, rest) = bytes.split_first()?;
    rest.split_at_checked(count.into())
}

/// What a client asks for; `None` until it has said all of it.
///
/// # Errors
/// It makes no sense.
pub fn request(said: &[u8]) -> Parsed<Asked> {
    const CONNECT: u8 = 1;
    const ASSOCIATE: u8 = 3;
    let [version, command, _reserved, rest @ ..] = said else { return Ok(None) };
    if *version != VERSION {
        return Err(End::Nonsense);
    }
    let Some((address, length)) = address(rest)? else { return Ok(None) };
    let asked = match (*command, address) {
        (CONNECT, Some(place)) => Asked::Connect(place),
        (ASSOCIATE, Some(HostPort::Address(from))) => Asked::Associate(from.port()),
        (CONNECT | ASSOCIATE, _) => Asked::Unknown(Code::NoSuchAddress),
        _ => Asked::Unknown(Code::NoSuchCommand),
    };
    Ok(Some((asked, 3 + length)))
}

/// An address of any of the three kinds; `None` within for what can be none. [RFC 1928 §5]
fn address(bytes: &[u8]) -> Parsed<Option<HostPort>> {
    const V4: u8 = 1;
    const NAME: u8 = 3;
    const V6: u8 = 4;
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let (host, length) = match kind {
        V4 => (rest.get(..4), 4),
        V6 => (rest.get(..16), 16),
        NAME => {
            let Some((&count, name)) = rest.split_first() else { return Ok(None) };
            (name.get(..count.into()), 1 + usize::from(count))
        }
        _ => return Err(End::Nonsense),
    };
    let (Some(host), Some(&[high, low])) =
        (host, rest.get(length..).and_then(<[u8]>::first_chunk::<2>))
    else {
        return Ok(None);
    };
    let port = u16::from_be_bytes([high, low]);
    let ip = match kind {
        V4 => <[u8; 4]>::try_from(host).ok().map(|v4| IpAddr::V4(Ipv4Addr::from(v4))),
        V6 => <[u8; 16]>::try_from(host).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6))),
        _ => None,
    };
    let place = match ip {
        Some(ip) => Some(HostPort::Address(SocketAddr::new(ip, port))),
        None => std::str::from_utf8(host).ok().and_then(|name| parse_host(name, port)),
    };
    Ok(Some((place, 1 + length + 2)))
}

/// The reply to a request. `bound` is where the client is heard, or nothing. [RFC 1928 §6]
fn reply(code: Code, bound: Option<SocketAddr>) -> Vec<u8> {
    let nothing = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut reply = vec![VERSION, code as u8, 0];
    push_address(&mut reply, bound.unwrap_or(nothing));
    reply
}

fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => {
            out.push(1);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(4);
            out.extend(v6.octets());
        }
    }
    out.extend(address.port().to_be_bytes());
}

/// Where a client's datagram goes, and its content. One in pieces is none. [RFC 1928 §7]
pub fn unwrap_datagram(datagram: &[u8]) -> Option<(HostPort, Range<usize>)> {
    let [_, _, fragment, rest @ ..] = datagram else { return None };
    if *fragment != 0 {
        return None;
    }
    let (place, length) = address(rest).ok()??;
    Some((place?, 3 + length..datagram.len()))
}

/// The same for a datagram `from` somebody.
pub fn wrap_datagram(payload: &[u8], from: SocketAddr) -> Vec<u8> {
    let mut datagram = vec![0, 0, 0];
    push_address(&mut datagram, from);
    datagram.extend_from_slice(payload);
    datagram
}

/// Serves one client.
///
/// # Errors
/// Why it was not listened to any further.
pub(super) async fn serve<C: Client>(mut talk: Talk<C>, guest: Guest) -> Result<(), End> {
    let asked = timeout(HEAD_TIMEOUT, negotiate(&mut talk, &guest)).await;
    let asked = asked.map_err(|_| End::Nonsense)??;
    guest.is_heard();
    let code = match asked {
        Asked::Connect(to) => match guest.names.dial(&to).await {
            Ok(opened) => {
                talk.say(&reply(Code::Granted, None)).await?;
                let (stream, already) = talk.into_parts();
                opened.carry(stream, already).await;
                return Ok(());
            }
            Err(failure) => {
                tracing::debug!(%to, %failure, "a client of a proxy was refused");
                Code::from(failure)
            }
        },
        Asked::Associate(port) => match associate::Relay::open(&guest, port) {
            Ok(relay) => {
                talk.say(&reply(Code::Granted, Some(relay.bound()))).await?;
                relay.run(talk.into_parts().0).await;
                return Ok(());
            }
            Err(code) => code,
        },
        Asked::Unknown(code) => code,
    };
    talk.farewell(&reply(code, None)).await;
    Ok(())
}

async fn negotiate<C: Client>(talk: &mut Talk<C>, guest: &Guest) -> Result<Asked, End> {
    let offered = talk.understand(LONGEST, methods).await?;
    let wanted = if guest.login.is_some() { PASSWORD } else { NO_LOGIN };
    if !offered.contains(&wanted) {
        talk.say(&[VERSION, NO_WAY]).await?;
        return Err(End::Nonsense);
    }
    talk.say(&[VERSION, wanted]).await?;
    if guest.login.is_some() {
        let (user, password) = talk.understand(LONGEST, login).await?;
        if !guest.lets_in(&user, &password) {
            sleep(WRONG_PASSWORD).await;
            talk.say(&[LOGIN_VERSION, 1]).await?;
            return Err(End::Nonsense);
        }
        talk.say(&[LOGIN_VERSION, 0]).await?;
    }
    talk.understand(LONGEST, request).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(text: &str) -> HostPort {
        crate::control::config::parse_endpoint(text).unwrap()
    }

    #[test]
    fn messages_are_understood_when_they_are_whole_and_what_follows_is_left() {
        let connect = [5, 1, 0, 3, 4, b'd', b'b', b'.', b'e', 0x15, 0x38];
        for (said, asked) in [
            (&connect[..], Asked::Connect(place("db.e:5432"))),
            (&[5, 1, 0, 1, 10, 0, 0, 1, 0, 80], Asked::Connect(place("10.0.0.1:80"))),
            (
                &[5, 1, 0, 3, 8, b'1', b'0', b'.', b'0', b'.', b'0', b'.', b'1', 0, 80],
                Asked::Connect(place("10.0.0.1:80")),
            ),
            (&[5, 3, 0, 1, 0, 0, 0, 0, 0, 7], Asked::Associate(7)),
            (&[5, 2, 0, 1, 0, 0, 0, 0, 0, 7], Asked::Unknown(Code::NoSuchCommand)),
            (&[5, 1, 0, 3, 1, b' ', 0, 7], Asked::Unknown(Code::NoSuchAddress)),
        ] {
            for end in 0..said.len() {
                assert!(request(&said[..end]).unwrap().is_none(), "{said:?} {end}");
            }
            let more = [said, b"early"].concat();
            assert_eq!(request(&more).unwrap(), Some((asked, said.len())));
        }
        let v6 = [&[5, 1, 0, 4][..], &[0xfd], &[0; 14], &[1, 0, 80]].concat();
        assert_eq!(request(&v6).unwrap().unwrap().0, Asked::Connect(place("[fd00::1]:80")));
        assert_eq!(methods(&[5, 2, 0, 2, 9]).unwrap(), Some((vec![0, 2], 4)));
        let (pair, length) = login(b"\x01\x02ci\x03pwd!").unwrap().unwrap();
        assert_eq!((&*pair.0, &**pair.1, length), (&b"ci"[..], &b"pwd"[..], 8));
        for bad in [&[4, 1, 0][..], &[0x16, 3, 1]] {
            assert!(methods(bad).is_err() && request(bad).is_err() && login(bad).is_err());
        }
    }

    #[test]
    fn datagrams_are_unwrapped_as_they_were_wrapped_and_pieces_are_dropped() {
        for from in ["10.0.0.1:53", "[fd00::1]:53"] {
            let wrapped = wrap_datagram(b"hello", from.parse().unwrap());
            let (to, payload) = unwrap_datagram(&wrapped).unwrap();
            assert_eq!((to.to_string().as_str(), &wrapped[payload]), (from, &b"hello"[..]));
            let mut piece = wrapped.clone();
            piece[2] = 1;
            assert_eq!(unwrap_datagram(&piece), None);
        }
        assert_eq!(unwrap_datagram(&[0, 0, 0, 1, 10, 0, 0, 1, 0]), None);
    }

    #[test]
    fn every_failure_has_the_code_that_the_standard_has_for_it() {
        for (failure, code) in [
            (Unreached::NoPeer.into(), Code::NotAllowed),
            (Unreached::Refused.into(), Code::Refused),
            (Unreached::NetworkUnreachable.into(), Code::NetworkUnreachable),
            (Unreached::TimedOut.into(), Code::HostUnreachable),
            (Unreached::HopsExhausted.into(), Code::HopsExhausted),
            (Failure::NotFound, Code::HostUnreachable),
            (Failure::NoNameServer, Code::NotAllowed),
            (Failure::NameServersElsewhere, Code::NotAllowed),
        ] {
            assert_eq!(Code::from(failure), code, "{failure}");
        }
        assert_eq!(reply(Code::Refused, None), [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut five = vec![5];
            five.extend(&bytes);
            for said in [&bytes, &five] {
                drop((methods(said), login(said), request(said)));
                unwrap_datagram(said);
            }
        }
    }
}
