//! What clients of proxies, the servers that they ask for, and name servers may say.

use std::net::SocketAddr;

use hybridwg::control::ends::HostPort;
use hybridwg::control::proxy::dns::{self as messages, Answer, Family};
use hybridwg::control::proxy::http::chunks::Chunks;
use hybridwg::control::proxy::http::head::{self, Asked, Body};
use hybridwg::control::proxy::socks as protocol;

use super::Choices;

/// Messages of a SOCKS5 client: they are understood when they are whole, not before and not otherwise
/// when more follows, none is longer than is waited for, and an address comes back as it went.
pub fn socks(data: &[u8]) {
    whole(data, protocol::methods);
    whole(data, protocol::login);
    whole(data, protocol::request);
    if let Some((place, payload)) = protocol::unwrap_datagram(data) {
        assert!(data[2] == 0 && payload.end == data.len());
        if let HostPort::Address(place) = place {
            let payload = &data[payload];
            let again = protocol::wrap_datagram(payload, place);
            let (back, at) = protocol::unwrap_datagram(&again).expect("it reads its own");
            let canonical = SocketAddr::new(place.ip().to_canonical(), place.port());
            assert_eq!(back, HostPort::Address(canonical));
            assert_eq!(&again[at], payload);
        }
    }
}

/// What `parse` makes of `data`, which depends on nothing behind the length that it tells.
fn whole<T: PartialEq + std::fmt::Debug, E>(
    data: &[u8],
    parse: fn(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> Option<(T, usize)> {
    let Ok(outcome) = parse(data) else {
        // What makes no sense does so from a certain byte on.
        let first = (0..data.len()).find(|&end| parse(&data[..end]).is_err());
        let first = first.unwrap_or(data.len());
        assert!((first..data.len()).all(|end| parse(&data[..end]).is_err()));
        return None;
    };
    let Some((understood, length)) = outcome else {
        assert!(data.len() < protocol::LONGEST, "more is waited for than comes");
        return None;
    };
    assert!(length <= data.len().min(protocol::LONGEST));
    for end in 0..length {
        assert!(matches!(parse(&data[..end]), Ok(None)), "understood before it was whole");
    }
    let Ok(Some(again)) = parse(&data[..length]) else { panic!("it depends on what follows") };
    assert_eq!(again, (understood, length));
    Some(again)
}

/// Heads of requests and responses, and bodies in chunks, however they come in pieces. What goes on has
/// one place, one end and nothing that is for the proxy, for whoever reads it line by line.
pub fn http(data: &[u8]) {
    if let Ok(Some((request, length))) = head::request(data) {
        assert!(length <= data.len());
        assert_eq!(head::request(&data[..length]), Ok(Some((request, length))));
        assert_eq!(head::request(&data[..length - 1]), Ok(None), "understood before it was whole");
    }
    if let Ok(Some((request, _))) = head::request(data)
        && let Asked::Exchange { head, body } = request.asked
    {
        let fields = fields(&head);
        let count = |name: &str| values(&fields, name).count();
        assert_eq!(count("host"), 1);
        assert_eq!(count("proxy-authorization") + count("keep-alive") + count("te"), 0);
        match body {
            Body::Chunked => {
                assert_eq!((count("transfer-encoding"), count("content-length")), (1, 0));
            }
            Body::Bytes(bytes) => {
                assert_eq!(count("transfer-encoding"), 0);
                let told: Vec<&str> = values(&fields, "content-length").collect();
                match *told {
                    [] => assert_eq!(bytes, 0),
                    [told] => assert_eq!(told.parse(), Ok(bytes)),
                    _ => panic!("two lengths"),
                }
            }
        }
    }
    if let Ok(Some(((head, _), length))) = head::response(data, false) {
        assert!(length <= data.len() && head.starts_with(b"HTTP/1."));
        fields(&head);
    }
    chunked(data);
}

/// The fields of a head that goes on; it says that the connection ends with it.
fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head);
    let text = text.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    let mut lines = text.split("\r\n");
    let first = lines.next().expect("a first line");
    assert!(!first.contains(['\r', '\n']));
    let fields: Vec<_> = lines
        .map(|line| {
            assert!(!line.contains(['\r', '\n']), "a line within a line");
            let (name, value) = line.split_once(':').expect("a name and a value");
            assert!(!name.is_empty() && !name.contains([' ', '\t']));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    assert_eq!(values(&fields, "connection").collect::<Vec<_>>(), ["close"]);
    fields
}

fn values<'f>(fields: &'f [(String, String)], name: &str) -> impl Iterator<Item = &'f str> {
    let named = fields.iter().filter(move |(it, _)| it == name);
    named.map(|(_, value)| &**value)
}

/// The first byte says how long the pieces are.
fn chunked(data: &[u8]) {
    let Some((&piece, body)) = data.split_first() else { return };
    let mut at_once = Chunks::default();
    let taken = at_once.take(body);
    let mut by_pieces = Chunks::default();
    let mut sum = 0;
    for piece in body.chunks(usize::from(piece).max(1)) {
        match by_pieces.take(piece) {
            Ok(length) => {
                assert!(length == piece.len() || by_pieces.is_done());
                sum += length;
            }
            Err(error) => return assert_eq!(taken, Err(error)),
        }
    }
    assert_eq!(taken, Ok(sum));
    assert_eq!(at_once.is_done(), by_pieces.is_done());
    if at_once.is_done() {
        assert!(body[..sum].ends_with(b"\r\n"));
    }
}

/// What comes from a name server, as it is and with our question in front: an answer is one to this
/// question alone, and has addresses of the family that was asked for.
pub fn dns(data: &[u8]) {
    let mut choices = Choices(data);
    let choice = choices.byte();
    let family = if choice & 1 == 0 { Family::V4 } else { Family::V6 };
    let host = if choice & 2 == 0 { "db.example" } else { "a" };
    let question = messages::question(7, host, family).expect("a name");
    assert_eq!(messages::answer(&question, 7, host, family), None, "a question answers nothing");
    let mut message = question;
    if choice & 4 == 0 {
        message = choices.0.to_vec();
    } else {
        // A response with so many records.
        (message[2], message[3]) = (0x80 | choices.byte(), choices.byte());
        message[7] = choices.byte();
        message.extend_from_slice(choices.0);
    }
    let Some(answer) = messages::answer(&message, 7, host, family) else { return };
    assert!(message.len() > 12 && message[..2] == [0, 7] && message[2] & 0x80 != 0);
    assert_eq!(messages::answer(&message, 8, host, family), None);
    assert_eq!(messages::answer(&message, 7, "b", family), None);
    if let Answer::Addresses { addresses, for_how_long } = answer {
        assert!(addresses.iter().all(|it| it.is_ipv4() == (family == Family::V4)));
        assert!(addresses.len() <= message.len() / 12, "a record has more than that");
        assert!(for_how_long.as_secs() <= u32::MAX.into());
        assert!(!addresses.is_empty() || for_how_long.is_zero());
    }
}
