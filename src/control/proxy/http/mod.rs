//! An HTTP proxy: connections by CONNECT, and single exchanges of any method. [RFC 9110 §7]
//!
//! An exchange has a connection to its server to itself, and both end with it: nothing of one request
//! can be taken for part of another.

pub mod chunks;
pub mod head;

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{sleep, timeout};

use self::chunks::Chunks;
use self::head::{Asked, Body, Extent, LONGEST, Refusal, Request};
use super::names::Failure;
use super::socks::WRONG_PASSWORD;
use super::talk::{End, Talk};
use super::way::{Client, Duplex, Listening};
use super::{Guest, HEAD_TIMEOUT};
use crate::flow::gate::Unreached;

/// Bytes of a body that are moved at once.
const PIECE: usize = 16 << 10;

/// How long a server may be silent when its client has ended its side, and at most twice that: the client
/// may be gone, which only what it is sent would tell.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why there is no request.
enum Trouble {
    End(End),
    Refused(Refusal),
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The answer to who asked for what cannot be reached.
fn refusal_for(failure: Failure) -> (&'static str, String) {
    let status = match failure {
        Failure::Unreached(Unreached::NoPeer | Unreached::Prohibited)
        | Failure::NoNameServer
        | Failure::NameServersElsewhere => "403 Forbidden",
        Failure::Unreached(Unreached::TooMany | Unreached::Ending) => "503 Service Unavailable",
        Failure::Unreached(Unreached::TimedOut) | Failure::Unanswered => "504 Gateway Timeout",
        Failure::NoName => "400 Bad Request",
        Failure::Unreached(_) | Failure::NotFound => "502 Bad Gateway",
    };
    (status, failure.to_string())
}

/// Serves one client.
///
/// # Errors
/// Why it was not listened to any further.
pub(super) async fn serve<C: Client>(mut talk: Talk<C>, guest: Guest) -> Result<(), End> {
    let mut attempts = Attempts::default();
    let head = talk.understand(LONGEST, |said| head_of(said, &mut attempts));
    let asked = timeout(HEAD_TIMEOUT, head).await;
    let late = Refusal { status: "408 Request Timeout", text: "the request took too long" };
    let outcome = asked.unwrap_or(Err(Trouble::Refused(late)));
    let outcome = match outcome {
        Ok(request) => admit(request, &guest).await,
        Err(trouble) => Err(trouble),
    };
    let Request { to, asked, .. } = match outcome {
        Ok(request) => request,
        Err(Trouble::End(end)) => return Err(end),
        Err(Trouble::Refused(Refusal { status, text })) => {
            talk.farewell(&head::refusal(status, text)).await;
            return Ok(());
        }
    };
    guest.is_heard();
    let opened = match guest.names.dial(&to).await {
        Ok(opened) => opened,
        Err(failure) => {
            tracing::debug!(%to, %failure, "a client of a proxy was refused");
            let (status, text) = refusal_for(failure);
            talk.farewell(&head::refusal(status, &text)).await;
            return Ok(());
        }
    };
    match asked {
        Asked::Connect => {
            talk.say(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            let (stream, already) = talk.into_parts();
            opened.carry(stream, already).await;
        }
        Asked::Exchange { head, body } => {
            exchange(talk, opened.into_stream()?, &head, body, PATIENCE).await;
        }
    }
    Ok(())
}

fn head_of(said: &[u8], attempts: &mut Attempts) -> Result<Option<(Request, usize)>, Trouble> {
    if attempts.are_worth(said) { Ok(head::request(said)?) } else { Ok(None) }
}

/// When to read a head, which may come byte by byte from who has no password yet: as soon as it may be
/// whole, and whenever it has doubled, so that what makes no sense is told soon.
#[derive(Default)]
struct Attempts {
    seen: usize,
    last: usize,
    has_begun: bool,
}

impl Attempts {
    fn are_worth(&mut self, said: &[u8]) -> bool {
        // An empty line that was not whole when it was seen ends with a byte that was not.
        let fresh = said.get(self.seen.saturating_sub(2)..).unwrap_or_default();
        self.seen = said.len();
        // Empty lines before it are not its end.
        self.has_begun |= fresh.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        let has_ended = fresh.windows(2).any(|end| end == b"\n\n")
            || fresh.windows(3).any(|end| end == b"\n\r\n");
        let is_due =
            self.has_begun && has_ended || self.seen >= 2 * self.last || self.seen >= LONGEST;
        if is_due {
            self.last = self.seen;
        }
        is_due
    }
}

/// Lets in who has the password, if there is one.
async fn admit(request: Request, guest: &Guest) -> Result<Request, Trouble> {
    if guest.login.is_none() {
        return Ok(request);
    }
    if let Some(login) = &request.login {
        let colon = login.iter().position(|&byte| byte == b':').unwrap_or(login.len());
        let (user, password) = login.split_at(colon);
        if guest.lets_in(user, password.get(1..).unwrap_or_default()) {
            return Ok(request);
        }
        sleep(WRONG_PASSWORD).await;
    }
    let status = "407 Proxy Authentication Required";
    Err(Refusal { status, text: "this proxy wants a name and a password" }.into())
}

/// Passes a request on, and what is answered back. It ends with the answer, or when the client is gone.
async fn exchange<C: Client>(
    talk: Talk<C>,
    server: impl Duplex,
    head: &[u8],
    body: Body,
    patience: Duration,
) {
    let (client, said) = talk.into_parts();
    let mut listening = Listening::new(client);
    let client = &mut listening.client;
    let outcome = converse(client, said, server, head, body, patience).await;
    let last = match outcome {
        Ok(()) => Vec::new(),
        Err(Trouble::Refused(Refusal { status, text })) => head::refusal(status, text),
        Err(Trouble::End(_)) => return,
    };
    if client.write_all(&last).await.is_ok() {
        // Failing, the client has gone already.
        drop(client.shutdown().await);
    }
    listening.has_heard_all = true;
}

/// The exchange itself.
///
/// # Errors
/// What the client is to be answered; or that it is gone, or must not take what it has for the whole.
async fn converse(
    client: &mut impl Client,
    said: Vec<u8>,
    server: impl Duplex,
    head: &[u8],
    body: Body,
    patience: Duration,
) -> Result<(), Trouble> {
    let (mut client_reads, mut client_writes) = split(client);
    let (server_reads, mut server_writes) = split(server);
    let is_head = head.starts_with(b"HEAD ");
    let reads = Reads::default();
    let up = async {
        let sent = async {
            server_writes.write_all(head).await?;
            send_body(said, &mut client_reads, &mut server_writes, body).await
        };
        match sent.await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(error),
            // A server that will not hear more may still have said why.
            Ok(()) | Err(_) => {}
        }
        // Nothing that the client says counts any more, but that it ends.
        let mut piece = vec![0; PIECE];
        while client_reads.read(&mut piece).await? > 0 {}
        Ok(())
    };
    let mut down = pin!(answer(server_reads, &mut client_writes, &reads, is_head));
    tokio::select! {
        outcome = &mut down => return outcome,
        ended = up => ended.map_err(End::Gone)?,
    }
    loop {
        let pending = reads.pending();
        match timeout(patience, &mut down).await {
            Ok(outcome) => return outcome,
            Err(silence) if pending.is_some() && pending == reads.pending() => {
                return Err(End::Gone(silence.into()).into());
            }
            // The server has said something, or a slow client is still at it.
            Err(_) => {}
        }
    }
}

/// How many reads of a server's have begun and ended, so that one is under way if the number is odd.
/// Ordering: relaxed, nothing else hangs on it.
#[derive(Default)]
struct Reads(AtomicU64);

impl Reads {
    /// The one that is under way.
    fn pending(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| count % 2 == 1)
    }

