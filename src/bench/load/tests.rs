//! The generators against each other, over loopback.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;

use super::*;

/// Runs the one that listens and the one that is told its port.
fn pair(server: Task, client: impl FnOnce(SocketAddr) -> Task) -> (Outcome, Outcome) {
    let (told, port) = mpsc::channel();
    let serving = thread::spawn(move || server.run(&mut |port| told.send(port).unwrap()));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.recv().unwrap()));
    let asked = client(to).run(&mut |_| panic!("a client has no port to tell")).unwrap();
    (serving.join().unwrap().unwrap(), asked)
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn tcp_counts_what_arrives_after_the_warm_up_and_by_time() {
    let duration = Duration::from_millis(300);
    let (received, sent) = pair(
        Task::TcpReceive(tcp::Receive {
            meeting: tcp::Meeting::Listen(LOCALHOST),
            streams: 3,
            counting: tcp::Counting {
                warm_up: Duration::from_millis(100),
                duration,
                bucket: Duration::from_millis(100),
            },
        }),
        |to| {
            Task::TcpSend(tcp::Send {
                meeting: tcp::Meeting::Connect(to),
                streams: 3,
                filling: tcp::Filling { limit: Duration::from_secs(20), rate: None },
                congestion: None,
            })
        },
    );
    let (Outcome::TcpReceived(received), Outcome::TcpSent(sent)) = (received, sent) else {
        panic!("outcomes of the wrong kind");
    };
    assert_eq!(received.duration, duration);
    assert_eq!(received.buckets.len(), 3);
    assert_eq!(received.buckets.iter().sum::<u64>(), received.bytes);
    assert_eq!(received.shares.iter().sum::<u64>(), received.bytes);
    assert_eq!(received.shares.len(), 3);
    assert!(received.bytes > 0 && received.bytes < received.all_bytes, "{received:?}");
    assert!(received.all_bytes <= sent.bytes, "{received:?} {sent:?}");
}

#[test]
fn who_sends_may_be_the_one_who_listens() {
    let duration = Duration::from_millis(100);
    let filling = tcp::Filling { limit: Duration::from_secs(20), rate: None };
    let meeting = tcp::Meeting::Listen(LOCALHOST);
    let send = Task::TcpSend(tcp::Send { meeting, streams: 2, filling, congestion: None });
    let (sent, received) = pair(send, |to| {
        Task::TcpReceive(tcp::Receive {
            meeting: tcp::Meeting::Connect(to),
            streams: 2,
            counting: tcp::Counting { warm_up: Duration::ZERO, duration, bucket: duration },
        })
    });
    let (Outcome::TcpReceived(received), Outcome::TcpSent(sent)) = (received, sent) else {
        panic!("outcomes of the wrong kind");
    };
    assert!(received.bytes > 0 && received.bytes <= sent.bytes, "{received:?} {sent:?}");
}

#[test]
fn tcp_with_a_rate_keeps_to_it() {
    let rate = 80_000_000;
    let (received, _) = pair(
        Task::TcpReceive(tcp::Receive {
            meeting: tcp::Meeting::Listen(LOCALHOST),
            streams: 2,
            counting: tcp::Counting {
                warm_up: Duration::from_millis(100),
                duration: Duration::from_millis(500),
                bucket: Duration::from_millis(100),
            },
        }),
        |to| {
            let limit = Duration::from_secs(20);
            Task::TcpSend(tcp::Send {
                meeting: tcp::Meeting::Connect(to),
                streams: 2,
                filling: tcp::Filling { limit, rate: Some(rate) },
                congestion: None,
            })
        },
    );
    let Outcome::TcpReceived(received) = received else { panic!("{received:?}") };
    let found = received.bits_per_second();
    assert!((40e6..120e6).contains(&found), "{found}");
}

#[test]
fn udp_arrives_at_the_rate_that_was_asked_for_and_is_counted_once() {
    let limit = Duration::from_secs(20);
    let (received, sent) = pair(Task::UdpReceive(udp::Receive { limit }), |to| {
        Task::UdpSend(udp::Send {
            to,
            payload_bytes: 100,
            packets_per_second: 2000.0,
            duration: Duration::from_millis(500),
        })
    });
    let (Outcome::UdpReceived(received), Outcome::UdpSent(sent)) = (received, sent) else {
        panic!("outcomes of the wrong kind");
    };
    assert!((700..=1010).contains(&sent.packets), "{sent:?}");
    assert!(received.packets <= sent.packets, "{received:?} {sent:?}");
    assert!(received.packets * 10 >= sent.packets * 9, "{received:?} {sent:?}");
    assert_eq!(received.bytes, received.packets * 100);
    assert_eq!(received.late, 0);
}

