//! Names of endpoints to addresses, and addresses to text.
//!
//! `up` asks once, so that a tunnel works when it returns if the name server does. A name without an
//! address stops nothing: the daemon goes on asking, and asks again when a peer may have moved
//! (`proto::places`).

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::control::interrupt::Interrupt;
use crate::control::lifecycle::Console;
use crate::sys::interface;

/// Why nobody knows whether a name has an address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("interrupted while resolving `{host}`")]
    Interrupted { host: String },
}

/// How `up` finds the address of an endpoint that is a name; `None` if it has none yet.
pub type Resolve = Box<dyn FnMut(&str, u16) -> Result<Option<SocketAddr>, ResolveError> + Send>;

/// The first address of `host` (a name, or an address in text) with `port`. If there is none,
/// `console` tells why.
///
/// # Errors
/// [`ResolveError::Interrupted`]
pub fn resolve(
    host: &str,
    port: u16,
    console: &mut dyn Console,
    interrupt: &Interrupt,
) -> Result<Option<SocketAddr>, ResolveError> {
    // The resolver is deaf to everything but its own time limits.
    let asked = host.to_owned();
    let reason = match interrupt.cut_short(move || addresses(&asked, port)) {
        Ok(None) => return Err(ResolveError::Interrupted { host: host.to_owned() }),
        Ok(Some(Ok(addresses))) => return Ok(addresses.first().copied()),
        Ok(Some(Err(reason))) => reason,
        Err(error) => error.to_string(),
    };
    console.warn(&format!("{reason}: `{host}:{port}'. The daemon goes on trying"));
    Ok(None)
}

/// All addresses of `host` with `port`, best first and one at least. Waits for the resolver.
///
/// # Errors
/// The resolver's own words.
pub fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match (host, port).to_socket_addrs().map(Vec::from_iter) {
        Ok(addresses) if addresses.is_empty() => Err("no address".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(words(&error)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Warnings(Vec<String>);

    impl Console for Warnings {
        fn command(&mut self, _: &str) {}

        fn warn(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn an_address_in_text_needs_no_resolver() {
        let mut console = Warnings::default();
        let interrupt = Interrupt::never();
        for (host, expected) in
            [("192.0.2.7", "192.0.2.7:51820"), ("2001:db8::7", "[2001:db8::7]:51820")]
        {
            let found = resolve(host, 51820, &mut console, &interrupt).unwrap();
            assert_eq!(found, Some(expected.parse().unwrap()));
        }
        assert!(console.0.is_empty());
    }

    #[test]
    fn a_name_without_an_address_stops_nothing_and_is_told_with_the_resolvers_words() {
        let mut console = Warnings::default();
        // Not a name that any resolver is asked for.
        let found = resolve("no name", 9, &mut console, &Interrupt::never()).unwrap();
        assert_eq!(found, None);
        assert_eq!(console.0.len(), 1);
        assert!(
            console.0[0].ends_with(": `no name:9'. The daemon goes on trying"),
            "{console:?}",
            console = console.0
        );
    }
}
