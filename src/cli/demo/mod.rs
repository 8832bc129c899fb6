//! `hybridwg demo`: a hub and a client on this machine, from the files in `configs/`, in an
//! [`enclosure`].

mod measure;
mod reference;
mod scene;

use crate::cli::args::Demo;
use crate::cli::enclosure;
use crate::cli::message::Failure;

/// Runs the demo.
///
/// # Errors
/// A right that is missing, with how to give it; a configuration that cannot be used; whatever
/// stood in the way of a tunnel.
pub fn run(arguments: &Demo) -> Result<(), Failure> {
    enclosure::run("the demo", |interrupt| {
        scene::play(&reference::Texts::load(arguments.configs.as_deref())?, interrupt)
    })
}
