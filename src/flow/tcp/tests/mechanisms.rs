//! One mechanism at a time.

use std::time::Duration;

use super::super::options::Timestamps;
use super::super::{Algorithm, Config, Connection, End, Segment, State, Syn};
use super::line::{Line, Path};
use super::millis;
use crate::wire::transport::{ACK, FIN, RST, SYN};

fn line() -> Line {
    Line::symmetric(3, Config::default(), Path::new(millis(20)))
}

/// A line with a flow that is established, whose ends stay open.
fn established() -> Line {
    let mut line = line();
    line.closes = [false; 2];
    let flow = line.open(0);
    line.run(millis(125));
    assert_eq!(line.states(flow), [Some(State::Established); 2]);
    line
}

impl Line {
    fn connection(&mut self, host: usize) -> &mut Connection {
        &mut self.peer(host, 0).expect("an open flow").connection
    }

    /// Lets a host send more.
    fn send(&mut self, host: usize, bytes: u64) {
        self.peer(host, 0).expect("an open flow").to_send += bytes;
        self.act(host, 0);
    }

    /// An acceptable segment for a host, which says nothing new.
    fn plain(&mut self, host: usize) -> Segment<'static> {
        self.plain_of(host, 0)
    }

    fn plain_of(&mut self, host: usize, flow: usize) -> Segment<'static> {
        let now = self.now;
        let other = &self.peer(1 - host, flow).expect("an open flow").connection;
        let value = other.clock.value(now);
        let (sequence, acknowledgment) = (other.sender.nxt() as u32, other.receiver.nxt() as u32);
        let mut segment = Segment { sequence, acknowledgment, flags: ACK, ..Segment::default() };
        segment.window = 1000;
        let connection = &self.peer(host, flow).expect("an open flow").connection;
        let echo = connection.clock.value(now);
        segment.options.timestamps = Some(Timestamps { value, echo });
        segment
    }
}

#[test]
fn a_handshake_whose_packets_are_lost_is_repeated() {
    for direction in [0, 1] {
        let mut line = line();
        line.doom(direction, [0, 1]);
        let flow = line.open(5000);
        line.run(Duration::from_secs(20));
        assert_eq!(line.peer(1, flow).unwrap().read, 5000, "lost in direction {direction}");
    }
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let mut line = line();
    line.listens = false;
    let flow = line.open(5000);
    line.run(millis(50));
    assert_eq!(line.ends(flow)[0], Some(End::Refused));
    assert!(line.connection(0).is_closed());
}

#[test]
fn a_host_that_does_not_answer_is_given_up() {
    let mut line = line();
    line.path(0).loss = 1_000_000;
    let flow = line.open(5000);
    line.run(Duration::from_secs(29));
    assert_eq!(line.ends(flow)[0], None);
    line.run(Duration::from_secs(2));
    assert_eq!(line.ends(flow)[0], Some(End::TimedOut));
    assert_eq!(line.sent(0), 5, "after 0, 1, 3, 7 and 15 s, and no RST");
}

#[test]
fn an_unreachable_host_ends_a_connection_that_is_being_made_and_no_other() {
    let mut line = line();
    line.listens = false;
    line.path(0).loss = 1_000_000;
    line.open(0);
    let isn = (line.connection(0).sender.una() as u32).wrapping_sub(1);
    line.connection(0).on_unreachable(isn.wrapping_add(7));
    assert_eq!(line.ends(0)[0], None, "of another connection");
    line.connection(0).on_unreachable(isn);
    assert_eq!(line.ends(0)[0], Some(End::Unreachable));
    let mut line = established();
    let una = line.connection(0).sender.una() as u32;
    line.connection(0).on_unreachable(una.wrapping_sub(1));
    assert_eq!(line.ends(0)[0], None);
}

#[test]
fn a_lost_segment_is_sent_again_after_a_round_trip_and_alone() {
    let mut line = established();
    let before = line.sent(0);
    line.doom(0, [before + 3]);
    line.send(0, 13_080);
    line.run(millis(95));
    assert_eq!(line.peer(1, 0).unwrap().read, 13_080, "in two round trips");
    assert_eq!(line.sent(0) - before, 11, "ten segments and one of them again");
}

