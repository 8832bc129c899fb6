//! Under load: cookies, and a fair share for every source. [WG §5.3, §5.4.7]

use std::net::SocketAddr;

use hybridwg::proto::device::Load;
use hybridwg::proto::drop_reason::DropReason;

use super::{Kind, Sim, ms, secs};

#[test]
fn under_load_the_first_initiation_costs_a_cookie_and_the_retry_is_answered() {
    let mut sim = Sim::pair(1);
    sim.nodes[1].load = Load::High;
    sim.send(0, 1, b"patience");
    sim.run(ms(4900));
    let kinds: Vec<_> = sim.trace.iter().map(|sent| (sent.by, sent.kind)).collect();
    assert_eq!(kinds, [(0, Kind::Initiation), (1, Kind::CookieReply)], "no resending at once");
    sim.run(secs(1));
    assert_eq!(sim.delivered(1), [b"patience"]);
    assert_eq!(sim.nodes[1].drops(DropReason::CookieSent), 1);
}

#[test]
fn without_load_nobody_is_asked_for_a_cookie() {
    let sim = Sim::connected(2);
    assert_eq!(sim.count(1, Kind::CookieReply), 0);
}

/// Trap: a cookie reply roams the endpoint.
#[test]
fn trap_17_a_cookie_reply_moves_no_endpoint_and_counts_as_nothing() {
    let mut sim = Sim::pair(3);
    sim.nodes[1].load = Load::High;
    sim.filter = Box::new(|by, _| by == 0);
    sim.send(0, 1, b"x");
    sim.run(ms(100));
    let reply = sim.last(1, Kind::CookieReply);
    let one = sim.key(1);
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 4711));
    sim.inject(0, elsewhere, &reply);
    assert_eq!(sim.nodes[0].tables.drops.total(), 0, "the cookie is taken");
    assert_eq!(sim.nodes[0].endpoint(&one), Some(sim.nodes[1].address));
    sim.inject(0, elsewhere, &reply);
    assert_eq!(sim.nodes[0].drops(DropReason::UnexpectedCookie), 1, "but once");
}

/// Trap: a cookie without the port.
#[test]
fn trap_12_a_cookie_is_good_for_one_address_and_one_port() {
    let mut sim = Sim::pair(4);
    sim.nodes[1].load = Load::High;
    sim.send(0, 1, b"x");
    sim.run(secs(1));
    sim.rebind(0);
    sim.run(secs(5));
    // The retry came from another port: it is asked for another cookie.
    assert_eq!(sim.count(1, Kind::CookieReply), 2);
    assert_eq!(sim.count(1, Kind::Response), 0);
    sim.run(secs(5));
    assert_eq!(sim.delivered(1), [b"x"]);
}

#[test]
fn a_responder_can_be_asked_for_a_cookie_as_well() {
    let mut sim = Sim::pair(5);
    sim.nodes[0].load = Load::High;
    sim.send(0, 1, b"x");
    sim.run(secs(1));
    assert_eq!(sim.count(0, Kind::CookieReply), 1);
    assert_eq!(sim.nodes[1].delivered.len(), 0);
    sim.run(secs(6));
    assert_eq!(sim.delivered(1), [b"x"]);
}

/// Trap: one global handshake limiter.
#[test]
fn trap_11_a_source_that_floods_takes_nothing_from_another() {
    const CROWD: usize = 30;
    // Node 0 is the hub, node 1 an honest client; the rest share one address.
    let mut sim = Sim::strangers(6, 2 + CROWD);
    sim.nodes[0].load = Load::High;
    for n in 1..2 + CROWD {
        if n > 1 {
            sim.nodes[n].address = SocketAddr::from(([203, 0, 113, 1], 1000 + n as u16));
        }
        sim.introduce(0, n, false);
        sim.introduce(n, 0, true);
    }
    for n in 1..2 + CROWD {
        sim.send(n, 0, b"me");
    }
    sim.run(secs(6));
    assert!(sim.nodes[0].drops(DropReason::RateLimited) > 0);
    assert_eq!(sim.count(1, Kind::Data), 1, "the honest client is served at its first retry");
    assert_eq!(sim.count(1, Kind::Initiation), 2);
}
