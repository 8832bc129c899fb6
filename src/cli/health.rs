//! `hybridwg health [NAME]`: a probe for images that have no shell and no `curl`.

use anyhow::anyhow;

use crate::cli::args;
use crate::cli::message::{self, Failure};
use crate::control::health::Question;
use crate::control::uapi::client::{self, UapiClient};

/// Prints how the tunnel is, in one line.
///
/// # Errors
/// [`Failure::Told`] if it is not well, or nobody answers; [`Failure::Usage`] if it is not clear which
/// tunnel is meant.
pub fn run(arguments: &args::Health) -> Result<(), Failure> {
    let question = match arguments {
        args::Health { live: true, .. } => Question::Live,
        args::Health { startup: true, .. } => Question::Started,
        args::Health { .. } => Question::Ready,
    };
    let interface = match &arguments.interface {
        Some(interface) => interface.clone(),
        None => only_interface()?,
    };
    let name = question.name();
    let reasons = UapiClient::connect(&interface)
        .and_then(|mut client| client.health(question))
        .unwrap_or_else(|error| vec![format!("{:#}", anyhow!(error))]);
    if reasons.is_empty() {
        return Ok(message::result(&format!("{interface} is {name}\n"))?);
    }
    message::result(&format!("{interface} is not {name}: {}\n", reasons.join("; ")))?;
    Err(Failure::Told)
}

/// In a container there is one.
fn only_interface() -> Result<String, Failure> {
    let mut interfaces = client::likely_interfaces()?;
    match (interfaces.pop(), interfaces.as_slice()) {
        (Some(interface), []) => Ok(interface),
        (None, _) => Err(Failure::run(anyhow!("no tunnel is up here"))),
        (Some(last), others) => {
            let names = [others, &[last]].concat().join(", ");
            Err(Failure::usage(anyhow!("there are several tunnels: {names}"))
                .with_hint("`hybridwg health NAME` asks one of them"))
        }
    }
}