#[test]
fn what_is_said_in_drops_is_mended_as_fast_as_what_is_said_at_once() {
    let mut line = Line::symmetric(3, Config::default(), Path::new(millis(100)));
    line.closes = [false; 2];
    line.open(0);
    line.run(millis(500));
    let before = line.sent(0);
    line.doom(0, [before + 3]);
    for _ in 0..180 {
        line.send(0, 10);
        line.run(millis(1));
    }
    // A round trip, a quarter of one for what may only be late, and half of one.
    line.run(millis(4 + 200 + 50 + 100 + 5 - 180));
    assert_eq!(line.peer(1, 0).unwrap().read, 1800);
    assert_eq!(line.sent(0) - before, 181);
}

#[test]
fn a_lost_tail_is_probed_for_long_before_the_timeout() {
    let mut line = established();
    let before = line.sent(0);
    line.doom(0, [before + 3, before + 4]);
    line.send(0, 5 * 1308);
    // A round trip, two more until the probe, and one for what it tells; a timeout comes after 280 ms.
    line.run(millis(240));
    assert_eq!(line.peer(1, 0).unwrap().read, 5 * 1308);
    assert_eq!(line.sent(0) - before, 7);
}

#[test]
fn everything_lost_is_sent_again_after_a_timeout() {
    let mut line = established();
    let before = line.sent(0);
    line.doom(0, before..before + 11);
    line.send(0, 13_080);
    line.run(Duration::from_secs(2));
    assert_eq!(line.peer(1, 0).unwrap().read, 13_080);
}

#[test]
fn reordering_costs_little_once_it_has_been_seen() {
    let mut line = established();
    line.path(0).reordering = 100_000;
    line.send(0, 2_000_000);
    line.run(Duration::from_secs(20));
    let before = line.sent(0);
    line.send(0, 2_000_000);
    line.run(Duration::from_secs(20));
    assert_eq!(line.peer(1, 0).unwrap().read, 4_000_000);
    let (sent, needed) = (line.sent(0) - before, 2_000_000 / 1308 + 1);
    assert!(sent < needed + needed / 20, "{sent} segments, of which {needed} were needed");
}

#[test]
fn a_delay_that_looks_like_a_loss_is_undone() {
    let mut line = established();
    line.send(0, 400_000);
    line.run(Duration::from_secs(1));
    // The path falls silent for half a second, and loses nothing.
    line.path(0).delay = millis(500);
    line.send(0, 60_000);
    let window = line.connection(0).sender.window();
    line.run(millis(400));
    assert!(line.connection(0).sender.window() < window / 2, "the timeout is believed");
    line.path(0).delay = millis(20);
    line.run(millis(400));
    assert!(line.connection(0).sender.window() >= window, "and then it is not");
    assert_eq!(line.peer(1, 0).unwrap().read, 460_000);
}

#[test]
fn a_closed_window_is_asked_for_until_it_opens() {
    let mut line = established();
    line.peer(1, 0).unwrap().appetite = None;
    line.send(0, 10_000_000);
    line.run(Duration::from_secs(100));
    let held = line.connection(1).readable_bytes();
    assert!(held > 60_000 && held <= 8 << 20, "{held}");
    let before = line.sent(0);
    line.run(Duration::from_secs(3600));
    let probes = line.sent(0) - before;
    assert!((60..=95).contains(&probes), "{probes} in an hour: one a minute, and some answers");
    assert_eq!(line.states(0), [Some(State::Established); 2]);
    line.peer(1, 0).unwrap().appetite = Some(u64::MAX);
    line.act(1, 0);
    line.run(Duration::from_secs(20));
    assert_eq!(line.peer(1, 0).unwrap().read, 10_000_000);
}

