//! Connections that this host itself asks for.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Flow, Side, Streams, fitting};
use crate::flow::common::{Common, Origin};
use crate::flow::gate::{Opened, Unreached, random_ports};
use crate::flow::open::Open;
use crate::flow::policy::Service;
use crate::flow::slots::Token;
use crate::flow::switch::Switch;
use crate::flow::tcp::{Connection, End, State};
use crate::proto::peer::PeerId;
use crate::sys::poll::Interest;
use crate::sys::sockets::Stream;
use crate::time::Instant;

/// Who has asked for a connection, until he is answered, and what the network has said of it.
#[derive(Debug)]
pub(super) struct Asking {
    answer: Option<oneshot::Sender<Result<Opened, Unreached>>>,
    pub said: Option<Unreached>,
}

impl Streams {
    /// Asks for a connection to `to`, and tells `answer` what became of it.
    pub fn connect(
        &mut self,
        common: &mut Common,
        now: Instant,
        to: SocketAddr,
        answer: oneshot::Sender<Result<Opened, Unreached>>,
    ) {
        let begun = self.local_for(common, to).and_then(|(local, peer)| {
            let opened = common.limits.open_own();
            opened.map_err(|limit| {
                let reason = common.met(now, None, limit);
                common.drop(reason);
                Unreached::TooMany
            })?;
            Ok((local, peer))
        });
        let (local, peer) = match begun {
            Ok(begun) => begun,
            // He may not wait any more.
            Err(why) => return drop(answer.send(Err(why))),
        };
        let connection = Connection::connect(now, fitting(&mut self.stack, common), local, to);
        let side = Side::Open(Open::new(connection));
        let mut flow = Flow::new((to, local), peer, Origin::Own, side);
        flow.asking = Some(Asking { answer: Some(answer), said: None });
        let Ok(token) = self.slots.try_insert(|_| Ok::<_, std::convert::Infallible>(flow));
        self.by_pair.insert((to, local), token);
        self.pump(common, token);
    }

    /// From where `to` is spoken to: an address and a port that no other connection to it has; and the
    /// peer that it goes by.
    fn local_for(
        &self,
        common: &Common,
        to: SocketAddr,
    ) -> Result<(SocketAddr, PeerId), Unreached> {
        let settings = &common.settings;
        if settings.owns(to.ip()) {
            return Err(Unreached::NoPeer);
        }
        let peer = common.tables.route(to.ip()).ok_or(Unreached::NoPeer)?;
        let own = settings.source_for(to.ip()).ok_or(Unreached::NetworkUnreachable)?;
        let is_free = |port: &u16| {
            let is_exposed = settings.exposed.iter().any(|it| it.service == Service::Tcp(*port));
            !is_exposed && !self.by_pair.contains_key(&(to, SocketAddr::new(own, *port)))
        };
        let port = random_ports().find(is_free).ok_or(Unreached::TooMany)?;
        Ok((SocketAddr::new(own, port), peer))
    }

    /// Moves bytes between the connection `token` and `stream` from now on, and gives the peer what the
    /// host's side has said `already`. A connection that is over resets the stream.
    pub fn join(&mut self, common: &mut Common, token: Token, stream: Stream, already: Vec<u8>) {
        let flow = self.slots.get_mut(token).filter(|flow| flow.asking.is_some());
        let Some(flow) = flow else { return stream.reset() };
        let Side::Open(open) = &mut flow.side else { return };
        flow.asking = None;
        if common.watch(&stream, token, Interest::Changes).is_err() {
            open.connection.abort();
        }
        (open.stream, open.already) = (Some(stream), already);
        self.pump(common, token);
    }

    /// Resets the connection `token`, which nobody wants.
    pub fn abort(&mut self, common: &mut Common, token: Token) {
        if let Some(flow) = self.slots.get_mut(token)
            && let Side::Open(open) = &mut flow.side
        {
            open.connection.abort();
            self.pump(common, token);
        }
    }
}

impl Asking {
    /// Answers if it is decided, once; ends what nobody waits for any more.
    pub fn tell(&mut self, connection: &mut Connection, token: Token, switch: &Arc<Switch>) {
        let outcome = match (connection.end(), connection.state()) {
            (Some(end), _) => Err(self.said.unwrap_or(match end {
                End::Refused | End::Reset => Unreached::Refused,
                End::TimedOut => Unreached::TimedOut,
                End::Unreachable => Unreached::HostUnreachable,
                End::Aborted | End::Closed => Unreached::NetworkUnreachable,
            })),
            (None, State::SynSent | State::SynReceived) => {
                if self.answer.as_ref().is_some_and(oneshot::Sender::is_closed) {
                    connection.abort();
                }
                return;
            }
            (None, _) => Ok(token),
        };
        if let Some(answer) = self.answer.take() {
            // Where nobody waits, what is opened is dropped, and with it the connection.
            drop(answer.send(outcome.map(|token| Opened::new(token, Arc::clone(switch)))));
        }
    }
}
