//! The two files of the reference deployment, filled in for one run.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use zeroize::Zeroizing;

use crate::cli::message::{self, Failure};
use crate::control::config::{self, Config, Endpoint};
use crate::crypto::dh;
use crate::crypto::entropy::Entropy;
use crate::crypto::key::PrivateKey;

const HUB: &str = include_str!("../../../configs/hub.conf");
const CLIENT: &str = include_str!("../../../configs/client.conf");

/// Both files as text, `HUB_PRIVATE_KEY` and its like not yet filled in.
#[derive(Debug)]
pub struct Texts {
    hub: String,
    client: String,
}

/// Both configurations, ready to be brought up next to each other.
#[derive(Debug)]
pub struct Pair {
    pub hub: Config,
    pub client: Config,
}

impl Texts {
    /// The files of `folder`, or the built-in ones.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn load(folder: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) = folder else {
            return Ok(Self { hub: HUB.to_owned(), client: CLIENT.to_owned() });
        };
        let read = |name: &str| {
            let path = folder.join(name);
            let text = fs::read_to_string(&path);
            text.with_context(|| format!("cannot read {}", path.display())).map_err(Failure::usage)
        };
        Ok(Self { hub: read("hub.conf")?, client: read("client.conf")? })
    }

    /// Puts new keys in, and the hub's address on the cable in place of its public one.
    ///
    /// # Errors
    /// A file has faults, which are printed.
    pub fn fill(&self, entropy: &mut dyn Entropy, hub: SocketAddr) -> Result<Pair, Failure> {
        let keys = [("HUB", new_key(entropy)), ("CLIENT", new_key(entropy))];
        let mut pair = Pair {
            hub: parse(&fill(&self.hub, &keys), "hub.conf")?,
            client: parse(&fill(&self.client, &keys), "client.conf")?,
        };
        for peer in pair.client.peers.iter_mut().filter(|peer| peer.endpoint.is_some()) {
            peer.endpoint = Some(Endpoint::Address(hub));
        }
        Ok(pair)
    }
}

/// What in the file changes the host beyond the tunnel, as hooks do: the demo leaves it out.
pub fn take_host_changes(config: &mut Config) -> Vec<String> {
    let interface = &mut config.interface;
    let hooks = [
        ("PreUp", &mut interface.pre_up),
        ("PostUp", &mut interface.post_up),
        ("PreDown", &mut interface.pre_down),
        ("PostDown", &mut interface.post_down),
    ];
    let taken = hooks.into_iter().flat_map(|(key, commands)| {
        commands.drain(..).map(move |command| format!("{key} = {command}")).collect::<Vec<_>>()
    });
    let mut taken: Vec<String> = taken.collect();
    let masquerade = interface.masquerade.take();
    taken.extend(masquerade.map(|how| format!("Masquerade = {}", how.value.name())));
    taken
}

fn new_key(entropy: &mut dyn Entropy) -> PrivateKey {
    dh::clamp(&PrivateKey::from_bytes(entropy.bytes()))
}

fn fill(text: &str, keys: &[(&str, PrivateKey)]) -> Zeroizing<String> {
    keys.iter().fold(Zeroizing::new(text.to_owned()), |text, (owner, private)| {
        let public = dh::public_key(private).to_base64();
        let private = Zeroizing::new(private.to_base64());
        let with_private = Zeroizing::new(text.replace(&format!("{owner}_PRIVATE_KEY"), &private));
        Zeroizing::new(with_private.replace(&format!("{owner}_PUBLIC_KEY"), &public))
    })
}

fn parse(text: &str, name: &str) -> Result<Config, Failure> {
    match config::parse(text, name) {
        Ok(written) => Ok(written.config),
        Err(faults) => {
            faults.iter().for_each(|fault| message::note(&fault.to_string()));
            Err(Failure::usage(anyhow::anyhow!("{name} has faults")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    #[test]
    fn the_built_in_files_make_two_sides_that_know_each_other() {
        let endpoint = "198.18.0.1:51820".parse().unwrap();
        let texts = Texts::load(None).unwrap();
        let Ok(Pair { mut hub, client }) = texts.fill(&mut SeededEntropy::new(1), endpoint) else {
            panic!("a built-in file has faults");
        };
        let public =
            |config: &Config| dh::public_key(config.interface.private_key.as_ref().unwrap());
        assert_eq!(client.peers[0].public_key, public(&hub));
        assert_eq!(hub.peers[0].public_key, public(&client));
        assert_eq!(client.peers[0].endpoint, Some(Endpoint::Address(endpoint)));
        assert_eq!(hub.interface.mtu, Some(1360));
        assert_eq!(client.peers[0].persistent_keepalive, Some(25));
        assert_eq!(take_host_changes(&mut hub), ["Masquerade = auto"]);
        assert!(take_host_changes(&mut hub).is_empty());
    }

    #[test]
    fn every_run_has_keys_of_its_own() {
        let endpoint = "198.18.0.1:51820".parse().unwrap();
        let texts = Texts::load(None).unwrap();
        let key = |seed| match texts.fill(&mut SeededEntropy::new(seed), endpoint) {
            Ok(pair) => pair.hub.interface.private_key.unwrap().to_base64(),
            Err(_) => panic!("a built-in file has faults"),
        };
        assert_ne!(key(1), key(2));
    }
}
