//! The end of a tunnel that somebody still uses: nothing new begins, and the connections that there are
//! have some time. Mappings of datagrams and pings are not waited for: they have no end but their timeout.

use std::time::Duration;

use crate::control::command::SetRequest;
use crate::control::interrupt::Interrupt;
use crate::control::settings::FlowCount;
use crate::control::uapi::client::UapiClient;

/// How often is looked whether there are connections left.
const POLL: Duration = Duration::from_millis(50);

/// Has the daemon of `interface` begin nothing new, and waits until there are no connections, for
/// `grace` at most or until somebody interrupts again.
pub fn drain(interface: &str, grace: Duration, again: &Interrupt) {
    let Some(mut client) = tell(interface, true) else { return };
    let looks = grace.as_millis() / POLL.as_millis();
    for _ in 0..looks {
        let has_any = |flows: FlowCount| flows.connections > 0;
        let is_left = client.status().is_ok_and(|status| status.flows.is_some_and(has_any));
        if !is_left || again.wait(POLL) {
            return;
        }
    }
}

/// Takes [`drain`] back where the end did not come: what is up is to be of use.
pub fn resume(interface: &str) {
    tell(interface, false);
}

/// `None` if there is nobody who would hear it, or who could be waited for.
fn tell(interface: &str, is_draining: bool) -> Option<UapiClient> {
    let mut client = UapiClient::connect(interface).ok()?;
    client.set(&SetRequest { drain: Some(is_draining), ..SetRequest::default() }).ok()?;
    Some(client)
}
