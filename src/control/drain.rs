//! The end of a tunnel that somebody still uses: peers begin no new flows, and those that there are have
//! some time.

use std::time::Duration;

use crate::control::command::SetRequest;
use crate::control::interrupt::Interrupt;
use crate::control::settings::FlowCount;
use crate::control::uapi::client::UapiClient;

/// How often is looked whether there are flows left.
const POLL: Duration = Duration::from_millis(50);

/// Has the daemon of `interface` begin no new flows of peers, and waits until there are none, for
/// `grace` at most or until somebody interrupts again.
pub fn drain(interface: &str, grace: Duration, again: &Interrupt) {
    let request = SetRequest { drain: true, ..SetRequest::default() };
    let Ok(mut client) = UapiClient::connect(interface) else { return };
    if client.set(&request).is_err() {
        return;
    }
    let looks = grace.as_millis() / POLL.as_millis();
    for _ in 0..looks {
        let has_any = |flows: FlowCount| flows.now > 0;
        let is_left = client.status().is_ok_and(|status| status.flows.is_some_and(has_any));
        if !is_left || again.wait(POLL) {
            return;
        }
    }
}
