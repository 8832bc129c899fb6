//! What shards work with: queues of the interface, sockets, and what the processor has for many
//! packets at once. Without sockets there is no shard; of the others what cannot be had is told.

use std::num::NonZeroU32;
use std::sync::Arc;

use tracing::{info, warn};

use crate::control::settings::Settings;
use crate::crypto::batch::Kernel;
use crate::packet::queues::MAX_QUEUES;
use crate::sys::SysError;
use crate::sys::tun::Tun;
use crate::sys::udp::UdpSockets;

/// Most queues of an interface. [LNX drivers/net/tun.c:MAX_TAP_QUEUES]
const INTERFACE_QUEUES: usize = 256;

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

/// Opens queues beside that of `tun` for so many `shards`, or as many as the interface can have; those
/// of each shard.
///
/// A shard has several where each flow stays in its own: flows need not wait for one another then.
pub fn open_queues(tun: Tun, shards: NonZeroU32) -> Vec<Vec<Tun>> {
    let shards = shards.get() as usize;
    // UDP comes in fragments, too. One shard keeps all of it between two hosts in order, as ever; several
    // share it out.
    let each = match tun.steer_by_flow(shards > 1) {
        Ok(()) if tun.may_have_more() => (INTERFACE_QUEUES / shards).clamp(1, MAX_QUEUES),
        Ok(()) => 1,
        Err(error) => {
            info!(
                %error,
                "flows share one queue, or one a shard: they go by the one that their answers come by"
            );
            1
        }
    };
    let mut groups = vec![vec![tun]];
    for number in 1..shards * each {
        match groups[0][0].open_queue() {
            Ok(queue) if number < shards => groups.push(vec![queue]),
            Ok(queue) => groups[number % shards].push(queue),
            Err(error) => {
                let opened = number;
                if opened < shards {
                    warn!(%error, shards, opened, "the interface has no more queues: fewer shards");
                } else {
                    info!(%error, opened, "the interface has no more queues");
                }
                break;
            }
        }
    }
    groups
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
