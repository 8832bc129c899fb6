//! The server side of the socket: connections in, [`Command`]s to the engine, replies out. [UAPI]
//!
//! Each connection is a task of the engine's own thread and may carry any number of requests, in
//! order. Nothing is decided here: a request that is a text goes to the engine whole.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;
use zeroize::{Zeroize, Zeroizing};

use super::request::{Request, RequestReader};
use super::{Errno, Operation, Refusal, get, reply, reply_to_set, status};
use crate::control::command::{DeviceSnapshot, SetRequest};
use crate::control::ends::HostPort;
use crate::control::health::{self, Findings, Question};
use crate::control::proxy::{self, names::Names};
use crate::control::settings::Status;
use crate::sys::passing;

/// What a connection asks of the engine, and where the answer goes.
#[derive(Debug)]
pub enum Command {
    Get(oneshot::Sender<DeviceSnapshot>),
    Set(SetRequest, oneshot::Sender<Result<(), Refusal>>),
    Status(oneshot::Sender<Status>),
    /// How a client gets into the tunnel.
    Names(oneshot::Sender<Arc<Names>>),
    Health(Question, oneshot::Sender<Findings>),
}

/// Accepts connections until the runtime ends. Whoever asks for it gets a copy of `kept`: he may do
/// everything with the device anyway.
///
/// # Errors
/// If the listener cannot be registered with the runtime.
pub fn serve(
    listener: StdUnixListener,
    commands: mpsc::Sender<Command>,
    kept: Option<OwnedFd>,
) -> io::Result<()> {
    let kept = kept.map(Arc::new);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, commands.clone(), kept.clone()));
                }
                // Out of descriptors: give the open connections time to end.
                Err(error) => {
                    debug!(%error, "cannot accept a configuration client");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn converse(
    mut stream: UnixStream,
    commands: mpsc::Sender<Command>,
    kept: Option<Arc<OwnedFd>>,
) {
    let mut reader = RequestReader::new();
    let mut buffer = Zeroizing::new(vec![0_u8; 16 * 1024]);
    loop {
        let length = match stream.read(buffer.as_mut_slice()).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let mut requests = Vec::new();
        reader.feed(&buffer[..length], |request| requests.push(request));
        buffer[..length].zeroize();
        for request in requests {
            if request == Request::Kept {
                if hand_out(&mut stream, kept.as_deref()).await.is_err() {
                    return;
                }
                continue;
            }
            if let Request::Connect(to) = request {
                // The client has said nothing more yet, or it is not heard: it waits for the answer.
                return lead(stream, &to, &commands).await;
            }
            let hang_up = matches!(request, Request::Unintelligible(_));
            let Some(text) = answer(request, &commands).await else { return };
            if stream.write_all(text.as_bytes()).await.is_err() || hang_up {
                return;
            }
        }
    }
}

async fn hand_out(stream: &mut UnixStream, kept: Option<&OwnedFd>) -> io::Result<()> {
    let Some(kept) = kept else {
        let text = reply(Operation::Get, Err(Errno::ABSENT));
        return stream.write_all(text.as_bytes()).await;
    };
    let text = reply(Operation::Get, Ok(()));
    // So short a text goes as a whole or not at all.
    let send =
        || passing::send(&*stream, text.as_bytes(), kept.as_fd()).map_err(|error| error.source);
    stream.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Makes the stream a connection to `to`.
async fn lead(mut stream: UnixStream, to: &HostPort, commands: &mpsc::Sender<Command>) {
    let (sender, receiver) = oneshot::channel();
    if commands.send(Command::Names(sender)).await.is_err() {
        return;
    }
    let Ok(names) = receiver.await else { return };
    let outcome = names.dial(to).await;
    let text = proxy::text::answer(outcome.as_ref().map(drop).map_err(|failure| *failure));
    if stream.write_all(text.as_bytes()).await.is_ok()
        && let Ok(opened) = outcome
    {
        opened.carry(stream, Vec::new()).await;
    }
}

/// The text of the reply; `None` if the engine has ended.
async fn answer(request: Request, commands: &mpsc::Sender<Command>) -> Option<Zeroizing<String>> {
    match request {
        Request::Get => {
            let (sender, receiver) = oneshot::channel();
            commands.send(Command::Get(sender)).await.ok()?;
            Some(get::render(&receiver.await.ok()?))
        }
        Request::Status => {
            let (sender, receiver) = oneshot::channel();
            commands.send(Command::Status(sender)).await.ok()?;
            Some(Zeroizing::new(status::render(&receiver.await.ok()?)))
        }
        Request::Set(change) => {
            let (sender, receiver) = oneshot::channel();
            commands.send(Command::Set(change, sender)).await.ok()?;
            let outcome = receiver.await.ok()?;
            Some(Zeroizing::new(reply_to_set(outcome)))
        }
        Request::Health(question) => {
            let reasons = health::judge(question, commands).await;
            Some(Zeroizing::new(health::text::render(&reasons)))
        }
        // They are answered where the stream is.
        Request::Kept | Request::Connect(_) => None,
        Request::Refused(operation, fault) => {
            debug!(%fault, "configuration request refused");
            Some(Zeroizing::new(reply(operation, Err(fault.errno))))
        }
        Request::Unintelligible(fault) => {
            debug!(%fault, "configuration request refused");
            Some(Zeroizing::new(reply(Operation::Set, Err(fault.errno))))
        }
    }
}
