//! `hybridwg bench link`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::anyhow;
use indicatif::ProgressBar;

use super::args::Link;
use super::{output, progress, tunnel};
use crate::bench::error::BenchError;
use crate::bench::link::protocol::{Direction, Request, VERSION};
use crate::bench::link::report::{Conditions, LinkReport, SCHEMA};
use crate::bench::link::round_trips::{self, Pace, RoundTrips};
use crate::bench::link::serve::{Served, Server};
use crate::bench::link::target::{self, Target};
use crate::bench::link::throughput::{self, Throughput};
use crate::bench::link::{Watcher, longest};
use crate::bench::report;
use crate::cli::hide_memory;
use crate::cli::message::{self, Failure};
use crate::control::interrupt::Interrupt;
use crate::control::netlink::{self, Netlink};
use crate::control::uapi::client::UapiClient;
use crate::sys::clock;
use crate::sys::echo::EchoSocket;

/// Measures the tunnel, or serves the other end that does.
///
/// # Errors
/// No such interface or peer, nobody who answers, or somebody interrupted.
pub fn run(arguments: &Link) -> Result<(), Failure> {
    // The device tells its keys.
    hide_memory()?;
    let interrupt = Interrupt::on_signals()?;
    if arguments.serve { serve(arguments, &interrupt) } else { measure(arguments, &interrupt) }
}

fn serve(arguments: &Link, interrupt: &Interrupt) -> Result<(), Failure> {
    let name = &arguments.interface;
    let mut netlink = Netlink::new();
    let link = interface(&mut netlink, name)?;
    let addresses = netlink.addresses(&link)?.into_iter().map(|network| network.addr());
    // Those of the link alone are no addresses of a tunnel.
    let addresses: Vec<IpAddr> = addresses.filter(|address| !is_link_local(*address)).collect();
    if addresses.is_empty() {
        return Err(Failure::run(anyhow!("{name} has no address at which to serve")));
    }
    let port = arguments.port;
    let mut server = Server::bind(name, &addresses, port, arguments.rate.mbit())?;
    let places: Vec<_> =
        addresses.iter().map(|address| SocketAddr::new(*address, port).to_string()).collect();
    let minutes = arguments.minutes;
    let rate = arguments.rate.mbit().map_or_else(
        || "as fast as it goes".to_owned(),
        |mbit| format!("{mbit} Mbit/s at most (--rate)"),
    );
    message::note(&format!(
        "serving the peers of {name}, and nobody else, at {} for {minutes} minutes, {rate}; Ctrl-C \
         ends it",
        places.join(", ")
    ));
    let until = clock::now().mono + Duration::from_secs(u64::from(minutes) * 60);
    Ok(server.run(until, interrupt, &mut |served| message::note(&told(served)))?)
}

fn told(served: &Served) -> String {
    let what = served.request.map_or_else(String::new, |request| {
        let way = match request.direction {
            Direction::There => "sent by him",
            Direction::Back => "sent to him",
        };
        format!(", {} s {way} in {} streams", request.seconds, request.streams)
    });
    let outcome = served.outcome.as_ref().map_or_else(|error| format!(": {error}"), |()| "".into());
    format!("{}{what}{outcome}", served.whom)
}

fn measure(arguments: &Link, interrupt: &Interrupt) -> Result<(), Failure> {
    if let Some(path) = &arguments.json {
        output::check_writable(path)?;
    }
    let name = &arguments.interface;
    let device =
        UapiClient::connect(name).and_then(|mut client| client.get()).map_err(|error| {
            Failure::run(error)
                .with_hint("`hybridwg show interfaces` lists those that can be measured")
        })?;
    let target = target::choose(&device, arguments.peer.as_deref())
        .map_err(|fault| Failure::usage(anyhow!("{name}: {fault}")))?;
    drop(device);
    let mtu = interface(&mut Netlink::new(), name)?.mtu;
    let echo = EchoSocket::open(target.address)?;
    message::note(&plan(arguments, &target, &echo));
    let mut report = describe(arguments, &target, mtu, &echo);
    let mut watcher = Bar::new();
    report.idle = idle(arguments, &echo, interrupt, &mut watcher)?;
    if let Some(micros) = report.idle.times.micros(0.9) {
        let round_trip = Duration::from_secs_f64(micros / 1e6);
        watcher.begins("longest packet", Duration::ZERO);
        let mut tell = |bytes| watcher.goes_on(Duration::ZERO, &format!("{bytes} bytes"));
        report.longest_packet = longest::measure(&echo, mtu, round_trip, interrupt, &mut tell)?;
    }
    if arguments.throughput {
        let mut way =
            |direction| one_way(arguments, &target, direction, &echo, interrupt, &mut watcher);
        report.there = Some(way(Direction::There)?);
        report.back = Some(way(Direction::Back)?);
    }
    drop(watcher);
    message::result(&report.render())?;
    if let Some(path) = &arguments.json {
        output::write_json(path, &report)?;
    }
    if report.idle.times.count() == 0 && report.there.is_none() {
        return Err(silent(&report));
    }
    Ok(())
}

