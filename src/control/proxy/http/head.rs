//! Heads of HTTP/1 messages as a proxy passes them on. [RFC 9110] [RFC 9112]
//!
//! What is between us and the client, or us and the server, does not go further: `Connection` and what
//! it names, and above all `Proxy-Authorization`. What says where a message ends goes on unchanged,
//! and a head that leaves that open is refused: two readers would see two messages in it.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::control::config::parse_endpoint;
use crate::control::ends::{HostPort, parse_host_port};

/// No head is longer.
pub const LONGEST: usize = 32 << 10;

/// Nor has more fields.
const FIELDS: usize = 128;

/// Who passes it on. [RFC 9110 §7.6.3]
const VIA: &str = "hybridwg";

/// Fields that never go further. [RFC 9110 §7.6.1]
const OUR_OWN: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "upgrade",
    "via",
];

/// Fields that say where a message goes or ends: no client has them left out.
const FRAMING: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub to: HostPort,
    pub asked: Asked,
    /// A name, a colon and a password.
    pub login: Option<Zeroizing<Vec<u8>>>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A connection.
    Connect,
    /// One exchange: the head for the server, and what follows it.
    Exchange { head: Vec<u8>, body: Body },
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Bytes(u64),
    Chunked,
}

/// How a client knows that a response is all there. [RFC 9112 §6.3]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It has only a head, and another response comes.
    Interim,
    /// The head, or its status, says.
    Told,
    /// It ends with the connection.
    Open,
}

/// Why a request is refused: the status for it, and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: &'static str,
    pub text: &'static str,
}

impl Refusal {
    pub const fn new(status: &'static str, text: &'static str) -> Self {
        Self { status, text }
    }
}

const BAD: &str = "400 Bad Request";

type Parsed<T> = Result<Option<(T, usize)>, Refusal>;

/// Reads the head of a request; `None` until it is whole.
///
/// # Errors
/// The status to answer with.
pub fn request(said: &[u8]) -> Parsed<Request> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(said) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if said.len() < LONGEST => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            let text = "the head of the request is too large";
            return Err(Refusal::new("431 Request Header Fields Too Large", text));
        }
        Err(_) => return Err(Refusal::new(BAD, "this is no request of HTTP/1")),
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Refusal::new(BAD, "this is no request of HTTP/1"));
    };
    let fields = &*head.headers;
    let login = login(fields);
    if method == "CONNECT" {
        let to = parse_host_port(target);
        let to = to.ok_or(Refusal::new(BAD, "CONNECT takes HOST:PORT"))?;
        return Ok(Some((Request { to, asked: Asked::Connect, login }, length)));
    }
    let (authority, path) = absolute(target)?;
    let to = place(authority).ok_or(Refusal::new(BAD, "the URL has no HOST or HOST:PORT"))?;
    let body = body(version, fields)?;
    let path = match (method, path) {
        ("OPTIONS", "") => "*".to_owned(),
        (_, path) if path.starts_with('/') => path.to_owned(),
        (_, path) => format!("/{path}"),
    };
    let first = format!("{method} {path} HTTP/1.{version}\r\nHost: {authority}\r\n");
    let mut head = first.into_bytes();
    push_fields(&mut head, fields, |name| name.eq_ignore_ascii_case("host"))?;
    finish(&mut head, version);
    Ok(Some((Request { to, asked: Asked::Exchange { head, body }, login }, length)))
}

/// Reads the head of a response to a request, which may be HEAD, and makes what goes on to the client. `None`
/// until it is whole.
///
/// # Errors
/// It makes no sense.
pub fn response(said: &[u8], is_head: bool) -> Parsed<(Vec<u8>, Extent)> {
    const SENSELESS: Refusal =
        Refusal::new("502 Bad Gateway", "what the server said is no response of HTTP/1");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(said) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if said.len() < LONGEST => return Ok(None),
        _ => return Err(SENSELESS),
    };
    let (Some(code), Some(version)) = (head.code, head.version) else { return Err(SENSELESS) };
    let reason = head.reason.unwrap_or_default();
    let has = |name| head.headers.iter().any(|field| field.name.eq_ignore_ascii_case(name));
    let has_no_body = is_head || matches!(code, 101 | 204 | 304);
    let extent = if (100..200).contains(&code) && code != 101 {
        Extent::Interim
    } else if has_no_body || has("content-length") || version > 0 && has("transfer-encoding") {
        Extent::Told
    } else {
        Extent::Open
    };
    let mut out = format!("HTTP/1.{version} {code} {reason}\r\n").into_bytes();
    push_fields(&mut out, head.headers, |_| false).map_err(|_| SENSELESS)?;
    finish(&mut out, version);
    Ok(Some(((out, extent), length)))
}