    async fn count<T>(&self, read: impl Future<Output = T>) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        let outcome = read.await;
        self.0.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

/// Sends the body, of which `said` is the beginning, and nothing that follows it.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the client ends, or makes no sense, before it does.
async fn send_body(
    said: Vec<u8>,
    mut client: impl AsyncRead + Unpin,
    server: &mut (impl AsyncWrite + Unpin),
    body: Body,
) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut chunks = Chunks::default();
    let mut left = if let Body::Bytes(bytes) = body { bytes } else { 0 };
    let mut piece = said;
    loop {
        let length = match body {
            Body::Bytes(_) => usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()),
            Body::Chunked => chunks.take(&piece).map_err(|_| gone())?,
        };
        server.write_all(&piece[..length]).await?;
        left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
        let is_done = if body == Body::Chunked { chunks.is_done() } else { left == 0 };
        if is_done {
            return server.flush().await;
        }
        piece.resize(PIECE, 0);
        let length = client.read(&mut piece).await.map_err(|_| gone())?;
        if length == 0 {
            return Err(gone());
        }
        piece.truncate(length);
    }
}

/// Passes on what the server answers to a request, which may be HEAD, until it ends.
async fn answer(
    mut server: impl AsyncRead + Unpin,
    client: &mut (impl AsyncWrite + Unpin),
    reads: &Reads,
    is_head: bool,
) -> Result<(), Trouble> {
    let failed = |error| Trouble::End(End::Gone(error));
    let mut said = Vec::new();
    loop {
        while let Some(((head, extent), length)) = head::response(&said, is_head)? {
            client.write_all(&head).await.map_err(failed)?;
            said.drain(..length);
            if extent != Extent::Interim {
                let passed = pass(said, server, client, reads).await;
                // Of what is cut off a client sees that it is, if it was told the length.
                return if extent == Extent::Told { Ok(()) } else { passed.map_err(failed) };
            }
        }
        if !matches!(reads.count(server.read_buf(&mut said)).await, Ok(1..)) {
            let text = "the server has ended without an answer";
            return Err(Refusal { status: "502 Bad Gateway", text }.into());
        }
    }
}

