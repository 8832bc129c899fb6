//! Flows of peers that end here: TCP, UDP and ICMP of the inside, carried on as connections of this
//! host. Below `control`, which decides whether there are any.

pub mod tcp;
