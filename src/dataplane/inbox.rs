//! From the protocol engine to a shard: what to send, and what has changed.
//!
//! Only shards send, so that the order of datagrams towards a peer has one author. The inbox is
//! bounded by refusing datagrams, which a network may lose anyway; commands that change what a
//! shard believes are never refused, and the engine stops handling handshakes while the inbox is
//! crowded ([`Inboxes::is_crowded`]).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::dataplane::port::{DatagramPort, IpPort};
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
    /// Sends an echo request, padded to `bytes` of an inner packet, that nobody may cut on the way.
    Probe { peer: PeerId, echo: Box<[u8]>, bytes: u16 },
    /// Drops the staged packets of the peer: its handshake was given up.
    Purge(PeerId),
    /// The peer was removed: nothing of it may be kept.
    Forget(PeerId),
    /// The listening port or the mark has changed: these sockets replace the old ones.
    Rebind(Box<dyn DatagramPort>),
    /// This port replaces the one that packets of the inside came and went by.
    Rewire(Box<dyn IpPort>),
    /// Proves that the shard looks into its inbox: it drops this.
    Pulse(Box<dyn Any + Send>),
    /// Ends the shard.
    Shutdown,
}

impl ShardCommand {
    /// Whether losing the command is no worse than a lost datagram.
    const fn may_be_lost(&self) -> bool {
        match self {
            Self::Transmit { .. } | Self::Keepalive(_) | Self::Probe { .. } => true,
            Self::Flush(_) | Self::SendStaged(_) | Self::Purge(_) | Self::Forget(_) => false,
            Self::Rebind(_) | Self::Rewire(_) | Self::Pulse(_) | Self::Shutdown => false,
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
            Self::Probe { peer, bytes, .. } => {
                f.debug_struct("Probe").field("peer", peer).field("bytes", bytes).finish()
            }
            Self::Purge(peer) => f.debug_tuple("Purge").field(peer).finish(),
            Self::Forget(peer) => f.debug_tuple("Forget").field(peer).finish(),
            Self::Rebind(_) => f.write_str("Rebind"),
            Self::Rewire(_) => f.write_str("Rewire"),
            Self::Pulse(_) => f.write_str("Pulse"),
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

/// The inboxes of all shards of a device, one at least.
///
/// Packets that wait for a session may wait in any shard, so what concerns them is said to all. What
/// one shard has to do for a peer is said to the peer's speaker: always the same shard, so that the
/// messages to a peer keep their order.
#[derive(Debug)]
pub struct Inboxes {
    first: Arc<Inbox>,
    others: Box<[Arc<Inbox>]>,
}

impl Inboxes {
    /// Empty inboxes for so many shards, one at least.
    pub fn new(shards: usize) -> Self {
        Self { first: Arc::default(), others: (1..shards).map(|_| Arc::default()).collect() }
    }

    /// In the order of the shards.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Inbox>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub const fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// That of the shard which sends what is nobody's: cookie replies.
    pub fn first(&self) -> &Inbox {
        &self.first
    }

    /// That of the shard which sends messages and keepalives to `peer`.
    pub fn speaker(&self, peer: PeerId) -> &Inbox {
        match self.speaker_of(peer) {
            0 => &self.first,
            position => &self.others[position - 1],
        }
    }

    /// Posts what `command` makes to every shard; none of it is a datagram, so none is refused.
    pub fn post_to_all(&self, mut command: impl FnMut() -> ShardCommand) {
        for inbox in self.iter() {
            inbox.post(command());
        }
    }

    /// Posts that a session with `peer` is ready. Every shard sends what it has staged; a keepalive,
    /// if it has nothing, is up to the speaker alone.
    pub fn flush(&self, peer: PeerId) {
        let speaker = self.speaker_of(peer);
        for (position, inbox) in self.iter().enumerate() {
            inbox.post(if position == speaker {
                ShardCommand::Flush(peer)
            } else {
                ShardCommand::SendStaged(peer)
            });
        }
    }

    const fn speaker_of(&self, peer: PeerId) -> usize {
        peer.0 as usize % self.count()
    }

    /// Whether the engine should let a shard catch up before it makes more work for it.
    pub fn is_crowded(&self) -> bool {
        self.iter().any(|inbox| inbox.is_crowded())
    }
}

#[cfg(test)]
mod tests {
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

    /// What waits in each of `shards` inboxes after `post`.
    fn posted(shards: usize, post: impl Fn(&Inboxes)) -> Vec<String> {
        let inboxes = Inboxes::new(shards);
        post(&inboxes);
        let taken = inboxes.iter().map(|inbox| {
            let mut taken = VecDeque::new();
            inbox.take(&mut taken);
            taken.iter().map(|command| format!("{command:?}")).collect::<Vec<_>>().join(" ")
        });
        taken.collect()
    }

    #[test]
    fn of_all_shards_one_confirms_a_session_by_a_keepalive_and_always_the_same_for_a_peer() {
        let flush = |peer| posted(3, move |inboxes| inboxes.flush(PeerId(peer)));
        assert_eq!(
            flush(7),
            ["SendStaged(PeerId(7))", "Flush(PeerId(7))", "SendStaged(PeerId(7))"]
        );
        assert_eq!(
            flush(3),
            ["Flush(PeerId(3))", "SendStaged(PeerId(3))", "SendStaged(PeerId(3))"]
        );
        assert_eq!(posted(1, |inboxes| inboxes.flush(PeerId(7))), ["Flush(PeerId(7))"]);
        let speaks = |inboxes: &Inboxes| {
            inboxes.speaker(PeerId(7)).post(ShardCommand::Keepalive(PeerId(7)));
        };
        assert_eq!(posted(3, speaks), ["", "Keepalive(PeerId(7))", ""]);
    }

    #[test]
    fn news_reach_every_shard_and_one_crowded_inbox_is_enough_to_wait_for() {
        let forget = || ShardCommand::Forget(PeerId(1));
        assert_eq!(posted(3, |inboxes| inboxes.post_to_all(forget)), ["Forget(PeerId(1))"; 3]);
        let inboxes = Inboxes::new(3);
        for _ in 0..4096 {
            assert!(!inboxes.is_crowded());
            inboxes.speaker(PeerId(2)).post(ShardCommand::Keepalive(PeerId(2)));
        }
        assert!(inboxes.is_crowded());
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
