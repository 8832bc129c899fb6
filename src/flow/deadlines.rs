//! When flows are to be looked at.
//!
//! What a flow is due for, and that it is not scheduled any more when it has been taken, is its own to
//! remember: here is the order alone.

use std::collections::BTreeSet;

use crate::flow::slots::Token;
use crate::time::Instant;

/// See the module. One entry a flow at most.
#[derive(Debug, Default)]
pub struct Deadlines(BTreeSet<(Instant, Token)>);

impl Deadlines {
    /// Has `token` looked at no later than `at`. `scheduled` is what the flow remembers.
    pub fn set(&mut self, token: Token, scheduled: &mut Option<Instant>, at: Instant) {
        if scheduled.is_none_or(|before| at < before) {
            self.clear(token, scheduled);
            self.0.insert((at, token));
            *scheduled = Some(at);
        }
    }

    /// Forgets the flow's entry.
    pub fn clear(&mut self, token: Token, scheduled: &mut Option<Instant>) {
        if let Some(before) = scheduled.take() {
            self.0.remove(&(before, token));
        }
    }

    /// Takes one that is due. Who gets it notes that it is not scheduled any more.
    pub fn next_due(&mut self, now: Instant) -> Option<Token> {
        let &(at, token) = self.0.first()?;
        (at <= now).then(|| {
            self.0.pop_first();
            token
        })
    }

    pub fn first(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }
}
