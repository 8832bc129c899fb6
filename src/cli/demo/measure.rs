//! What the demo measures: handshake, round trip, throughput.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;

use crate::bench::load::tcp::ignore_closed;
use crate::cli::message::{self, Failure};
use crate::control::interrupt::Interrupt;
use crate::control::uapi::client::UapiClient;
use crate::sys::clock;
use crate::sys::echo::EchoSocket;
use crate::time::Wall;

/// Waits for the first handshake of `interface`, and says how long after `started` it completed.
///
/// # Errors
/// None came within [`HANDSHAKE_LIMIT`], or somebody interrupted.
pub fn handshake(
    interface: &str,
    started: Wall,
    interrupt: &Interrupt,
) -> Result<Duration, Failure> {
    let deadline = clock::now().mono + HANDSHAKE_LIMIT;
    let mut device = UapiClient::connect(interface)?;
    while clock::now().mono < deadline {
        if let Some(done) = device.get()?.peers.iter().find_map(|peer| peer.last_handshake) {
            return Ok(since_epoch(done).saturating_sub(since_epoch(started)));
        }
        if interrupt.wait(POLL) {
            return Err(interrupted());
        }
    }
    Err(Failure::run(anyhow!("no handshake within {} seconds", HANDSHAKE_LIMIT.as_secs())))
}

/// Sends [`PINGS`] echo requests, printing each reply, and a line on all.
///
/// # Errors
/// No reply at all, a socket that fails, or somebody interrupted.
pub fn ping(echo: &EchoSocket, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut times = Vec::new();
    for sequence in 1..=PINGS {
        match echo.round_trip(sequence, REPLY_LIMIT)? {
            Some(time) => {
                message::result(&format!("ping          {}\n", millis(time)))?;
                times.push(time);
            }
            None => message::result("ping          no reply\n")?,
        }
        if interrupt.wait(PING_INTERVAL) {
            return Err(interrupted());
        }
    }
    let count = u32::try_from(times.len())?;
    let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) else {
        return Err(Failure::run(anyhow!("no ping was answered")));
    };
    let mean = times.iter().sum::<Duration>() / count;
    message::result(&format!(
        "round trip    least {}, mean {}, most {}, {count} of {PINGS} answered\n",
        millis(*least),
        millis(mean),
        millis(*most),
    ))?;
    Ok(())
}

/// Sends as fast as TCP goes for [`SECONDS`] s, printing each second and the whole.
///
/// # Errors
/// The connection fails, or somebody interrupted.
pub fn throughput(
    direction: &str,
    from: &TcpStream,
    to: &TcpStream,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .name("sender".to_owned())
            .spawn_scoped(scope, || send_until_refused(from))?;
        let outcome = receive(direction, to, interrupt);
        // Wakes the sender, who may be waiting for room.
        let closed = from.shutdown(Shutdown::Both);
        let sent = sender.join().map_err(|_| Failure::run(anyhow!("the sender panicked")))?;
        outcome?;
        closed.or_else(ignore_closed)?;
        sent.or_else(ignore_closed)?;
        Ok(())
    })
}

fn send_until_refused(mut to: &TcpStream) -> io::Result<()> {
    let chunk = vec![0; CHUNK_BYTES];
    loop {
        to.write_all(&chunk)?;
    }
}

fn receive(direction: &str, mut from: &TcpStream, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut chunk = vec![0; CHUNK_BYTES];
    from.set_read_timeout(Some(REPLY_LIMIT))?;
    let started = clock::now().mono;
    let (mut total, mut before, mut second) = (0, 0, 1);
    while second <= SECONDS {
        if interrupt.is_raised() {
            return Err(interrupted());
        }
        match from.read(&mut chunk) {
            Ok(length) => total += length,
            // The loop sees whether the signal was for us.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        let passed = clock::now().mono.since(started);
        if passed >= Duration::from_secs(second) {
            let rate = rate(total - before, passed - Duration::from_secs(second - 1));
            message::result(&format!("{direction}  {rate}\n"))?;
            before = total;
            second += 1;
        }
    }
    let passed = clock::now().mono.since(started);
    message::result(&format!("{direction}  {} on average\n", rate(total, passed)))?;
    Ok(())
}

/// The failure of whoever noticed Ctrl-C.
pub fn interrupted() -> Failure {
    Failure::run(anyhow!("interrupted"))
}

/// As ping(8) writes it.
pub fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

fn rate(bytes: usize, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bits = bytes as f64 * 8.0 / time.as_secs_f64();
    if bits >= 1e9 {
        format!("{:.2} Gbit/s", bits / 1e9)
    } else {
        format!("{:.1} Mbit/s", bits / 1e6)
    }
}

fn since_epoch(wall: Wall) -> Duration {
    Duration::new(wall.secs, wall.nanos)
}

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(2);
const PINGS: u16 = 5;
const PING_INTERVAL: Duration = Duration::from_millis(200);
const REPLY_LIMIT: Duration = Duration::from_secs(5);
const SECONDS: u64 = 3;
const CHUNK_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_bits_of_a_thousand() {
        assert_eq!(rate(125_000_000, Duration::from_secs(1)), "1.00 Gbit/s");
        assert_eq!(rate(125_000, Duration::from_millis(500)), "2.0 Mbit/s");
        assert_eq!(millis(Duration::from_micros(1234)), "1.234 ms");
    }
}