#[test]
fn a_window_update_that_is_lost_is_found_by_a_probe() {
    let mut line = established();
    line.peer(1, 0).unwrap().appetite = None;
    line.send(0, 1_000_000);
    line.run(Duration::from_secs(5));
    line.path(1).loss = 1_000_000;
    line.peer(1, 0).unwrap().appetite = Some(u64::MAX);
    line.act(1, 0);
    line.run(millis(100));
    line.path(1).loss = 0;
    line.run(Duration::from_secs(20));
    assert_eq!(line.peer(1, 0).unwrap().read, 1_000_000);
}

#[test]
fn keepalives_keep_a_silent_connection_and_end_that_of_a_vanished_peer() {
    let mut line = established();
    line.run(Duration::from_secs(10 * 3600));
    assert_eq!(line.states(0), [Some(State::Established); 2]);
    line.path(0).loss = 1_000_000;
    line.run(Duration::from_secs(241));
    assert_eq!(line.ends(0)[1], Some(End::TimedOut), "120 s and four times 30 s");
}

#[test]
fn without_keepalives_nothing_passes_and_nothing_ends() {
    let config = Config { keepalive: None, ..Config::default() };
    let mut line = Line::symmetric(3, config, Path::new(millis(20)));
    line.closes = [false; 2];
    line.open(0);
    line.run(Duration::from_secs(1));
    let before = line.sent(0) + line.sent(1);
    line.run(Duration::from_secs(100 * 3600));
    assert_eq!(line.sent(0) + line.sent(1), before);
    assert!(line.connection(0).next_deadline().is_none());
}

#[test]
fn what_is_never_acknowledged_ends_the_connection() {
    let mut line = established();
    line.path(0).loss = 1_000_000;
    line.send(0, 5000);
    line.run(Duration::from_secs(179));
    assert_eq!(line.ends(0)[0], None);
    line.run(Duration::from_secs(2));
    assert_eq!(line.ends(0)[0], Some(End::TimedOut));
}

#[test]
fn a_reset_counts_at_the_exact_position_only() {
    for (shift, expected) in [(1, None), (60_000, None), (0, Some(End::Reset))] {
        let mut line = established();
        let plain = line.plain(0);
        let before = line.sent(0);
        let sequence = plain.sequence.wrapping_add(shift);
        line.inject(0, 0, &Segment { sequence, flags: RST | ACK, ..plain });
        assert_eq!(line.ends(0)[0], expected, "{shift} beyond");
        let challenges = u64::from(expected.is_none());
        assert_eq!(line.sent(0) - before, challenges, "{shift} beyond");
    }
    let mut line = established();
    let plain = line.plain(0);
    let before = line.sent(0);
    let sequence = plain.sequence.wrapping_sub(5);
    line.inject(0, 0, &Segment { sequence, flags: RST, ..plain });
    assert_eq!((line.ends(0)[0], line.sent(0) - before), (None, 0), "outside of the window");
}

#[test]
fn forgeries_are_challenged_twice_a_second_at_most() {
    let mut line = established();
    let plain = line.plain(0);
    let before = line.sent(0);
    for n in 0..1000 {
        let forgery = match n % 3 {
            0 => Segment { flags: SYN, ..plain },
            1 => Segment { acknowledgment: plain.acknowledgment.wrapping_add(1 << 30), ..plain },
            _ => Segment { sequence: plain.sequence.wrapping_add(1 << 30), ..plain },
        };
        line.inject(0, 0, &forgery);
        line.run(millis(1));
    }
    assert_eq!(line.states(0), [Some(State::Established); 2]);
    assert_eq!(line.sent(0) - before, 2);
}

#[test]
fn a_segment_of_long_ago_is_not_taken_for_a_new_one() {
    let mut line = established();
    let mut plain = line.plain(0);
    plain.payload = b"old";
    let timestamps = plain.options.timestamps.as_mut().unwrap();
    timestamps.value = timestamps.value.wrapping_sub(10_000);
    line.inject(0, 0, &plain);
    assert_eq!(line.connection(0).receiver.nxt() as u32, plain.sequence, "PAWS");
}