#[test]
fn a_datagram_that_arrives_twice_counts_once() {
    let (told, port) = mpsc::channel();
    let task = udp::Receive { limit: Duration::from_secs(20) };
    let receiving =
        thread::spawn(move || udp::receive(&task, &mut |port| told.send(port).unwrap()));
    let socket = connected_udp((Ipv4Addr::LOCALHOST, port.recv().unwrap()).into()).unwrap();
    for number in [0, 65, 1, 65, 0, u64::MAX - 1, END] {
        socket.send(&number.to_le_bytes()).unwrap();
    }
    let received = receiving.join().unwrap().unwrap();
    assert_eq!((received.packets, received.bytes, received.late), (3, 24, 1));
}

/// What whoever asked over two connections saw, and what whoever answered tells.
fn asked(transport: echo::Transport) -> (echo::Answers, Outcome) {
    let serve = echo::Serve { address: LOCALHOST, transport, connections: 2 };
    let (served, asked) = pair(Task::EchoServe(serve), |to| {
        Task::EchoAsk(echo::Ask {
            to,
            transport,
            connections: 2,
            warm_up: Duration::from_millis(20),
            duration: Duration::from_millis(200),
            interval: None,
            round_trip: Duration::ZERO,
        })
    });
    let Outcome::EchoAsked(answers) = asked else { panic!("{asked:?}") };
    (answers, served)
}

#[test]
fn questions_are_answered_over_tcp_and_udp_in_a_closed_loop() {
    for transport in [echo::Transport::Tcp, echo::Transport::Udp] {
        let (answers, _) = asked(transport);
        assert!(answers.latencies.count() > 10, "{transport:?}: {}", answers.latencies.count());
        assert_eq!(answers.lost, 0);
        assert!(answers.per_second() > 50.0);
    }
}

#[test]
fn a_connection_for_each_question_is_answered_and_closed() {
    let (answers, served) = asked(echo::Transport::Connect);
    assert!(answers.latencies.count() > 10, "{}", answers.latencies.count());
    assert_eq!(served, Outcome::EchoServed);
}

#[test]
fn a_crowd_is_there_and_goes_after_a_while() {
    let serve = crowd::Serve { address: LOCALHOST, connections: 100 };
    let hold = Duration::from_millis(10);
    let mut is_there = false;
    let (told, port) = mpsc::channel();
    let serving =
        thread::spawn(move || Task::CrowdServe(serve).run(&mut |port| told.send(port).unwrap()));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.recv().unwrap()));
    let begin = crowd::Begin { to, connections: 100, hold };
    let gone = Task::CrowdBegin(begin).run(&mut |_| is_there = true).unwrap();
    assert_eq!((gone, serving.join().unwrap().unwrap()), (Outcome::CrowdGone, Outcome::CrowdGone));
    assert!(is_there);
}

#[test]
fn streams_that_share_evenly_are_fair_and_one_that_has_all_is_not() {
    let received = |shares: &[u64]| tcp::Received { shares: shares.to_vec(), ..Default::default() };
    assert!((received(&[7, 7, 7, 7]).fairness() - 1.0).abs() < 1e-9);
    assert!((received(&[7, 0, 0, 0]).fairness() - 0.25).abs() < 1e-9);
    assert!((received(&[1, 3]).fairness() - 0.8).abs() < 1e-9);
}

#[test]
fn questions_at_a_pace_are_as_many_as_are_due() {
    let transport = echo::Transport::Udp;
    let serve = echo::Serve { address: LOCALHOST, transport, connections: 1 };
    let (_, asked) = pair(Task::EchoServe(serve), |to| {
        Task::EchoAsk(echo::Ask {
            to,
            transport,
            connections: 1,
            warm_up: Duration::from_millis(20),
            duration: Duration::from_millis(400),
            interval: Some(Duration::from_millis(4)),
            round_trip: Duration::ZERO,
        })
    });
    let Outcome::EchoAsked(answers) = asked else { panic!("{asked:?}") };
    assert_eq!(answers.latencies.count() + answers.lost, 100);
    assert!(answers.lost_share() < 0.5, "{answers:?}");
}

