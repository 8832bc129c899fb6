//! Names of endpoints to addresses, with the patience of wg(8), and addresses to text.
//!
//! The resolver's first answer is taken. A name that certainly does not exist fails at once;
//! everything else is tried again, after 1 s, 1.2 s, 1.44 s, … at most 20 s, as often as
//! `WG_ENDPOINT_RESOLUTION_RETRIES` says.

use std::env;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::Console;
use crate::sys::interface;

/// How often to try again after the first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    Times(u32),
    Infinity,
}

impl Retries {
    const VARIABLE: &'static str = "WG_ENDPOINT_RESOLUTION_RETRIES";
    const DEFAULT: Self = Self::Times(15);

    /// What the environment asks for, else 15.
    ///
    /// # Errors
    /// [`ResolveError::BadRetries`] if it is neither a number nor `infinity`.
    pub fn from_environment() -> Result<Self, ResolveError> {
        match env::var(Self::VARIABLE) {
            Err(_) => Ok(Self::DEFAULT),
            Ok(text) => Self::parse(&text),
        }
    }

    fn parse(text: &str) -> Result<Self, ResolveError> {
        if text == "infinity" {
            return Ok(Self::Infinity);
        }
        match text.parse() {
            Ok(times) => Ok(Self::Times(times)),
            Err(_) => Err(ResolveError::BadRetries { text: text.to_owned() }),
        }
    }
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("cannot resolve endpoint `{host}:{port}`: {reason}")]
    Failed { host: String, port: u16, reason: String },
    #[error("WG_ENDPOINT_RESOLUTION_RETRIES is `{text}`; a number or `infinity` is accepted")]
    BadRetries { text: String },
    #[error("interrupted while resolving `{host}`")]
    Interrupted { host: String },
}

/// How `up` finds the address of an endpoint that is a name.
pub type Resolve = Box<dyn FnMut(&str, u16) -> Result<SocketAddr, ResolveError> + Send>;

/// The address of `host` (a name, or an address in text) with `port`.
///
/// # Errors
/// As the variants of [`ResolveError`] say.
pub fn resolve(
    host: &str,
    port: u16,
    retries: Retries,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<SocketAddr, ResolveError> {
    resolve_with(host, port, retries, console, interrupt, |host, port| {
        // The resolver is deaf to everything but its own time limits.
        let host = host.to_owned();
        let addresses = interrupt.cut_short(move || (host, port).to_socket_addrs())?;
        let cut_short = || io::Error::from(io::ErrorKind::Interrupted);
        addresses.ok_or_else(cut_short)??.next().ok_or_else(|| io::Error::other("no address"))
    })
}

fn resolve_with(
    host: &str,
    port: u16,
    retries: Retries,
    console: &mut dyn Console,
    interrupt: &Interrupt,
    mut ask: impl FnMut(&str, u16) -> io::Result<SocketAddr>,
) -> Result<SocketAddr, ResolveError> {
    let mut pause = FIRST_PAUSE;
    let mut tried_again = 0;
    loop {
        let reason = match ask(host, port) {
            Ok(address) => return Ok(address),
            Err(_) if interrupt.is_raised() => {
                return Err(ResolveError::Interrupted { host: host.to_owned() });
            }
            Err(error) => words(&error),
        };
        let spent = match retries {
            Retries::Infinity => false,
            Retries::Times(times) => tried_again >= times,
        };
        if spent || is_final(&reason) {
            return Err(ResolveError::Failed { host: host.to_owned(), port, reason });
        }
        console.warn(&format!(
            "{reason}: `{host}:{port}'. Trying again in {:.2} seconds...",
            pause.as_secs_f64()
        ));
        if interrupt.wait(pause) {
            return Err(ResolveError::Interrupted { host: host.to_owned() });
        }
        tried_again += 1;
        pause = (pause * 6 / 5).min(LONGEST_PAUSE);
    }
}

/// The resolver's own words, without what the standard library puts before them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

/// An endpoint with the name of its interface in place of the number, as `wg` prints it.
pub fn endpoint_text(endpoint: SocketAddr) -> String {
    if let SocketAddr::V6(v6) = endpoint
        && v6.scope_id() != 0
        && let Some(name) = interface::name_of(v6.scope_id())
    {
        return format!("[{}%{name}]:{}", v6.ip(), v6.port());
    }
    endpoint.to_string()
}

/// Whether asking again is pointless: EAI_NONAME, EAI_FAIL and EAI_NODATA of getaddrinfo(3). The
/// standard library hands on only their text, here as glibc and musl have it.
fn is_final(reason: &str) -> bool {
    [
        "Name or service not known",
        "Non-recoverable failure in name resolution",
        "No address associated with hostname",
        "Name does not resolve",
        "Non-recoverable error",
        "Name has no usable address",
    ]
    .contains(&reason)
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Warnings(Vec<String>, Option<Interrupt>);

    impl Console for Warnings {
        fn command(&mut self, _: &str) {}

        fn warn(&mut self, text: &str) {
            self.0.push(text.to_owned());
            self.1.iter().for_each(Interrupt::raise);
        }
    }

    #[test]
    fn an_address_in_text_needs_no_resolver() {
        let mut console = Warnings::default();
        let interrupt = Interrupt::never();
        for (host, expected) in
            [("192.0.2.7", "192.0.2.7:51820"), ("2001:db8::7", "[2001:db8::7]:51820")]
        {
            let found = resolve(host, 51820, Retries::Times(0), &mut console, &interrupt).unwrap();
            assert_eq!(found, expected.parse().unwrap());
        }
        assert!(console.0.is_empty());
    }

    #[test]
    fn a_name_that_does_not_exist_fails_at_once_and_names_the_endpoint() {
        let mut asked = 0;
        let mut console = Warnings::default();
        let outcome = resolve_with(
            "no.invalid",
            1,
            Retries::Infinity,
            &mut console,
            &Interrupt::never(),
            |_, _| {
                asked += 1;
                Err(io::Error::other(
                    "failed to lookup address information: Name or service not known",
                ))
            },
        );
        let text = outcome.unwrap_err().to_string();
        assert_eq!(text, "cannot resolve endpoint `no.invalid:1`: Name or service not known");
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_temporary_failure_is_tried_again_after_a_second_until_somebody_interrupts() {
        let interrupt = Interrupt::never();
        let mut console = Warnings(Vec::new(), Some(interrupt.clone()));
        let outcome =
            resolve_with("hub", 9, Retries::Infinity, &mut console, &interrupt, |_, _| {
                Err(io::Error::other("Temporary failure in name resolution"))
            });
        assert!(matches!(outcome, Err(ResolveError::Interrupted { .. })));
        assert_eq!(
            console.0,
            ["Temporary failure in name resolution: `hub:9'. Trying again in 1.00 seconds..."]
        );
    }

    #[test]
    fn no_retries_means_one_attempt() {
        let mut asked = 0;
        let outcome = resolve_with(
            "hub",
            9,
            Retries::Times(0),
            &mut Warnings::default(),
            &Interrupt::never(),
            |_, _| {
                asked += 1;
                Err(io::Error::other("Temporary failure in name resolution"))
            },
        );
        assert!(matches!(outcome, Err(ResolveError::Failed { .. })));
        assert_eq!(asked, 1);
    }

    #[test]
    fn the_environment_names_a_number_or_infinity() {
        assert_eq!(Retries::parse("3").unwrap(), Retries::Times(3));
        assert_eq!(Retries::parse("infinity").unwrap(), Retries::Infinity);
        assert!(Retries::parse("-1").is_err());
    }
}