/// What is about to be sent: whoever starts it on a busy tunnel shall know.
fn plan(arguments: &Link, target: &Target, echo: &EchoSocket) -> String {
    let bits = echo.usual_packet_bytes() as f64 * 8.0 * 1e3 / f64::from(arguments.interval);
    let mut text = format!(
        "to {}: {} s of echo requests, {:.1} kbit/s; then some of up to the MTU",
        target.address,
        arguments.seconds,
        bits / 1e3
    );
    if arguments.throughput {
        let rate = arguments.rate.mbit().map_or_else(
            || "as fast as it goes (--rate bounds it)".to_owned(),
            |mbit| format!("{mbit} Mbit/s at most (--rate full for as fast as it goes)"),
        );
        text += &format!("; then {} s of streams each way, {rate}", arguments.stream_seconds);
    }
    text
}

fn describe(arguments: &Link, target: &Target, mtu: u32, echo: &EchoSocket) -> LinkReport {
    let now = clock::now().wall.secs;
    LinkReport {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: report::date(now),
        command: tunnel::command(),
        interface: arguments.interface.clone(),
        peer: target.peer.to_base64(),
        address: target.address.to_string(),
        handshake_age_seconds: target.last_handshake.map(|at| now.saturating_sub(at.secs)),
        conditions: Conditions {
            packet_bytes: echo.usual_packet_bytes(),
            interval_ms: arguments.interval.into(),
            seconds: arguments.seconds.into(),
            mtu,
            streams: arguments.streams,
            stream_seconds: arguments.stream_seconds,
            rate_mbit: arguments.rate.mbit(),
        },
        idle: RoundTrips::default(),
        longest_packet: None,
        there: None,
        back: None,
    }
}

fn idle(
    arguments: &Link,
    echo: &EchoSocket,
    interrupt: &Interrupt,
    watcher: &mut Bar,
) -> Result<RoundTrips, BenchError> {
    let pace = Pace {
        interval: Duration::from_millis(arguments.interval.into()),
        duration: Duration::from_secs(arguments.seconds.into()),
    };
    watcher.begins("round trips", pace.duration);
    round_trips::measure(echo, pace, interrupt, &mut |passed, so_far| {
        let median = so_far.times.micros(0.5).map_or(0.0, |micros| micros / 1e3);
        let news = format!("{median:.1} ms, {:.1} % lost", so_far.lost_percent());
        watcher.goes_on(passed, &news);
    })
}

fn one_way(
    arguments: &Link,
    target: &Target,
    direction: Direction,
    echo: &EchoSocket,
    interrupt: &Interrupt,
    watcher: &mut Bar,
) -> Result<Throughput, BenchError> {
    let request = Request {
        hybridwg_link: VERSION,
        direction,
        streams: arguments.streams,
        seconds: arguments.stream_seconds,
        mbit: arguments.rate.mbit(),
    };
    let to = SocketAddr::new(target.address, arguments.port);
    let interval = Duration::from_millis(arguments.interval.into());
    throughput::measure(to, &request, echo, interval, interrupt, watcher)
}

/// No answer at all; whether there was a handshake tells a tunnel that is down from a host that does
/// not answer.
fn silent(report: &LinkReport) -> Failure {
    let failure = Failure::run(anyhow!("nothing came back from {}", report.address));
    match report.handshake_age_seconds {
        Some(age) if age < ALIVE_SECONDS => failure.with_hint(format!(
            "the tunnel itself works, its last handshake was {age} s before: the other end may not \
             have this address, or its firewall drops echo requests"
        )),
        Some(_) | None => failure
            .with_hint("there was no handshake of late either: `hybridwg show` has the endpoint"),
    }
}

fn interface(netlink: &mut Netlink, name: &str) -> Result<netlink::Link, Failure> {
    let link = netlink.link(name)?;
    link.ok_or_else(|| Failure::usage(anyhow!("there is no interface `{name}`")))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A session is used for so long. [WG §6.1]
const ALIVE_SECONDS: u64 = 180;

/// A bar that fills with time, for a person who waits.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(progress::bar("{bar:24} {prefix}  {msg}"))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Watcher for Bar {
    fn begins(&mut self, what: &str, takes: Duration) {
        self.0.set_length(u64::try_from(takes.as_millis()).unwrap_or(u64::MAX));
        self.0.set_position(0);
        self.0.set_prefix(what.to_owned());
        self.0.set_message(String::new());
    }

    fn goes_on(&mut self, passed: Duration, news: &str) {
        self.0.set_position(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        self.0.set_message(news.to_owned());
    }
}