#[test]
fn questions_leave_at_their_pace_whether_the_last_was_answered_or_not() {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = far.local_addr().unwrap();
    let answering = thread::spawn(move || {
        // Says nothing before the last, which in a closed loop would never come.
        let mut held = Vec::new();
        while held.len() < 20 {
            let mut buffer = [0; 64];
            let (_, from) = far.recv_from(&mut buffer).unwrap();
            held.push((buffer, from));
        }
        for (question, from) in held {
            far.send_to(&question, from).unwrap();
        }
    });
    let (transport, interval) = (echo::Transport::Udp, Some(Duration::from_millis(5)));
    let (warm_up, round_trip) = (Duration::ZERO, Duration::from_secs(10));
    let duration = Duration::from_millis(100);
    let task = echo::Ask { to, transport, connections: 1, warm_up, duration, interval, round_trip };
    let answers = echo::ask(&task).unwrap();
    answering.join().unwrap();
    assert_eq!((answers.latencies.count(), answers.lost), (20, 0));
}

#[test]
fn an_answer_that_comes_twice_is_one_answer() {
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = far.local_addr().unwrap();
    // Answers every other question, and that twice.
    let answering = thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (length, from) = far.recv_from(&mut buffer).unwrap();
            match u64::from_le_bytes(*buffer.first_chunk().unwrap()) {
                END => break,
                number if number.is_multiple_of(2) => {
                    for _ in 0..2 {
                        far.send_to(&buffer[..length], from).unwrap();
                    }
                }
                _ => {}
            }
        }
    });
    let answers = echo::ask(&echo::Ask {
        to,
        transport: echo::Transport::Udp,
        connections: 1,
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(100),
        interval: Some(Duration::from_millis(5)),
        round_trip: Duration::ZERO,
    })
    .unwrap();
    answering.join().unwrap();
    assert_eq!((answers.latencies.count(), answers.lost), (10, 10));
}

#[test]
fn the_search_finds_the_rate_above_which_packets_are_lost() {
    // A path that carries 123,456 a second, and drops what is above.
    let path =
        |rate: f64| Ok::<_, ()>(udp::Trial { offered: rate, delivered: rate.min(123_456.0) });
    for start in [1000.0, 120_000.0, 5_000_000.0] {
        let found = udp::search(start, 20, 0.005, path).unwrap().unwrap();
        assert!((found / 123_456.0 - 1.0).abs() < 0.01, "from {start}: {found}");
    }
}

#[test]
fn the_search_does_not_take_a_rate_for_good_that_the_sender_could_not_give() {
    let path = |rate: f64| {
        let offered = rate.min(50_000.0);
        Ok::<_, ()>(udp::Trial { offered, delivered: offered })
    };
    let found = udp::search(400_000.0, 12, 0.005, path).unwrap().unwrap();
    assert!((45_000.0..=51_600.0).contains(&found), "{found}");
}

#[test]
fn a_rate_that_got_through_is_not_lost_again_by_a_slow_sender() {
    let path = |rate: f64| {
        // Above 150,000 a second it gives even less.
        let offered = if rate > 150_000.0 { 60_000.0 } else { rate };
        Ok::<_, ()>(udp::Trial { offered, delivered: offered })
    };
    let found = udp::search(50_000.0, 8, 0.005, path).unwrap().unwrap();
    assert!(found >= 100_000.0, "{found}");
}

#[test]
fn one_hiccup_does_not_decide_a_search() {
    let mut tries = 0;
    let path = |rate: f64| {
        tries += 1;
        let delivered = if tries % 4 == 1 { rate * 0.8 } else { rate.min(100_000.0) };
        Ok::<_, ()>(udp::Trial { offered: rate, delivered })
    };
    let found = udp::search(50_000.0, 10, 0.005, path).unwrap().unwrap();
    assert!((95_000.0..=100_500.0).contains(&found), "{found}");
}

#[test]
fn a_path_that_always_loses_has_no_rate() {
    let path = |rate: f64| Ok::<_, ()>(udp::Trial { offered: rate, delivered: rate * 0.9 });
    assert_eq!(udp::search(1000.0, 8, 0.005, path), Ok(None));
}

#[test]
fn a_task_and_its_outcome_survive_json() {
    let task = Task::UdpReceive(udp::Receive { limit: Duration::from_millis(1500) });
    let text = serde_json::to_string(&task).unwrap();
    assert_eq!(serde_json::from_str::<Task>(&text).unwrap(), task);
}