/// The answer that refuses a request. It is the last on its connection.
pub fn refusal(status: &str, text: &str) -> Vec<u8> {
    let challenge = match status.starts_with("407") {
        true => "Proxy-Authenticate: Basic realm=\"hybridwg\"\r\n",
        false => "",
    };
    let length = text.len() + 1;
    let head = format!(
        "HTTP/1.1 {status}\r\n{challenge}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{text}\n"
    );
    head.into_bytes()
}

/// `http://AUTHORITY/PATH` in its two parts.
fn absolute(target: &str) -> Result<(&str, &str), Refusal> {
    let scheme = "http://";
    let rest = match target.split_at_checked(scheme.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(scheme) => rest,
        _ if target.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")) => {
            return Err(Refusal::new(BAD, "https goes through a proxy by CONNECT"));
        }
        _ => {
            return Err(Refusal::new(
                BAD,
                "this is a proxy: it takes http://HOST/PATH and CONNECT",
            ));
        }
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Ok(rest.split_at(end))
}

/// Port 80 goes without saying.
fn place(authority: &str) -> Option<HostPort> {
    // With a name and a password in front of it, it would be none. [RFC 9110 §4.2.4]
    parse_host_port(authority).or_else(|| {
        let is_bare = !authority.ends_with(']') && !authority.contains(':');
        let is_v6 = authority.starts_with('[') && authority.ends_with(']');
        if is_bare || is_v6 { parse_endpoint(&format!("{authority}:80")) } else { None }
    })
}

/// Where the message ends. [RFC 9112 §6.3]
fn body(version: u8, fields: &[httparse::Header<'_>]) -> Result<Body, Refusal> {
    let unclear = Refusal::new(BAD, "it is unclear where the request ends");
    let values = |name: &'static str| {
        let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.trim_ascii())
    };
    let mut lengths = values("content-length");
    let mut codings = values("transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Body::Bytes(0)),
        (Some(length), None) if lengths.next().is_none() => {
            let digits = length.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(length).ok().filter(|_| digits);
            number.and_then(|number| number.parse().ok()).map(Body::Bytes).ok_or(unclear)
        }
        // HTTP/1.0 knows no codings: who passes it on may not have looked for one. [RFC 9112 §6.1]
        (None, Some(coding))
            if version > 0
                && coding.eq_ignore_ascii_case(b"chunked")
                && codings.next().is_none() =>
        {
            Ok(Body::Chunked)
        }
        _ => Err(unclear),
    }
}

