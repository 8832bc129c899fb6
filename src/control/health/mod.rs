//! How a tunnel is: whether it lives, has started, and is ready for traffic; with reasons.
//!
//! - *Live*: the engine turns and every thread for packets looks into its inbox. A stuck thread is
//!   mended by starting anew, and by nothing else. A peer that is gone is no reason.
//! - *Ready*: there is a session with each peer that is required, or there was one and nothing says
//!   that it could not be renewed. Who asks has a session asked for where there is none, so that a
//!   tunnel without traffic becomes ready, and one that lies idle shows what has become of its peer.
//! - *Started*: it was ready once, after `up` had done all that it does.
//!
//! Asked over HTTP ([`http`]) and over the configuration socket ([`text`]). Must not say more than
//! whoever can reach the port may know: peers by the first characters of their keys, no addresses.

pub mod http;
mod set;
pub mod text;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use self::set::SetHealth;
use crate::control::uapi::server::Command;
use crate::proto::peer::Peer;
use crate::time::Instant;

/// How long the engine and the threads for packets have to answer; what they do in between takes
/// milliseconds. Less than the second that Kubernetes waits for a probe unless told otherwise.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long initiations may go unanswered before a peer that there was a session with counts as gone:
/// they are sent every five seconds, and three in a row are lost seldom. [WG §6.1]
const SILENCE: Duration = Duration::from_secs(15);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Live,
    Started,
    Ready,
}

impl Question {
    pub const ALL: [Self; 3] = [Self::Live, Self::Started, Self::Ready];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Started => "started",
            Self::Ready => "ready",
        }
    }
}

/// What the engine knows, and what it has asked its threads.
#[derive(Debug)]
pub struct Findings {
    /// Why not; none if so.
    pub reasons: Vec<String>,
    /// One of each shard: closed when that has looked into its inbox.
    pub pulses: Vec<watch::Receiver<()>>,
}

/// Asks the engine behind `commands`, and waits for its threads. No reason is the good answer.
pub async fn judge(question: Question, commands: &mpsc::Sender<Command>) -> Vec<String> {
    let (sender, receiver) = oneshot::channel();
    let asked = async {
        commands.send(Command::Health(question, sender)).await.ok()?;
        receiver.await.ok()
    };
    let Findings { mut reasons, pulses } = match timeout(PATIENCE, asked).await {
        Ok(Some(findings)) => findings,
        Ok(None) => return vec!["the daemon is ending".to_owned()],
        Err(_) => return vec!["the control loop does not answer".to_owned()],
    };
    let count = pulses.len();
    let all = async {
        let mut deaf = Vec::new();
        for (number, mut pulse) in (1..).zip(pulses) {
            // Never sent to: it ends when the shard lets go of the other end.
            if timeout(PATIENCE, pulse.changed()).await.is_err() {
                deaf.push(format!("thread {number} of {count} for packets does not answer"));
            }
        }
        deaf
    };
    reasons.extend(all.await);
    reasons
}

/// What is wrong with a peer that is required; nothing if it answers, or would as far as we know.
pub fn complaint(peer: &Peer, now: Instant) -> Option<String> {
    let name = peer.public_key();
    let silence = peer.unanswered_initiation().map(|since| now.since(since));
    match (peer.last_handshake(), silence) {
        (Some(_), None) => None,
        (Some(_), Some(silence)) if silence < SILENCE => None,
        (Some(_), Some(silence)) => {
            Some(format!("{name}: has not answered for {} s", silence.as_secs()))
        }
        (None, Some(silence)) => {
            Some(format!("{name}: no session yet, no answer for {} s", silence.as_secs()))
        }
        (None, None) if peer.has_endpoint() => Some(format!("{name}: no session yet")),
        (None, None) => {
            Some(format!("{name}: no session yet; it has no endpoint and must call us"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one question as an engine does that has these pulses.
    async fn verdict(pulses: Vec<watch::Receiver<()>>) -> Vec<String> {
        let (commands, mut asked) = mpsc::channel(1);
        let engine = async {
            let Some(Command::Health(Question::Live, answer)) = asked.recv().await else {
                panic!("another question");
            };
            answer.send(Findings { reasons: Vec::new(), pulses }).unwrap();
        };
        tokio::join!(judge(Question::Live, &commands), engine).0
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn u_08_a_thread_that_does_not_look_is_named_and_one_that_has_looked_is_not() {
        run(async {
            let (held, stuck) = watch::channel(());
            let (_, fine) = watch::channel(());
            let said = verdict(vec![fine.clone(), stuck]).await;
            assert_eq!(said, ["thread 2 of 2 for packets does not answer"]);
            drop(held);
            assert!(verdict(vec![fine]).await.is_empty());
        });
    }

    #[test]
    fn u_08_an_engine_that_does_not_turn_is_told_and_so_is_one_that_is_gone() {
        run(async {
            let (commands, asked) = mpsc::channel(1);
            let said = judge(Question::Ready, &commands).await;
            assert_eq!(said, ["the control loop does not answer"]);
            drop(asked);
            assert_eq!(judge(Question::Ready, &commands).await, ["the daemon is ending"]);
        });
    }
}