/// Passes on the body of an answer, of which `piece` is the beginning.
async fn pass(
    mut piece: Vec<u8>,
    mut server: impl AsyncRead + Unpin,
    client: &mut (impl AsyncWrite + Unpin),
    reads: &Reads,
) -> io::Result<()> {
    loop {
        client.write_all(&piece).await?;
        piece.resize(PIECE, 0);
        let length = reads.count(server.read(&mut piece)).await?;
        if length == 0 {
            return Ok(());
        }
        piece.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::super::tests::{SOON, run};
    use super::*;

    /// An exchange between the two others of the four ends, which are an application and a server.
    fn begin(client: impl Client, server: impl Duplex + 'static, patience: Duration) {
        ask(b"GET / HTTP/1.1\r\n\r\n", client, server, patience);
    }

    fn ask(
        head: &'static [u8],
        client: impl Client,
        server: impl Duplex + 'static,
        patience: Duration,
    ) {
        tokio::spawn(exchange(Talk::new(client), server, head, Body::Bytes(0), patience));
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_read_when_it_is_whole_and_else_seldom() {
        for end in ["\r\n", "\n"] {
            let before = end.repeat(500);
            let head =
                format!("{before}GET http://a/{} HTTP/1.1{end}A: b{end}{end}", "x".repeat(9000));
            let (mut attempts, mut count) = (Attempts::default(), 0);
            for at in 1..head.len() {
                count += u32::from(attempts.are_worth(&head.as_bytes()[..at]));
            }
            assert!(count < 20, "{count}");
            let more = [head.as_bytes(), b"early"].concat();
            let (request, length) = head_of(&more, &mut attempts).ok().flatten().unwrap();
            assert_eq!((request.to.to_string().as_str(), length), ("a:80", head.len()));
        }
        let mut attempts = Attempts::default();
        assert!(head_of(b"\x16", &mut attempts).is_err(), "what is no HTTP is told at once");
    }

    #[test]
    fn an_exchange_ends_with_its_client_though_the_server_is_silent() {
        run(async {
            // Whether it will listen nobody knows; and that it will not.
            for (has_ended, patience) in [(true, Duration::from_millis(1)), (false, SOON)] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut server, given) = UnixStream::pair().unwrap();
                begin(listener.accept().await.unwrap().0, given, patience);
                let mut heard = vec![0; 18];
                server.read_exact(&mut heard).await.unwrap();
                app.write_all(b"more").await.unwrap();
                if has_ended {
                    app.shutdown().await.unwrap();
                } else {
                    app.set_zero_linger().unwrap();
                    drop(app);
                }
                assert_eq!(server.read(&mut heard).await.unwrap(), 0);
            }
        });
    }

    #[test]
    fn who_has_ended_its_side_may_read_as_slowly_as_it_likes() {
        run(async {
            let (mut app, client) = UnixStream::pair().unwrap();
            let (mut server, given) = UnixStream::pair().unwrap();
            begin(client, given, Duration::from_millis(1));
            app.shutdown().await.unwrap();
            let told = tokio::spawn(async move {
                server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                server.write_all(&vec![b'x'; 4 << 20]).await
            });
            // Long for whom a millisecond is too long.
            sleep(Duration::from_millis(50)).await;
            let mut heard = Vec::new();
            app.read_to_end(&mut heard).await.unwrap();
            told.await.unwrap().unwrap();
            assert!(heard.len() > 4 << 20 && heard.ends_with(b"x"), "{}", heard.len());
        });
    }

    #[test]
    fn an_answer_that_is_cut_off_is_not_passed_on_as_a_whole_one() {
        run(async {
            let [get, head] = ["GET / HTTP/1.1\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n"];
            for (asked, told, is_whole) in [
                (get, "HTTP/1.1 200 OK\r\n\r\nhalf", false),
                (get, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true),
                (head, "HTTP/1.1 200 OK\r\n\r\n", true),
            ] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let place = listener.local_addr().unwrap();
                let mut app = TcpStream::connect(place).await.unwrap();
                let client = listener.accept().await.unwrap().0;
                let given = TcpStream::connect(place).await.unwrap();
                let mut server = listener.accept().await.unwrap().0;
                ask(asked.as_bytes(), client, given, SOON);
                server.write_all(told.as_bytes()).await.unwrap();
                let mut heard = Vec::new();
                while !heard.ends_with(&told.as_bytes()[told.len() - 4..]) {
                    assert!(app.read_buf(&mut heard).await.unwrap() > 0);
                }
                server.set_zero_linger().unwrap();
                drop(server);
                assert_eq!(app.read_buf(&mut heard).await.is_ok(), is_whole, "{asked}{told}");
            }
        });
    }
}
