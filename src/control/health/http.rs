//! `/healthz`, `/readyz` and `/startupz`: 200 or 503, with the reasons in JSON.
//!
//! As little of HTTP/1.1 as probes need: GET and HEAD, one request a connection. Bounded: so many
//! connections at once, so many bytes of a request, so much time for all of it. [RFC 9112]

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::debug;

use super::{Question, judge};
use crate::control::uapi::server::Command;

/// Connections that are served at once. The next one ends the oldest: nobody can keep a probe out by
/// holding connections, and have the tunnel started anew for it.
const CONNECTIONS: usize = 64;

/// Bytes of a request line and its headers; those of a kubelet are about 150.
const REQUEST_BYTES: usize = 4096;
const HEADERS: usize = 32;

/// For a request to arrive, and for its answer to go.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// How long nothing is accepted where no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// The page of a question.
const fn path(question: Question) -> &'static str {
    match question {
        Question::Live => "/healthz",
        Question::Started => "/startupz",
        Question::Ready => "/readyz",
    }
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, commands: mpsc::Sender<Command>) {
    let mut served: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                served.retain(|connection| !connection.is_finished());
                if served.len() == CONNECTIONS
                    && let Some(oldest) = served.pop_front()
                {
                    oldest.abort();
                }
                let commands = commands.clone();
                let connection = tokio::spawn(async move {
                    // Who asks too slowly, or hangs up, does not want the answer.
                    let _ = timeout(REQUEST_WITHIN, converse(stream, &commands)).await;
                });
                served.push_back(connection.abort_handle());
            }
            Err(error) => {
                debug!(%error, "cannot accept a probe");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, commands: &mpsc::Sender<Command>) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    let asked = loop {
        if let Some(asked) = understand(&request) {
            break asked;
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let answer = match asked {
        Asked::Health { question, is_head } => {
            let reasons = judge(question, commands).await;
            let answer = Answer::of(&reasons);
            if is_head { answer.without_body() } else { answer }
        }
        Asked::Nonsense(answer) => answer,
    };
    stream.write_all(answer.0.as_bytes()).await?;
    stream.shutdown().await?;
    // Until the other side has hung up, too: a reset would overtake the answer where something of the
    // request is left unread.
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// What somebody wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Health {
        question: Question,
        is_head: bool,
    },
    /// To be answered without a look at the tunnel.
    Nonsense(Answer),
}

/// What the bytes so far ask for; `None` if there are more to come.
fn understand(bytes: &[u8]) -> Option<Asked> {
    let nonsense = |status, reason: &str| Some(Asked::Nonsense(Answer::refusal(status, reason)));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return nonsense("431 Request Header Fields Too Large", "the headers are too large");
        }
        Err(_) => return nonsense("400 Bad Request", "this is no HTTP/1.1"),
    }
    let (method, target) = (request.method?, request.path?);
    let page = target.split(['?', '#']).next().unwrap_or(target);
    let Some(question) = Question::ALL.into_iter().find(|question| path(*question) == page) else {
        let pages = Question::ALL.map(path).join(", ");
        return nonsense("404 Not Found", &format!("there are {pages}"));
    };
    match method {
        "GET" | "HEAD" => Some(Asked::Health { question, is_head: method == "HEAD" }),
        _ => nonsense("405 Method Not Allowed\r\nAllow: GET, HEAD", "only GET and HEAD"),
    }
}

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
struct Answer(String);

#[derive(Serialize)]
struct Body<'a> {
    status: &'static str,
    reasons: &'a [String],
}

impl Answer {
    fn of(reasons: &[String]) -> Self {
        match reasons {
            [] => Self::new("200 OK", "ok", reasons),
            _ => Self::new("503 Service Unavailable", "failed", reasons),
        }
    }

    fn refusal(status: &str, reason: &str) -> Self {
        Self::new(status, "refused", &[reason.to_owned()])
    }

    /// `line` is the status, and after it headers of its own.
    fn new(line: &str, status: &'static str, reasons: &[String]) -> Self {
        let body = serde_json::to_string(&Body { status, reasons }).expect("texts are JSON") + "\n";
        let length = body.len();
        Self(format!(
            "HTTP/1.1 {line}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    /// As HEAD has it. [RFC 9110 §9.3.2]
    fn without_body(self) -> Self {
        let end = self.0.find("\r\n\r\n").map_or(self.0.len(), |end| end + 4);
        Self(self.0[..end].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &str) -> Option<String> {
        match understand(bytes.as_bytes())? {
            Asked::Health { question, is_head } => Some(format!("{} {is_head}", question.name())),
            Asked::Nonsense(Answer(text)) => Some(text.split(' ').nth(1)?.to_owned()),
        }
    }

    #[test]
    fn the_three_pages_are_found_and_anything_else_is_refused_with_a_reason() {
        for (request, expected) in [
            ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", Some("live false")),
            ("HEAD /readyz?x=1 HTTP/1.0\r\n\r\n", Some("ready true")),
            ("GET /startupz HTTP/1.1\r\n\r\n", Some("started false")),
            ("GET /readyz HTTP/1.1\r\nHost: a\r\n", None),
            ("", None),
            ("GET /metrics HTTP/1.1\r\n\r\n", Some("404")),
            ("GET /readyz/ HTTP/1.1\r\n\r\n", Some("404")),
            ("POST /readyz HTTP/1.1\r\n\r\n", Some("405")),
            ("SSH-2.0-x\r\n", Some("400")),
            ("\x05\x01\x00", Some("400")),
        ] {
            assert_eq!(status(request).as_deref(), expected, "{request:?}");
        }
        let endless = format!("GET /readyz HTTP/1.1\r\nX: {}", "y".repeat(REQUEST_BYTES));
        assert_eq!(status(&endless).as_deref(), Some("431"));
        let many = format!("GET /readyz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
        assert_eq!(status(&many).as_deref(), Some("431"));
    }

    #[test]
    fn reasons_are_json_and_head_has_the_headers_alone() {
        let Answer(text) = Answer::of(&["a \"b\"".to_owned()]);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(body, "{\"status\":\"failed\",\"reasons\":[\"a \\\"b\\\"\"]}\n");
        let Answer(alone) = Answer::of(&["a \"b\"".to_owned()]).without_body();
        assert_eq!(alone, format!("{head}\r\n\r\n"));
        let Answer(fine) = Answer::of(&[]);
        assert!(fine.starts_with("HTTP/1.1 200 OK\r\n"), "{fine}");
        assert!(fine.ends_with("{\"status\":\"ok\",\"reasons\":[]}\n"), "{fine}");
    }
}
