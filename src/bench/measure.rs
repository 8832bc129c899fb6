//! What is done to one tunnel: the measurements of each group, in order.

mod gateway;

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::BenchError;
use super::latencies::Latencies;
use super::load::echo::{self, Answers, Transport};
use super::load::udp::{self, Trial};
use super::load::{Outcome, Task, handshake, tcp};
use super::machine::{self, Ticks};
use super::metric::Group;
use super::settings::Settings;
use super::topology::Tunnel;
use super::worker::Running;
use crate::control::interrupt::Interrupt;
use crate::crypto::dh;
use crate::sys::clock;

/// What one group of measurements gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// By the key of the metric.
    pub metrics: BTreeMap<String, f64>,
    /// Why something could not be measured, by the key of the metric or the name of the step.
    pub errors: BTreeMap<String, String>,
    /// Throughput over time in Gbit/s, by the key of the metric.
    pub series: BTreeMap<String, Vec<f64>>,
    /// Round trips, by what the tunnel was doing: `idle` or `loaded`.
    pub latencies: BTreeMap<String, Latencies>,
}

impl Measured {
    fn put(&mut self, key: &str, value: f64) {
        if value.is_finite() {
            self.metrics.insert(key.to_owned(), value);
        }
    }
}

/// Does the measurements of `group`. What cannot be measured is told in the result, unless the
/// program under test has ended.
///
/// # Errors
/// The program has ended, or somebody interrupted; what was measured until then is in `measured`.
pub fn group(
    group: Group,
    tunnel: &mut Tunnel,
    settings: &Settings,
    interrupt: &Interrupt,
    measured: &mut Measured,
) -> Result<(), BenchError> {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    if let Some(start) = tunnel.start {
        measured.put("start", millis(start));
    }
    if let Some(first) = tunnel.first_packet {
        measured.put("first_packet", millis(first));
    }
    let mut bench = Bench { tunnel, settings, interrupt, measured };
    match group {
        Group::Tcp => bench.tcp(),
        Group::Udp => bench.udp(),
        Group::Latency => bench.latency(),
        Group::Load => bench.load(),
        Group::Handshake => bench.handshakes(),
        Group::Connect => bench.connect(),
        Group::Crowd => bench.crowd(),
        Group::Flood => bench.flood(),
    }
}

struct Bench<'a> {
    tunnel: &'a mut Tunnel,
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    measured: &'a mut Measured,
}

/// Streams in one direction.
#[derive(Clone, Copy)]
struct Flow {
    /// The side that sends.
    from: usize,
    streams: usize,
}

