use super::*;

/// A path that carries inner packets of up to `carries` bytes to a peer who may answer, with a
/// virtual clock.
struct Path {
    now: Instant,
    carries: u16,
    answers: bool,
    /// Whether who drops a datagram tells.
    tells: bool,
    mtu: PathMtu,
    sent: usize,
    /// Drops so many probes, whatever their size.
    loses: usize,
}

const ROUND_TRIP: Duration = Duration::from_millis(40);

impl Path {
    fn new(carries: u16, mtu: PathMtu) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        Self { now, carries, answers: true, tells: false, mtu, sent: 0, loses: 0 }
    }

    /// A large packet goes; then the time passes until nothing is going on. Returns how long it took.
    fn large_packet(&mut self) -> Duration {
        let (began, mut out) = (self.now, Vec::new());
        if self.mtu.asks() {
            self.mtu.handle_large(self.now, &mut out);
        }
        let mut answers: Vec<(Instant, u16)> = Vec::new();
        loop {
            for probe in std::mem::take(&mut out) {
                self.sent += 1;
                assert!(probe.bytes <= self.mtu.ceiling);
                if self.loses > 0 {
                    self.loses -= 1;
                } else if probe.bytes > self.carries {
                    if self.tells {
                        self.mtu.handle_told(self.carries, &mut out);
                    }
                } else if self.answers {
                    answers.push((self.now + ROUND_TRIP, probe.sequence));
                }
            }
            if !self.mtu.is_searching() {
                return self.now.since(began);
            }
            if !out.is_empty() {
                continue;
            }
            answers.sort();
            let due = self.mtu.next_deadline().unwrap();
            match answers.first().copied() {
                Some((at, sequence)) if at <= due => {
                    answers.remove(0);
                    self.now = at;
                    self.mtu.handle_answer(at, sequence, &mut out);
                }
                _ => {
                    self.now = due;
                    self.mtu.handle_timeout(due, &mut out);
                }
            }
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        let mut out = Vec::new();
        self.mtu.handle_timeout(self.now, &mut out);
        assert_eq!(out, [], "nothing is sent while nobody sends");
    }
}

#[test]
fn a_path_that_carries_everything_is_known_after_a_round_trip() {
    let mut path = Path::new(1500, PathMtu::new(1360, 1360));
    assert_eq!(path.large_packet(), ROUND_TRIP);
    assert_eq!((path.mtu.limit(), path.mtu.source()), (1360, Source::Measured));
}

#[test]
fn n_03_a_black_hole_is_found_within_two_seconds_and_the_largest_rung_below_it_is_used() {
    for (carries, expected) in [(1359, 1280), (1300, 1280), (1279, 1200), (1200, 1200), (700, 1200)]
    {
        let mut path = Path::new(carries, PathMtu::new(1360, 1360));
        assert!(path.large_packet() < Duration::from_secs(2));
        assert_eq!(
            (path.mtu.limit(), path.mtu.source()),
            (expected, Source::Measured),
            "{carries}"
        );
    }
}

#[test]
fn n_03_a_path_that_narrows_later_is_found_out_while_large_packets_go() {
    let mut path = Path::new(1500, PathMtu::new(1420, 1420));
    path.large_packet();
    path.carries = 1290;
    path.wait(11);
    assert!(path.large_packet() < Duration::from_secs(4), "a check, and a search");
    assert_eq!(path.mtu.limit(), 1280);
}

#[test]
fn with_icmp_the_exact_size_is_used() {
    let mut path = Path::new(1340, PathMtu::new(1360, 1360));
    path.tells = true;
    path.large_packet();
    assert_eq!((path.mtu.limit(), path.mtu.source()), (1340, Source::Measured));
}

#[test]
fn of_a_peer_that_answers_nothing_icmp_is_believed_and_silence_is_not() {
    let mut path = Path::new(1340, PathMtu::new(1360, 1360));
    path.answers = false;
    path.large_packet();
    assert_eq!((path.mtu.limit(), path.mtu.source()), (1360, Source::Unanswered));
    path.tells = true;
    path.wait(61);
    path.large_packet();
    assert_eq!((path.mtu.limit(), path.mtu.source()), (1340, Source::Told));
}

