//! Connections of TCP on which nothing passes.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SILENCE, at_once, pause};
use crate::sys::sockets::raise_descriptor_limit;

/// Accepts so many connections and holds them until the first of them ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Serve {
    pub address: IpAddr,
    pub connections: usize,
}

/// Makes so many connections, tells that they are there, and holds them for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    pub to: SocketAddr,
    pub connections: usize,
    pub hold: Duration,
}

/// Does [`Serve`].
///
/// # Errors
/// What the sockets said.
pub fn serve(task: &Serve, ready: &mut dyn FnMut(u16)) -> io::Result<()> {
    raise_descriptor_limit();
    let listener = TcpListener::bind((task.address, 0))?;
    ready(listener.local_addr()?.port());
    let accept = |_| listener.accept().map(|(stream, _)| stream);
    let connections = (0..task.connections).map(accept).collect::<io::Result<Vec<_>>>()?;
    match connections.first() {
        Some(mut first) => first.read(&mut [0]).map(drop),
        None => Ok(()),
    }
}

/// Does [`Begin`].
///
/// # Errors
/// What the sockets said.
pub fn begin(task: &Begin, ready: &mut dyn FnMut(u16)) -> io::Result<()> {
    raise_descriptor_limit();
    let made = at_once(AT_ONCE, |number| {
        let own = (number..task.connections).step_by(AT_ONCE);
        own.map(|_| TcpStream::connect_timeout(&task.to, SILENCE)).collect::<io::Result<Vec<_>>>()
    })?;
    ready(task.to.port());
    pause(task.hold)?;
    drop(made);
    Ok(())
}

/// So many are being made at once.
const AT_ONCE: usize = 16;
