//! TCP as an endpoint, without a clock, a socket or a thread. [RFC 9293]
//!
//! A peer's connections end here, and go on as sockets of the host; or begin here, for a tunnel that
//! has no interface. The other end is beyond a tunnel and the Internet, so the sending half is made
//! for loss and delay:
//!
//! | file | what | from |
//! |---|---|---|
//! | `segment`, `options` | packets, read and written | RFC 9293, 7323, 2018 |
//! | `connection`, `input`, `output` | states, and what passes | RFC 9293, 5961, 7323, 6191 |
//! | `sender`, `scoreboard`, `recovery`, `rtt` | what is sent when, and what was lost | RFC 8985, 9937, 6298, 3522, 5682 |
//! | `congestion`, `cubic`, `hystart`, `bbr` | how much, how fast | RFC 9438, 9406, BBR |
//! | `receiver`, `queue` | the stream put together | RFC 2018, 2883 |
//! | `timestamps`, `sequence` | clocks and positions | RFC 7323 |
//! | `stack` | what connections share | RFC 6528 |
//!
//! Who drives a [`Connection`] finds it by its addresses, hands it each [`Segment`] and the time,
//! and after that, after each call of its user, and at its deadline, asks for packets until there are
//! none. ECN is not negotiated, urgent data is data, and nothing is kept back in the hope of more
//! (Nagle): that the application has done.

mod bbr;
mod congestion;
mod connection;
mod cubic;
mod hystart;
mod input;
mod options;
mod output;
mod queue;
mod receiver;
mod recovery;
mod rtt;
mod scoreboard;
mod segment;
mod sender;
mod sequence;
mod stack;
mod timestamps;

pub use congestion::Algorithm;
pub use connection::{Connection, End, Events, State};
pub use options::{Options, SackBlocks, Timestamps};
pub use segment::{Checksum, MAX_PACKET_BYTES, Malformed, Packet, Segment, Syn, Transmit, refuse};
pub use stack::{Config, Keepalive, Stack};

#[cfg(test)]
mod tests;