impl Bench<'_> {
    fn tcp(&mut self) -> Result<(), BenchError> {
        let several = self.settings.streams;
        let there = |streams| Flow { from: 0, streams };
        let back = |streams| Flow { from: 1, streams };
        self.streams("tcp_1", &[there(1)])?;
        self.streams("tcp_1_back", &[back(1)])?;
        self.streams("tcp_n", &[there(several)])?;
        self.streams("tcp_n_back", &[back(several)])?;
        self.streams("tcp_both", &[there(1), back(1)])?;
        if let Some((_, peak)) = self.memory() {
            self.measured.put("memory_peak", peak);
        }
        Ok(())
    }

    /// Does one measurement with streams, with what it costs.
    fn streams(&mut self, key: &str, flows: &[Flow]) -> Result<(), BenchError> {
        let before = (self.tunnel.processor_time()?, Ticks::now());
        let outcome = self.run_streams(flows);
        let after = (self.tunnel.processor_time()?, Ticks::now());
        let Some((received, again)) = self.keep(key, outcome)? else { return Ok(()) };
        self.measured.put(key, gigabits(&received));
        if let [one] = &received[..]
            && one.shares.len() > 1
        {
            self.measured.put(&format!("{key}_fairness"), one.fairness());
        }
        let series = series(&received);
        self.measured.series.insert(key.to_owned(), series);
        // In the warm-up too: the time is of all of it. What was sent and is still in the sockets'
        // buffers has cost nothing yet.
        let gigabytes = received.iter().map(|one| one.all_bytes).sum::<u64>() as f64 / 1e9;
        if let (Some(before), Some(after)) = (before.0, after.0) {
            let spent = after.saturating_sub(before).as_secs_f64();
            self.measured.put(&format!("{key}_cpu"), spent / gigabytes);
        }
        if let (Ok(before), Ok(after)) = (before.1, after.1) {
            let seconds = after.since(before).busy_seconds();
            self.measured.put(&format!("{key}_machine_cpu"), seconds / gigabytes);
        }
        self.measured.put(&format!("{key}_again"), again as f64 / gigabytes);
        Ok(())
    }

    /// Runs all flows at once. Returns what arrived, and how many segments were sent again.
    fn run_streams(&mut self, flows: &[Flow]) -> Result<(Vec<tcp::Received>, u64), BenchError> {
        let streams = self.start_streams(flows, self.settings.tcp)?;
        self.end_streams(streams)
    }

    fn end_streams(
        &self,
        (receivers, senders): (Vec<Running>, Vec<Running>),
    ) -> Result<(Vec<tcp::Received>, u64), BenchError> {
        let limit = self.settings.streams_take() + PATIENCE;
        let mut received = Vec::new();
        for receiver in receivers {
            match receiver.outcome(limit, self.interrupt)? {
                Outcome::TcpReceived(one) => received.push(one),
                other => return Err(BenchError::mismatch("TCP receiver", &other)),
            }
        }
        let mut again = 0;
        for sender in senders {
            match sender.outcome(limit, self.interrupt)? {
                Outcome::TcpSent(sent) => again += sent.retransmissions,
                other => return Err(BenchError::mismatch("TCP sender", &other)),
            }
        }
        Ok((received, again))
    }

    fn start_streams(
        &mut self,
        flows: &[Flow],
        duration: Duration,
    ) -> Result<(Vec<Running>, Vec<Running>), BenchError> {
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        for &Flow { from, streams } in flows {
            let counting =
                tcp::Counting { warm_up: self.settings.warm_up, duration, bucket: BUCKET };
            let limit = self.settings.streams_take() + PATIENCE;
            let filling = tcp::Filling { limit, rate: None };
            let congestion = self.settings.congestion;
            let receive = |meeting| Task::TcpReceive(tcp::Receive { meeting, streams, counting });
            let send = |meeting| Task::TcpSend(tcp::Send { meeting, streams, filling, congestion });
            // Whichever way data goes, side 0 connects: a hub may let nobody else in.
            let [near, far] = &mut self.tunnel.sides;
            let listen = tcp::Meeting::Listen(far.address.into());
            let connect = |port| tcp::Meeting::Connect((far.address, port).into());
            let (receiver, sender) = if from == 0 {
                let receiver = far.worker.ask("TCP receiver", receive(listen))?;
                let port = receiver.port(self.interrupt)?;
                (receiver, near.worker.ask("TCP sender", send(connect(port)))?)
            } else {
                let sender = far.worker.ask("TCP sender", send(listen))?;
                let port = sender.port(self.interrupt)?;
                (near.worker.ask("TCP receiver", receive(connect(port)))?, sender)
            };
            receivers.push(receiver);
            senders.push(sender);
        }
        Ok((receivers, senders))
    }

    fn udp(&mut self) -> Result<(), BenchError> {
        let longest = usize::try_from(self.tunnel.sides[0].mtu).unwrap_or(usize::MAX);
        for (key, packet) in [("udp_64", 64), ("udp_512", 512), ("udp_mtu", longest)] {
            let payload = packet - IPV4_UDP_BYTES;
            let settings = self.settings;
            let found = udp::search(settings.udp_start, settings.udp_steps, LOSS, |rate| {
                self.datagrams(payload, rate)
            });
            match self.keep(key, found)? {
                Some(Some(rate)) => self.measured.put(key, rate),
                Some(None) => {
                    let text = format!("more than {} % lost at every rate", LOSS * 100.0);
                    self.measured.errors.insert(key.to_owned(), text);
                }
                None => {}
            }
        }
        Ok(())
    }

    fn datagrams(&mut self, payload_bytes: usize, rate: f64) -> Result<Trial, BenchError> {
        let limit = self.settings.udp + PATIENCE;
        let far = &mut self.tunnel.sides[1];
        let receiver = far.worker.ask("UDP receiver", Task::UdpReceive(udp::Receive { limit }))?;
        let to = (far.address, receiver.port(self.interrupt)?).into();
        let (packets_per_second, duration) = (rate, self.settings.udp);
        let task = udp::Send { to, payload_bytes, packets_per_second, duration };
        let sender = self.tunnel.sides[0].worker.ask("UDP sender", Task::UdpSend(task))?;
        let sent = match sender.outcome(limit, self.interrupt)? {
            Outcome::UdpSent(sent) => sent,
            other => return Err(BenchError::mismatch("UDP sender", &other)),
        };
        let received = match receiver.outcome(limit, self.interrupt)? {
            Outcome::UdpReceived(received) => received,
            other => return Err(BenchError::mismatch("UDP receiver", &other)),
        };
        let seconds = sent.duration.as_secs_f64();
        Ok(Trial {
            offered: sent.packets as f64 / seconds,
            delivered: received.packets as f64 / seconds,
        })
    }

    fn latency(&mut self) -> Result<(), BenchError> {
        self.idle()?;
        let answers = self.ask(Transport::Udp, 1, self.settings.latency, Some(PING_INTERVAL));
        if let Some(answers) = self.keep("idle", answers)? {
            self.put_round_trips("idle", answers);
        }
        for (key, transport, connections) in [
            ("request_tcp_1", Transport::Tcp, 1),
            ("request_tcp_16", Transport::Tcp, 16),
            ("request_udp_1", Transport::Udp, 1),
        ] {
            let answers = self.ask(transport, connections, self.settings.requests, None);
            if let Some(answers) = self.keep(key, answers)? {
                self.measured.put(key, answers.per_second());
            }
        }
        Ok(())
    }

    /// What both programs cost while nothing is to be done.
    fn idle(&mut self) -> Result<(), BenchError> {
        let Some(before) = self.tunnel.processor_time()? else { return Ok(()) };
        let started = clock::now().mono;
        if self.interrupt.wait(self.settings.idle) {
            return Err(BenchError::Interrupted);
        }
        let passed = clock::now().mono.since(started).as_secs_f64();
        if let Some(after) = self.tunnel.processor_time()? {
            let spent = after.saturating_sub(before).as_secs_f64();
            self.measured.put("idle_cpu", spent * 1e3 / passed);
        }
        if let Some((now, _)) = self.memory() {
            self.measured.put("memory_idle", now);
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), BenchError> {
        let flow = [Flow { from: 0, streams: self.settings.streams }];
        let settings = self.settings;
        let outcome = self.start_streams(&flow, settings.load).and_then(|streams| {
            // The questions begin when the streams are warm, and end before them.
            if self.interrupt.wait(settings.warm_up + settings.load / 10) {
                return Err(BenchError::Interrupted);
            }
            let during = settings.load.mul_f64(0.7);
            let answers = self.ask(Transport::Udp, 1, during, Some(PING_INTERVAL))?;
            Ok((self.end_streams(streams)?.0, answers))
        });
        let Some((received, answers)) = self.keep("loaded", outcome)? else { return Ok(()) };
        self.measured.put("loaded_tcp", gigabits(&received));
        self.put_round_trips("loaded", answers);
        Ok(())
    }

    fn put_round_trips(&mut self, when: &str, answers: Answers) {
        for (share, name) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99_9")] {
            if let Some(micros) = answers.latencies.micros(share) {
                self.measured.put(&format!("{when}_{name}"), micros);
            }
        }
        self.measured.put(&format!("{when}_lost"), answers.lost_share() * 100.0);
        self.measured.latencies.insert(when.to_owned(), answers.latencies);
    }

    fn ask(
        &mut self,
        transport: Transport,
        connections: usize,
        duration: Duration,
        interval: Option<Duration>,
    ) -> Result<Answers, BenchError> {
        let far = &mut self.tunnel.sides[1];
        let address = far.address.into();
        let task = echo::Serve { address, transport, connections };
        let server = far.worker.ask("echo server", Task::EchoServe(task))?;
        let to = (address, server.port(self.interrupt)?).into();
        let warm_up = ECHO_WARM_UP;
        let round_trip = self.settings.wiring.round_trip();
        let task =
            echo::Ask { to, transport, connections, warm_up, duration, interval, round_trip };
        let asker = self.tunnel.sides[0].worker.ask("echo client", Task::EchoAsk(task))?;
        let limit = warm_up + duration + PATIENCE;
        match asker.outcome(limit, self.interrupt)? {
            Outcome::EchoAsked(answers) => {
                server.outcome(limit, self.interrupt)?;
                Ok(answers)
            }
            other => Err(BenchError::mismatch("echo client", &other)),
        }
    }

    fn handshakes(&mut self) -> Result<(), BenchError> {
        let [near, far] = &mut self.tunnel.sides;
        let Some(responder) = far.public_key else { return Ok(()) };
        let peers = self.settings.handshakes;
        // New ones each time; that they are no secret does not matter here.
        let seed = clock::now().mono.as_nanos();
        let keys = handshake::private_keys(seed, peers).map(|key| dh::public_key(&key));
        let outcome = far.add_peers(keys).and_then(|()| {
            let responder = responder.to_base64();
            let task = handshake::Begin { to: far.endpoint, responder, seed, peers };
            let running = near.worker.ask("handshakes", Task::Handshakes(task))?;
            match running.outcome(HANDSHAKES_LIMIT, self.interrupt)? {
                Outcome::HandshakesAnswered(answered) => Ok(answered),
                other => Err(BenchError::mismatch("handshakes", &other)),
            }
        });
        let Some(answered) = self.keep("handshakes", outcome)? else { return Ok(()) };
        if answered.lost * 20 > peers as u64 {
            let text = format!("{} of {peers} were not answered", answered.lost);
            self.measured.errors.insert("handshakes".to_owned(), text);
        } else {
            self.measured.put("handshakes", answered.per_second());
        }
        Ok(())
    }

    /// Of the program that has more, in MB: now, and at most so far.
    fn memory(&self) -> Option<(f64, f64)> {
        let each = self.tunnel.processes().filter_map(|id| machine::memory_megabytes(id).ok());
        each.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }

    /// The result, or nothing and a note of what went wrong.
    ///
    /// # Errors
    /// What ends the whole group: the program is gone, or somebody interrupted.
    fn keep<T>(
        &mut self,
        key: &str,
        outcome: Result<T, BenchError>,
    ) -> Result<Option<T>, BenchError> {
        match outcome {
            Ok(result) => Ok(Some(result)),
            Err(BenchError::Interrupted) => Err(BenchError::Interrupted),
            Err(error) => {
                // Rather why the program ended than that the load met nobody.
                self.tunnel.check()?;
                self.measured.errors.insert(key.to_owned(), error.in_full());
                Ok(None)
            }
        }
    }
}

