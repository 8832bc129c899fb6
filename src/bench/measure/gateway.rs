//! What is asked of a hub that gets packets of its peers on to a server.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::{Bench, Flow, PATIENCE, gigabits};
use crate::bench::error::BenchError;
use crate::bench::gateway::{NOBODY, OTHER_PEER, SERVER};
use crate::bench::load::echo::Transport;
use crate::bench::load::flood::Flood;
use crate::bench::load::{Outcome, Task, crowd, handshake};
use crate::bench::machine;
use crate::crypto::dh;
use crate::sys::clock;

/// One stream from the server to the client: the direction in which the hub is a sender itself, where
/// it carries flows on.
const DOWN: [Flow; 1] = [Flow { from: 1, streams: 1 }];

impl Bench<'_> {
    /// Connections, some at once.
    pub(super) fn connect(&mut self) -> Result<(), BenchError> {
        let answers = self.ask(Transport::Connect, CONNECTING, self.settings.requests, None);
        if let Some(answers) = self.keep("connections", answers)? {
            self.measured.put("connections", answers.per_second());
        }
        Ok(())
    }

    /// A stream beside many connections on which nothing passes, and then without them.
    pub(super) fn crowd(&mut self) -> Result<(), BenchError> {
        let before = self.hub_memory();
        let beside = self.beside_crowd(before);
        let Some(beside) = self.keep("crowd", beside)? else { return Ok(()) };
        self.compare_with_alone("crowd", beside)
    }

    fn beside_crowd(&mut self, before: Option<f64>) -> Result<f64, BenchError> {
        let connections = self.settings.idle_connections;
        let [near, far] = &mut self.tunnel.sides;
        let task = crowd::Serve { address: far.address.into(), connections };
        let server = far.worker.ask("crowd", Task::CrowdServe(task))?;
        let to = (far.address, server.port(self.interrupt)?).into();
        let hold = self.settings.streams_take() + SOME_MORE;
        let task = crowd::Begin { to, connections, hold };
        let client = near.worker.ask("crowd", Task::CrowdBegin(task))?;
        client.port(self.interrupt)?;
        if let (Some(before), Some(now)) = (before, self.hub_memory()) {
            self.measured.put("crowd_memory", now - before);
        }
        let (received, _) = self.run_streams(&DOWN)?;
        client.outcome(hold + PATIENCE, self.interrupt)?;
        server.outcome(PATIENCE, self.interrupt)?;
        Ok(gigabits(&received))
    }

    /// A stream while another peer floods the hub, and then without it.
    pub(super) fn flood(&mut self) -> Result<(), BenchError> {
        let beside = self.beside_flood();
        let Some(beside) = self.keep("flood", beside)? else { return Ok(()) };
        self.compare_with_alone("flood", beside)
    }

    /// Half of the flood goes where nobody is, so that connecting lasts; half is refused.
    fn beside_flood(&mut self) -> Result<f64, BenchError> {
        let [near, far] = &mut self.tunnel.sides;
        let no_tunnel = || BenchError::Silent("there is no tunnel to flood".to_owned());
        let responder = far.public_key.ok_or_else(no_tunnel)?.to_base64();
        let seed = clock::now().mono.as_nanos();
        let key = handshake::private_keys(seed, 1).next().ok_or_else(no_tunnel)?;
        far.add_peer(dh::public_key(&key), OTHER_PEER)?;
        let task = Flood {
            hub: far.endpoint,
            responder,
            seed,
            source: OTHER_PEER,
            targets: [NOBODY, SERVER].map(|address| SocketAddrV4::new(address, CLOSED_PORT)).into(),
            per_second: self.settings.flood,
            duration: self.settings.streams_take(),
        };
        let flood = near.worker.ask("flood", Task::Flood(task))?;
        let (received, _) = self.run_streams(&DOWN)?;
        match flood.outcome(self.settings.streams_take() + PATIENCE, self.interrupt)? {
            Outcome::Flooded(_) => Ok(gigabits(&received)),
            other => Err(BenchError::mismatch("flood", &other)),
        }
    }

    fn compare_with_alone(&mut self, key: &str, beside: f64) -> Result<(), BenchError> {
        self.measured.put(&format!("{key}_tcp"), beside);
        let alone = self.run_streams(&DOWN);
        if let Some((received, _)) = self.keep("alone", alone)? {
            self.measured.put(&format!("{key}_kept"), beside / gigabits(&received) * 100.0);
        }
        Ok(())
    }

    fn hub_memory(&self) -> Option<f64> {
        machine::memory_megabytes(self.tunnel.hub()?).ok().map(|(now, _)| now)
    }
}

/// Connections that are being made at once.
const CONNECTING: usize = 16;
const CLOSED_PORT: u16 = 9;
/// For what the crowd has to wait beside the stream.
const SOME_MORE: Duration = Duration::from_secs(1);
