//! The daemon carries on what peers send, flow by flow: the step that tells it so.

use super::Masquerading;
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

    fn tell(&self, flows: Option<&Flows>, reason: &str) -> String {
        let interface = &self.interface;
        let Some(flows) = flows else {
            return format!("# {interface}: masquerades nothing flow by flow");
        };
        let sources: Vec<String> = flows.sources.iter().map(ToString::to_string).collect();
        let sources = if sources.is_empty() { "all peers".to_owned() } else { sources.join(", ") };
        format!("# {interface}: masquerades {sources} flow by flow{reason}")
    }
}

impl Step for SetFlows {
    fn describe(&self) -> String {
        self.tell(self.flows.as_ref(), self.reason)
    }

    fn apply(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.flows.clone())
    }

    fn describe_undo(&self) -> Option<String> {
        Some(self.tell(self.former.as_ref(), ""))
    }

    fn goes_with_interface(&self) -> bool {
        true
    }

    fn undo(&mut self, _: &mut Netlink) -> Result<(), LifecycleError> {
        self.set(self.former.clone())
    }
}
