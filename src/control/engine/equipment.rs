//! What shards work with: queues of the interface, sockets, and what the processor has for many
//! packets at once. Without sockets there is no shard; of the others what cannot be had is told.

use std::num::NonZeroU32;
use std::sync::Arc;

use tracing::{info, warn};

use crate::control::settings::Settings;
use crate::crypto::batch::Kernel;
use crate::sys::SysError;
use crate::sys::tun::Tun;
use crate::sys::udp::UdpSockets;

/// What a device has on this host.
#[derive(Debug)]
pub enum Inside {
    Interface(Tun),
    /// No interface; the name that one would have.
    Nothing(String),
}

impl Inside {
    pub fn name(&self) -> &str {
        match self {
            Self::Interface(tun) => tun.name(),
            Self::Nothing(name) => name,
        }
    }

    pub const fn tun(&self) -> Option<&Tun> {
        match self {
            Self::Interface(tun) => Some(tun),
            Self::Nothing(_) => None,
        }
    }
}

/// Opens queues beside that of `tun` until there are `wanted`, or as many as the interface can have.
pub fn open_queues(tun: Tun, wanted: NonZeroU32) -> Vec<Tun> {
    let mut queues = vec![tun];
    for _ in 1..wanted.get() {
        match queues[0].open_queue() {
            Ok(queue) => queues.push(queue),
            Err(error) => {
                let shards = queues.len();
                warn!(%error, wanted, shards, "the interface has no more queues: fewer shards");
                break;
            }
        }
    }
    if queues.len() > 1
        && let Err(error) = queues[0].steer_by_flow()
    {
        info!(%error, "flows go by the shard that their answers come by, not by shards of their own");
    }
    queues
}

/// Sockets for so many `shards`, one at least.
pub fn bind(
    port: u16,
    mark: u32,
    settings: Settings,
    shards: usize,
) -> Result<Vec<Arc<UdpSockets>>, SysError> {
    let group = UdpSockets::bind_group(port, mark, settings.offloads.udp, shards)?;
    Ok(group.into_iter().map(Arc::new).collect())
}

/// What seals and opens several packets at once on this processor, if anything does.
pub fn find_kernel() -> Option<Kernel> {
    Kernel::find().unwrap_or_else(|error| {
        warn!("a self-test found that {error}: they are sealed and opened one by one");
        None
    })
}