#[test]
fn a_too_big_is_believed_of_what_is_on_the_way_and_never_below_the_minimum() {
    let mut line = established();
    line.send(0, 5000);
    let una = line.connection(0).sender.una() as u32;
    line.connection(0).on_too_big(1000, una.wrapping_sub(100));
    line.connection(0).on_too_big(1000, una.wrapping_add(6000));
    assert_eq!(line.connection(0).sender.mss(), 1308, "of nothing that is on the way");
    line.connection(0).on_too_big(1500, una);
    assert_eq!(line.connection(0).sender.mss(), 1308, "only ever lowers");
    line.connection(0).on_too_big(1000, una);
    assert_eq!(line.connection(0).sender.mss(), 948);
    line.connection(0).on_too_big(68, una);
    assert_eq!(line.connection(0).sender.mss(), 524, "536 less the timestamps");
    line.act(0, 0);
    line.run(millis(200));
    assert_eq!(line.peer(1, 0).unwrap().read, 5000);
}

#[test]
fn an_end_that_has_shut_down_still_receives() {
    let mut line = line();
    line.closes = [true, false];
    let flow = line.open(1000);
    line.run(millis(500));
    assert_eq!(line.states(flow), [Some(State::FinWait2), Some(State::CloseWait)]);
    assert!(line.peer(1, flow).unwrap().saw_end_of_stream);
    line.send(1, 1_000_000);
    line.run(Duration::from_secs(3));
    assert_eq!(line.peer(0, flow).unwrap().read, 1_000_000);
    line.peer(1, flow).unwrap().closes = true;
    line.act(1, flow);
    line.run(millis(100));
    assert_eq!(line.states(flow), [Some(State::TimeWait), Some(State::Closed)]);
}

#[test]
fn both_may_close_at_once() {
    let mut line = established();
    for host in [0, 1] {
        line.peer(host, 0).unwrap().closes = true;
        line.act(host, 0);
    }
    line.run(millis(25));
    assert_eq!(line.states(0), [Some(State::Closing); 2]);
    line.run(millis(25));
    assert_eq!(line.states(0), [Some(State::TimeWait); 2]);
    line.run(Duration::from_secs(61));
    assert_eq!(line.ends(0), [Some(End::Closed); 2]);
}

#[test]
fn both_may_open_at_once() {
    let mut line = line();
    let flow = line.open(10_000);
    let [local, remote] = [0, 1].map(|end: usize| {
        let first = &line.flows[flow].0.connection;
        if end == 0 { first.remote() } else { first.local() }
    });
    let second = Connection::connect(line.now, &line.stacks[1], local, remote);
    line.flows[flow].1 = Some(super::line::Peer::new(second, 20_000, true));
    line.act(1, flow);
    line.run(Duration::from_secs(3));
    let read = [0, 1].map(|host| line.peer(host, flow).unwrap().read);
    assert_eq!(read, [20_000, 10_000]);
}

#[test]
fn an_abort_resets_the_other_end_and_leaves_no_memory() {
    let mut line = established();
    line.peer(1, 0).unwrap().appetite = None;
    line.send(0, 50_000);
    line.run(millis(200));
    line.connection(0).abort();
    line.act(0, 0);
    assert!(line.connection(0).is_closed());
    line.run(millis(25));
    assert_eq!(line.ends(0), [Some(End::Aborted), Some(End::Reset)]);
    line.flows.clear();
    assert!(line.stacks.iter().all(|stack| stack.memory_bytes() == 0));
}

#[test]
fn an_abort_after_the_end_gives_up_what_nobody_has_read() {
    let mut line = established();
    line.peer(1, 0).unwrap().appetite = None;
    line.send(0, 50_000);
    for host in [0, 1] {
        line.peer(host, 0).unwrap().closes = true;
        line.act(host, 0);
    }
    line.run(Duration::from_secs(70));
    let connection = line.connection(1);
    assert_eq!((connection.end(), connection.readable_bytes()), (Some(End::Closed), 50_000));
    assert!(!connection.is_closed(), "what has come may still be read");
    connection.abort();
    assert!(connection.is_closed());
}

