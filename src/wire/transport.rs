//! Numbers of TCP and UDP headers. [RFC 9293 §3.1] [RFC 768]
//!
//! For those who cut and merge packets; nobody else looks behind an IP header.

/// Bytes of a TCP header without options.
pub const TCP_HEADER_BYTES: usize = 20;
pub const UDP_HEADER_BYTES: usize = 8;

/// Where the checksum is, in bytes from the start of the header.
pub const TCP_CHECKSUM_AT: usize = 16;
pub const UDP_CHECKSUM_AT: usize = 6;

/// Where the flags are, in bytes from the start of a TCP header.
pub const TCP_FLAGS_AT: usize = 13;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const CWR: u8 = 0x80;
