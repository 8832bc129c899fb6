//! From the protocol engine to a shard: what to send, and what has changed.
//!
//! Only shards send, so that the order of datagrams towards a peer has one author. The inbox is
//! bounded by refusing datagrams, which a network may lose anyway; commands that change what a
//! shard believes are never refused, and the engine stops handling handshakes while the inbox is
//! crowded ([`Inbox::is_crowded`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::dataplane::port::DatagramPort;
use crate::proto::device::{Destination, SmallDatagram};
use crate::proto::peer::PeerId;

/// Most commands that wait before datagrams are refused.
pub const INBOX_COMMANDS: usize = 8192;

/// What the engine asks of a shard.
pub enum ShardCommand {
    /// Sends a handshake message or cookie reply.
    Transmit { to: Destination, datagram: SmallDatagram, traffic_class: u8 },
    /// A session is ready: sends the staged packets of the peer, or a keepalive if it has none.
    Flush(PeerId),
    /// Sends the staged packets of the peer, if any.
    SendStaged(PeerId),
    /// Sends an empty packet.
    Keepalive(PeerId),
    /// Drops the staged packets of the peer: its handshake was given up.
    Purge(PeerId),
    /// The peer was removed: nothing of it may be kept.
    Forget(PeerId),
    /// The listening port or the mark has changed: these sockets replace the old ones.
    Rebind(Box<dyn DatagramPort>),
    /// Ends the shard.
    Shutdown,
}

impl ShardCommand {
    /// Whether losing the command is no worse than a lost datagram.
    const fn may_be_lost(&self) -> bool {
        match self {
            Self::Transmit { .. } | Self::Keepalive(_) => true,
            Self::Flush(_) | Self::SendStaged(_) | Self::Purge(_) | Self::Forget(_) => false,
            Self::Rebind(_) | Self::Shutdown => false,
        }
    }
}

impl std::fmt::Debug for ShardCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transmit { to, .. } => f.debug_struct("Transmit").field("to", to).finish(),
            Self::Flush(peer) => f.debug_tuple("Flush").field(peer).finish(),
            Self::SendStaged(peer) => f.debug_tuple("SendStaged").field(peer).finish(),
            Self::Keepalive(peer) => f.debug_tuple("Keepalive").field(peer).finish(),
            Self::Purge(peer) => f.debug_tuple("Purge").field(peer).finish(),
            Self::Forget(peer) => f.debug_tuple("Forget").field(peer).finish(),
            Self::Rebind(_) => f.write_str("Rebind"),
            Self::Shutdown => f.write_str("Shutdown"),
        }
    }
}

/// The queue of one shard. One engine writes, one shard reads.
///
/// Locking: the one mutex is held for a push or a swap, and never together with another lock.
#[derive(Default)]
pub struct Inbox {
    queue: Mutex<VecDeque<ShardCommand>>,
    /// Commands that wait. Ordering: relaxed; a shard that reads it too early reads it again after
    /// the waker has ended its wait.
    depth: AtomicUsize,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Inbox {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what wakes the shard when the inbox stops being empty. The first call counts.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        // Ignored on purpose when there is one: an inbox has one shard.
        let _ = self.waker.set(Box::new(waker));
    }

    /// Posts `command`; false if it was a datagram and [`INBOX_COMMANDS`] wait already.
    pub fn post(&self, command: ShardCommand) -> bool {
        let mut queue = self.lock();
        if queue.len() >= INBOX_COMMANDS && command.may_be_lost() {
            return false;
        }
        let was_empty = queue.is_empty();
        queue.push_back(command);
        self.depth.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        if was_empty && let Some(waker) = self.waker.get() {
            waker();
        }
        true
    }

    /// Whether the engine should let the shard catch up before it makes more work for it.
    pub fn is_crowded(&self) -> bool {
        self.depth.load(Ordering::Relaxed) >= INBOX_COMMANDS / 2
    }

    /// Swaps all waiting commands into `into`, which must be empty, oldest first.
    pub fn take(&self, into: &mut VecDeque<ShardCommand>) {
        if self.depth.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut queue = self.lock();
        std::mem::swap(&mut *queue, into);
        self.depth.store(queue.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ShardCommand>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let depth = self.depth.load(Ordering::Relaxed);
        f.debug_struct("Inbox").field("depth", &depth).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_full_inbox_refuses_datagrams_but_no_news() {
        let inbox = Inbox::new();
        assert!((0..8192).all(|n| inbox.post(ShardCommand::Keepalive(PeerId(n)))));
        assert!(inbox.is_crowded());
        assert!(!inbox.post(ShardCommand::Keepalive(PeerId(0))));
        assert!(inbox.post(ShardCommand::Flush(PeerId(0))));
        assert!(inbox.post(ShardCommand::Shutdown));
    }

    #[test]
    fn commands_come_out_in_the_order_they_were_posted_and_once() {
        let (inbox, mut taken) = (Inbox::new(), VecDeque::new());
        for n in 0..3 {
            inbox.post(ShardCommand::Flush(PeerId(n)));
        }
        inbox.take(&mut taken);
        let order: Vec<_> = taken.drain(..).map(|command| format!("{command:?}")).collect();
        assert_eq!(order, ["Flush(PeerId(0))", "Flush(PeerId(1))", "Flush(PeerId(2))"]);
        inbox.take(&mut taken);
        assert!(taken.is_empty() && !inbox.is_crowded());
    }

    #[test]
    fn the_shard_is_woken_when_the_inbox_stops_being_empty() {
        let (inbox, rings) = (Inbox::new(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&rings);
        inbox.set_waker(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        inbox.post(ShardCommand::Flush(PeerId(0)));
        inbox.post(ShardCommand::Flush(PeerId(1)));
        assert_eq!(rings.load(Ordering::Relaxed), 1);
        inbox.take(&mut VecDeque::new());
        inbox.post(ShardCommand::Flush(PeerId(2)));
        assert_eq!(rings.load(Ordering::Relaxed), 2);
    }
}
