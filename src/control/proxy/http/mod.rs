//! An HTTP proxy: connections by CONNECT, and single exchanges of any method. [RFC 9110 §7]
//!
//! An exchange has a connection to its server to itself, and both end with it: nothing of one request
//! can be taken for part of another.

pub mod chunks;
pub mod head;

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::time::{sleep, timeout};

use self::chunks::Chunks;
use self::head::{Asked, Body, LONGEST, Refusal, Request};
use super::names::Failure;
use super::socks::WRONG_PASSWORD;
use super::talk::{End, Talk};
use super::way::{Client, Duplex};
use super::{Guest, HEAD_TIMEOUT};
use crate::flow::gate::Unreached;

/// Bytes of a body that are moved at once.
const PIECE: usize = 16 << 10;

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
        Failure::Unreached(Unreached::NoPeer | Unreached::Prohibited) | Failure::NoNameServer => {
            "403 Forbidden"
        }
        Failure::Unreached(Unreached::TooMany) => "503 Service Unavailable",
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
    let asked = timeout(HEAD_TIMEOUT, talk.understand(LONGEST, head_of)).await;
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
            exchange(talk, opened.into_stream()?, &head, body).await;
        }
    }
    Ok(())
}

fn head_of(said: &[u8]) -> Result<Option<(Request, usize)>, Trouble> {
    Ok(head::request(said)?)
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

/// Passes a request on, and what is answered back. It ends with the answer.
async fn exchange<C: Client>(talk: Talk<C>, server: Box<dyn Duplex>, head: &[u8], body: Body) {
    let (client, said) = talk.into_parts();
    let (client_reads, mut client_writes) = split(client);
    let (server_reads, mut server_writes) = split(server);
    let up = async {
        server_writes.write_all(head).await?;
        send_body(said, client_reads, &mut server_writes, body).await
    };
    let down = async {
        let outcome = answer(server_reads, &mut client_writes).await;
        if let Err(Trouble::Refused(Refusal { status, text })) = outcome {
            client_writes.write_all(&head::refusal(status, text)).await?;
        }
        client_writes.shutdown().await
    };
    tokio::pin!(up, down);
    let mut is_sent = false;
    loop {
        tokio::select! {
            _ended = &mut down => return,
            sent = &mut up, if !is_sent => {
                is_sent = true;
                // A server that will not hear more may still have said why; a client that has gone hears
                // nothing.
                if sent.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
                    return;
                }
            }
        }
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

/// Passes on what the server answers, until it ends.
async fn answer(
    mut server: impl AsyncRead + Unpin,
    client: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Trouble> {
    let failed = |error| Trouble::End(End::Gone(error));
    let mut said = Vec::new();
    loop {
        while let Some(((head, is_interim), length)) = head::response(&said)? {
            client.write_all(&head).await.map_err(failed)?;
            said.drain(..length);
            if !is_interim {
                client.write_all(&said).await.map_err(failed)?;
                copy(&mut server, client).await.map_err(failed)?;
                return Ok(());
            }
        }
        if server.read_buf(&mut said).await.map_err(failed)? == 0 {
            let text = "the server has ended without an answer";
            return Err(Refusal { status: "502 Bad Gateway", text }.into());
        }
    }
}