#[test]
fn a_forged_icmp_lowers_nothing_while_the_peer_answers() {
    let (mut mtu, mut out) = (PathMtu::new(1360, 1360), Vec::new());
    let now = Instant::ZERO;
    mtu.handle_told(1200, &mut out);
    assert_eq!((mtu.limit(), out.len()), (1360, 0), "nothing was on the way");
    mtu.handle_large(now, &mut out);
    mtu.handle_told(600, &mut out);
    mtu.handle_told(68, &mut out);
    let full = out.iter().find(|probe| probe.bytes == 1360).unwrap().sequence;
    mtu.handle_answer(now + ROUND_TRIP, full, &mut out);
    assert_eq!((mtu.limit(), mtu.source()), (1360, Source::Measured));
    mtu.handle_told(1200, &mut out);
    assert_eq!(mtu.limit(), 1360);
}

#[test]
fn upward_goes_only_what_is_allowed_to() {
    for (ceiling, carries, expected) in
        [(8921, 1500, 1420), (8921, 8900, 1420), (8921, 8921, 8921), (1360, 9000, 1360)]
    {
        let mut path = Path::new(carries, PathMtu::new(1360, ceiling));
        path.large_packet();
        assert_eq!(path.mtu.limit(), expected, "up to {ceiling} where {carries} fit");
    }
}

#[test]
fn what_was_too_large_is_tried_again_after_ten_minutes_or_on_another_path() {
    let mut path = Path::new(1290, PathMtu::new(1360, 1360));
    path.large_packet();
    assert_eq!(path.mtu.limit(), 1280);
    path.carries = 1500;
    for _ in 0..50 {
        path.wait(11);
        path.large_packet();
        assert_eq!(path.mtu.limit(), 1280);
    }
    path.wait(60);
    path.large_packet();
    assert_eq!(path.mtu.limit(), 1360);
    path.carries = 1290;
    path.wait(11);
    path.large_packet();
    path.carries = 1500;
    path.mtu.handle_moved(path.now);
    path.large_packet();
    assert_eq!(path.mtu.limit(), 1360);
}

#[test]
fn a_loss_or_two_are_no_black_hole() {
    for loses in 0..12 {
        let mut path = Path::new(1500, PathMtu::new(1360, 1360));
        path.loses = loses;
        path.large_packet();
        // Of four sizes, twelve probes, the first are lost.
        if loses <= 8 {
            assert_eq!((path.mtu.limit(), path.mtu.source()), (1360, Source::Measured), "{loses}");
        }
    }
}

#[test]
fn a_check_costs_two_probes_every_ten_seconds_and_only_while_large_packets_go() {
    let mut path = Path::new(1500, PathMtu::new(1360, 1360));
    path.large_packet();
    path.sent = 0;
    for _ in 0..60 {
        path.large_packet();
        path.wait(1);
    }
    assert!((2 * 5..=2 * 6).contains(&path.sent), "{} probes in a minute", path.sent);
    path.wait(3600);
    assert_eq!(path.mtu.next_deadline(), None);
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let (mut mtu, mut out) = (PathMtu::new(1360, 1360), Vec::new());
    mtu.handle_answer(Instant::ZERO, 1, &mut out);
    mtu.handle_large(Instant::ZERO, &mut out);
    mtu.handle_answer(Instant::ZERO, 31, &mut out);
    assert!(mtu.is_searching());
    assert_eq!((mtu.limit(), mtu.source()), (1360, Source::Assumed));
}

#[test]
fn a_tunnel_below_the_least_stays_as_it_is() {
    let mut path = Path::new(600, PathMtu::new(576, 576));
    path.large_packet();
    assert_eq!(path.mtu.limit(), 576);
}