#[test]
fn a_time_wait_gives_way_to_a_later_connection_alone() {
    let mut line = line();
    line.open(1000);
    line.run(Duration::from_secs(1));
    assert_eq!(line.states(0)[0], Some(State::TimeWait));
    let now = line.now;
    let connection = &line.flows[0].0.connection;
    let sequence = connection.receiver.nxt() as u32;
    let mut syn = Segment { sequence, flags: SYN, ..Segment::default() };
    assert!(!connection.can_be_reused_by(now, &syn));
    syn.sequence = sequence.wrapping_add(1);
    assert!(connection.can_be_reused_by(now, &syn), "a later sequence number");
    let recent = connection.recent.unwrap().value;
    syn.options.timestamps = Some(Timestamps { value: recent.wrapping_sub(9), echo: 0 });
    assert!(!connection.can_be_reused_by(now, &syn), "an earlier time");
    syn.sequence = sequence.wrapping_sub(1000);
    syn.options.timestamps = Some(Timestamps { value: recent + 9, echo: 0 });
    assert!(connection.can_be_reused_by(now, &syn), "a later time");
    syn.flags = ACK;
    assert!(!connection.can_be_reused_by(now, &syn));
}

#[test]
fn a_fin_whose_acknowledgment_is_lost_is_acknowledged_again_in_time_wait() {
    let mut line = established();
    line.peer(0, 0).unwrap().closes = true;
    line.act(0, 0);
    line.run(millis(100));
    line.peer(1, 0).unwrap().closes = true;
    let sent = line.sent(0);
    line.doom(0, [sent]);
    line.act(1, 0);
    line.run(Duration::from_secs(5));
    assert_eq!(line.states(0), [Some(State::TimeWait), Some(State::Closed)]);
}

#[test]
fn acknowledgments_are_delayed_and_every_second_segment_has_one() {
    let mut line = established();
    // Past the segments that are acknowledged at once.
    line.send(0, 100 * 1308);
    line.run(millis(500));
    let before = line.sent(1);
    line.send(0, 100);
    line.run(millis(25 + 35));
    assert_eq!(line.sent(1), before + 1, "at once: the connection was idle");
    line.send(0, 100 * 1308);
    line.run(millis(150));
    let acknowledgments = line.sent(1) - before;
    assert!((50..=70).contains(&acknowledgments), "{acknowledgments}");
}

#[test]
fn an_idle_connection_costs_little() {
    let mut line = established();
    line.send(0, 1_000_000);
    line.run(Duration::from_secs(3));
    assert_eq!(line.stacks[0].memory_bytes(), 0);
    assert_eq!(line.stacks[1].memory_bytes(), 0);
    assert!(size_of::<Connection>() <= 1500, "{}", size_of::<Connection>());
}

#[test]
fn short_memory_slows_connections_down_and_stops_none() {
    let config = Config { budget_bytes: 200_000, ..Config::default() };
    let mut line = Line::symmetric(3, config, Path::new(millis(20)));
    for _ in 0..8 {
        line.open(300_000);
    }
    line.run(millis(500));
    for stack in &line.stacks {
        assert!(stack.memory_bytes() < 200_000 + 8 * 70_000, "{}", stack.memory_bytes());
    }
    line.run(Duration::from_secs(60));
    for (_, second) in &line.flows {
        assert_eq!(second.as_ref().unwrap().read, 300_000);
    }
}

#[test]
fn scattered_bytes_cannot_fill_the_memory() {
    let mut line = established();
    let plain = line.plain(1);
    let window = 60_000;
    for n in (1..window).step_by(2) {
        let sequence = plain.sequence.wrapping_add(n);
        line.connection(1)
            .on_segment(super::super::tests::START, &Segment { sequence, payload: b"x", ..plain });
    }
    let held = line.stacks[1].memory_bytes();
    assert!(held <= 2 * (64 << 10) + 1000, "{held} for {} bytes", window / 2);
}