/// Adds the fields that go further.
fn push_fields(
    out: &mut Vec<u8>,
    fields: &[httparse::Header<'_>],
    is_left_out: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let named: Vec<&[u8]> = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("connection"))
        .flat_map(|field| field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii))
        .collect();
    let is_in = |list: &[&str], name: &[u8]| {
        list.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name))
    };
    if named.iter().any(|name| is_in(&FRAMING, name)) {
        return Err(Refusal::new(BAD, "Connection names a field that must go on"));
    }
    for httparse::Header { name, value } in fields {
        let is_own = is_in(&OUR_OWN, name.as_bytes())
            || named.iter().any(|own| own.eq_ignore_ascii_case(name.as_bytes()));
        if !is_own && !is_left_out(name) {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    // What others on the way have said of themselves stays.
    for via in fields.iter().filter(|field| field.name.eq_ignore_ascii_case("via")) {
        for part in [b"Via: ", via.value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    Ok(())
}

fn finish(out: &mut Vec<u8>, version: u8) {
    out.extend(format!("Via: 1.{version} {VIA}\r\nConnection: close\r\n\r\n").into_bytes());
}

/// The name and the password that a client gives. [RFC 7617]
fn login(fields: &[httparse::Header<'_>]) -> Option<Zeroizing<Vec<u8>>> {
    let mut given =
        fields.iter().filter(|field| field.name.eq_ignore_ascii_case("proxy-authorization"));
    let value = std::str::from_utf8(given.next()?.value).ok()?;
    let (scheme, text) = value.trim().split_once(' ')?;
    let decoded = Base64::decode_vec(text.trim()).ok().map(Zeroizing::new);
    decoded.filter(|_| scheme.eq_ignore_ascii_case("basic"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(head: &str) -> Result<Request, &'static str> {
        match request(head.as_bytes()) {
            Ok(Some((request, length))) => {
                assert_eq!(length, head.len());
                Ok(request)
            }
            Ok(None) => panic!("not whole: {head:?}"),
            Err(refusal) => Err(refusal.status),
        }
    }

    fn exchange(head: &str) -> (String, String, Body) {
        let request = parse(head).unwrap();
        let Asked::Exchange { head, body } = request.asked else { panic!("no exchange") };
        (request.to.to_string(), String::from_utf8(head).unwrap(), body)
    }

    #[test]
    fn an_exchange_goes_on_in_the_form_for_servers_without_what_is_for_the_proxy() {
        let (to, head, body) = exchange(
            "POST http://web.example:8080/a?b HTTP/1.1\r\nHost: other.example\r\n\
             Proxy-Authorization: Basic Y2k6cHc=\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
             Keep-Alive: 5\r\nTE: trailers\r\nVia: 1.0 before\r\nContent-Length: 3\r\nAccept: */*\r\n\r\n",
        );
        assert_eq!((to.as_str(), body), ("web.example:8080", Body::Bytes(3)));
        assert_eq!(
            head,
            "POST /a?b HTTP/1.1\r\nHost: web.example:8080\r\nContent-Length: 3\r\nAccept: */*\r\n\
             Via: 1.0 before\r\nVia: 1.1 hybridwg\r\nConnection: close\r\n\r\n"
        );
        for (target, place, path) in [
            ("http://a", "a:80", "GET / "),
            ("HTTP://10.0.0.1/x", "10.0.0.1:80", "GET /x "),
            ("http://[fd00::1]?q", "[fd00::1]:80", "GET /?q "),
            ("http://[fd00::1]:81/", "[fd00::1]:81", "GET / "),
        ] {
            let (to, head, body) = exchange(&format!("GET {target} HTTP/1.0\r\n\r\n"));
            assert_eq!((to.as_str(), body), (place, Body::Bytes(0)), "{target}");
            assert!(head.starts_with(path), "{head}");
        }
        let chunked = "PUT http://a/ HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(exchange(chunked).2, Body::Chunked);
        assert!(exchange("OPTIONS http://a HTTP/1.1\r\n\r\n").1.starts_with("OPTIONS * HTTP/1.1"));
    }

    #[test]
    fn a_request_that_two_readers_could_read_differently_is_refused() {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +3\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Connection: Content-Length\r\nContent-Length: 3\r\n",
            "Connection: close, host\r\n",
        ] {
            let head = format!("POST http://a/ HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(parse(&head), Err("400 Bad Request"), "{fields:?}");
        }
        let old = "POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(old), Err("400 Bad Request"));
        for line in [
            "GET / HTTP/1.1",
            "GET https://a/ HTTP/1.1",
            "GET http://user@a/ HTTP/1.1",
            "GET http://a:b/ HTTP/1.1",
            "GET http:/// HTTP/1.1",
            "CONNECT a HTTP/1.1",
            "CONNECT a:0 HTTP/1.1",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(parse(&format!("{line}\r\n\r\n")), Err("400 Bad Request"), "{line:?}");
        }
        let long = format!("GET http://a/{} HTTP/1.1", "x".repeat(LONGEST));
        assert_eq!(
            request(long.as_bytes()).unwrap_err().status,
            "431 Request Header Fields Too Large"
        );
        assert_eq!(request(b"GET http://a/ HTTP/1.1\r\nA: b\r\n"), Ok(None));
    }

    #[test]
    fn a_connection_has_a_place_and_a_login() {
        let request =
            parse("CONNECT db.example:443 HTTP/1.1\r\nProxy-Authorization: basic Y2k6cHc=\r\n\r\n");
        let request = request.unwrap();
        assert_eq!(
            (request.to.to_string().as_str(), request.asked),
            ("db.example:443", Asked::Connect)
        );
        assert_eq!(request.login.unwrap().as_slice(), b"ci:pw");
        let none = parse("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Bearer Y2k6cHc=\r\n\r\n");
        assert!(none.unwrap().login.is_none());
    }

    #[test]
    fn a_response_is_the_last_on_its_connection_unless_it_is_interim() {
        let said = b"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi";
        let ((head, extent), length) = response(said, false).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 hybridwg\r\nConnection: close\r\n\r\n"
        );
        assert_eq!((extent, length), (Extent::Told, said.len() - 2));
        for (said, extent) in [
            ("HTTP/1.1 100 Continue\r\n\r\n", Extent::Interim),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Extent::Told),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Extent::Open),
            ("HTTP/1.1 200 OK\r\n\r\n", Extent::Open),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Extent::Told),
            ("HTTP/1.1 204 No Content\r\n\r\n", Extent::Told),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", Extent::Told),
        ] {
            assert_eq!(response(said.as_bytes(), false).unwrap().unwrap().0.1, extent, "{said}");
            let to_head = if extent == Extent::Interim { extent } else { Extent::Told };
            assert_eq!(response(said.as_bytes(), true).unwrap().unwrap().0.1, to_head, "{said}");
        }
        assert!(response(b"SSH-2.0\r\n", false).is_err());
        assert_eq!(response(b"HTTP/1.1 200", false), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop((request(&bytes), response(&bytes, false)));
            let text = String::from_utf8_lossy(&bytes);
            drop(request(format!("GET http://{text} HTTP/1.1\r\n{text}\r\n\r\n").as_bytes()));
        }
    }
}
