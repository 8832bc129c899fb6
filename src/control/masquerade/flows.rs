//! The daemon carries on what peers send, flow by flow, or leads it to services of this host: the step
//! that tells it so.

use super::{Masquerading, tell_exposed};
use crate::control::command::{Flows, SetRequest};
use crate::control::lifecycle::{LifecycleError, Step};
use crate::control::netlink::Netlink;
use crate::control::uapi::client::UapiClient;

/// Has the daemon of an interface carry on these flows, or none.
#[derive(Debug)]
pub(super) struct SetFlows {
    interface: String,
    flows: Option<Flows>,
    former: Option<Flows>,
    reason: &'static str,
}

impl SetFlows {
    pub fn new(masquerading: &Masquerading) -> Self {
        Self {
            interface: masquerading.interface.clone(),
            flows: masquerading.flows.clone(),
            former: masquerading.former.flows.clone(),
            reason: masquerading.reason,
        }
    }

    fn set(&self, flows: Option<Flows>) -> Result<(), LifecycleError> {
        let request = SetRequest { flows: Some(flows), ..SetRequest::default() };
        Ok(UapiClient::connect(&self.interface)?.set(&request)?)
    }

    fn tell(&self, from: Option<&Flows>, to: Option<&Flows>, reason: &str) -> String {
        let interface = &self.interface;
        let mut lines = Vec::new();
        if let Some(Flows { sources, .. }) = to.filter(|flows| flows.carries) {
            let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            let sources =
                if sources.is_empty() { "all peers".to_owned() } else { sources.join(", ") };
            lines.push(format!("# {interface}: masquerades {sources} flow by flow{reason}"));
        } else if from.is_some_and(|flows| flows.carries) {
            lines.push(format!("# {interface}: masquerades nothing flow by flow"));
        }
        let exposes = |flows: Option<&Flows>| flows.is_some_and(|flows| !flows.expose.is_empty());
        if exposes(from) && !exposes(to) {
            lines.push(format!("# {interface}: exposes nothing"));
        }
        lines.extend(to.into_iter().flat_map(|flows| tell_exposed(interface, flows)));
        lines.join("\n")
    }
}

impl Step for SetFlows {
    fn describe(&self) -> String {
        self.tell(self.former.as_ref(), self.flows.as_ref(), self.reason)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.flows.clone())
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.tell(self.flows.as_ref(), self.former.as_ref(), ""))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.former.clone())
    }
}