/// The sum of all flows in Gbit/s.
fn gigabits(received: &[tcp::Received]) -> f64 {
    received.iter().map(tcp::Received::bits_per_second).sum::<f64>() / 1e9
}

/// The sum of all flows in Gbit/s, by time.
fn series(received: &[tcp::Received]) -> Vec<f64> {
    let length = received.iter().map(|one| one.buckets.len()).max().unwrap_or(0);
    let sum = |at: usize| received.iter().filter_map(|one| one.buckets.get(at)).sum::<u64>();
    (0..length).map(|at| sum(at) as f64 * 8.0 / BUCKET.as_secs_f64() / 1e9).collect()
}

/// What a throughput over time has for each value.
pub const BUCKET: Duration = Duration::from_millis(100);

/// The share of datagrams that "without loss" puts up with. What measurements of throughput call
/// the partial drop rate has the same; none at all would find the first hiccup of the machine.
pub const LOSS: f64 = 0.005;

/// Headers of IPv4 and UDP.
const IPV4_UDP_BYTES: usize = 28;
const PING_INTERVAL: Duration = Duration::from_millis(2);
const ECHO_WARM_UP: Duration = Duration::from_millis(100);
/// For whoever is told to be done by now.
const PATIENCE: Duration = Duration::from_secs(15);
const HANDSHAKES_LIMIT: Duration = Duration::from_secs(60);