#[test]
fn what_is_out_of_order_on_many_connections_stays_within_the_budget_of_all() {
    let config = Config { budget_bytes: 200_000, ..Config::default() };
    let mut line = Line::symmetric(3, config, Path::new(millis(20)));
    line.closes = [false; 2];
    let flows: Vec<_> = (0..8).map(|_| line.open(0)).collect();
    line.run(millis(125));
    let now = line.now;
    let whole = [7; 1000];
    let send = |line: &mut Line, flow, at: u32| {
        let plain = line.plain_of(1, flow);
        let sequence = plain.sequence.wrapping_add(at);
        let segment = Segment { sequence, payload: &whole, ..plain };
        let connection = &mut line.peer(1, flow).expect("an open flow").connection;
        connection.on_segment(now, &segment);
        connection.readable_bytes()
    };
    for flow in &flows {
        for segment in 1..50 {
            assert_eq!(send(&mut line, *flow, 1000 * segment), 0);
        }
    }
    let held = line.stacks[1].memory_bytes();
    assert!((100_000..=201_200).contains(&held), "{held} bytes are held");
    // What is in order goes on nevertheless.
    assert!(flows.iter().all(|flow| send(&mut line, *flow, 0) >= 1000));
}

#[test]
fn a_syn_of_a_peer_that_knows_no_options_makes_a_connection() {
    let mut line = line();
    line.features = [false; 3];
    line.answer = 200_000;
    let flow = line.open(200_000);
    let before = line.sent(0);
    line.doom(0, [before + 20, before + 40]);
    line.run(Duration::from_secs(10));
    let read = [0, 1].map(|host| line.peer(host, flow).unwrap().read);
    assert_eq!(read, [200_000; 2]);
}

#[test]
fn a_tiny_mss_is_not_obeyed() {
    let line = line();
    let syn = Syn {
        local: "10.0.0.2:80".parse().unwrap(),
        remote: "10.0.0.1:99".parse().unwrap(),
        sequence: 5,
        window: 1000,
        options: super::super::Options { mss: Some(1), ..Default::default() },
    };
    let connection = Connection::accept(line.now, &line.stacks[0], &syn);
    assert_eq!(connection.agreed().mss, 128);
}

#[test]
fn data_and_fin_in_one_segment_are_both_taken() {
    let mut line = established();
    let plain = line.plain(0);
    line.inject(0, 0, &Segment { flags: ACK | FIN, payload: b"\0\x01\x02", ..plain });
    assert_eq!(line.peer(0, 0).unwrap().read, 3);
    assert_eq!(line.states(0)[0], Some(State::CloseWait));
}

#[test]
fn drops_do_not_tell_how_fast_a_stream_may_be() {
    for congestion in [Algorithm::Cubic, Algorithm::Bbr] {
        let config = Config { congestion, ..Config::default() };
        let mut line = Line::symmetric(3, config, Path::new(millis(20)));
        line.closes = [false; 2];
        line.open(0);
        line.run(Duration::from_secs(1));
        for _ in 0..50 {
            line.send(0, 1);
            line.run(millis(300));
        }
        line.send(0, 100_000);
        line.run(millis(400));
        assert_eq!(line.peer(1, 0).unwrap().read, 100_050, "{congestion:?}");
    }
}

#[test]
fn a_timeout_for_want_of_acknowledgments_alone_is_undone() {
    let mut line = established();
    line.send(0, 400_000);
    line.run(Duration::from_secs(1));
    // All acknowledgments of a flight are lost, but for those of its copies.
    line.send(0, 20_000);
    let window = line.connection(0).sender.window();
    line.path(1).loss = 1_000_000;
    line.run(millis(400));
    assert!(line.connection(0).sender.window() < window / 2, "the timeout is believed");
    line.path(1).loss = 0;
    line.run(Duration::from_secs(2));
    assert!(line.connection(0).sender.is_idle());
    assert!(line.connection(0).sender.window() >= window, "and then it is not");
}

#[test]
fn what_users_say_is_shown_by_nothing() {
    let mut line = established();
    line.connection(0).write(b"a secret");
    let shown = format!("{:?}", line.connection(0));
    assert!(shown.contains("8 bytes"));
    assert!(!shown.contains(&format!("{:?}", b"a sec").trim_matches(['[', ']']).to_owned()));
}
