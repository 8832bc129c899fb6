//! `hybridwg new hub FILE|NAME` and `hybridwg new client HUB NAME`.
//!
//! A file that is there is never replaced unaware, and those that are made can be read by their
//! owner alone. A private key gets onto standard output only where it was sent there by name.

pub mod args;
mod qr;

use std::env;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ipnet::IpNet;
use zeroize::Zeroizing;

use self::args::{Client, Hub, New};
use self::qr::Drawing;
use crate::cli::file;
use crate::cli::message::{self, Failure};
use crate::control::config::{self, DIRECTORY, Endpoint, Folder, Located};
use crate::control::maker::{self, MakerError, Pair, Wishes};
use crate::control::netlink::Netlink;
use crate::control::uapi::is_interface_name;
use crate::crypto::entropy::Entropy;

/// Makes what was asked for.
///
/// # Errors
/// [`Failure::Usage`] if it makes no sense, or a file is there already; otherwise what stood in the
/// way. A client is then in neither file.
pub fn run(command: &New, entropy: &mut dyn Entropy) -> Result<(), Failure> {
    match command {
        New::Hub(arguments) => hub(arguments, entropy),
        New::Client(arguments) => client(arguments, entropy),
    }
}

fn hub(arguments: &Hub, entropy: &mut dyn Entropy) -> Result<(), Failure> {
    let Hub { config, endpoint, network, port, force } = arguments;
    let located = config::place(config, &env::current_dir()?, Path::new(DIRECTORY))
        .map_err(Failure::usage)?;
    let endpoint = read_endpoint(endpoint, *port)?;
    let networks = match network.is_empty() {
        true => maker::pick_networks(entropy, &networks_of_this_host()).map_err(Failure::usage)?,
        false => network.clone(),
    };
    let made = maker::hub(entropy, &networks, *port, endpoint).map_err(Failure::usage)?;
    make_folder(&located.path)?;
    write(&located.path, &config::render(&made), *force)?;
    let argument = located.argument(Path::new(DIRECTORY));
    message::note(&format!(
        "{} is made: a hub with {}",
        located.path.display(),
        list(&made.interface.addresses)
    ));
    message::note(&format!(
        "`hybridwg new client {argument} NAME` makes a client, `hybridwg up {argument}` starts the \
         hub. Let UDP port {port} in, in the cloud's firewall as well"
    ));
    Ok(())
}

fn client(arguments: &Client, entropy: &mut dyn Entropy) -> Result<(), Failure> {
    let Client { name, qr, force, .. } = arguments;
    if !is_interface_name(name) {
        return Err(Failure::usage(anyhow!(
            "{name:?} cannot be the name of a client: the interface there is called so, with 1 to \
             15 letters, digits or any of _=+.-"
        )));
    }
    let hub = file::find(&arguments.hub)?;
    let out = destination(arguments, &hub);
    let _alone = Folder::lock(&hub.path)
        .with_context(|| format!("cannot lock the folder of {}", hub.path.display()))
        .map_err(Failure::run)?;
    let (text, pair) = pair(arguments, &hub, entropy)?;
    let file = config::render(&pair.client);
    let code = if *qr { Some(draw(&file)?) } else { None };

    if let Out::File(path) = &out {
        write(path, &file, *force)?;
    }
    let updated = config::with_peer(&text, name, &pair.peer);
    if let Err(error) = config::replace(&hub.path, &updated) {
        if let Out::File(path) = &out {
            // Without its hub it is good for nothing.
            drop(std::fs::remove_file(path));
        }
        let context = format!("cannot write {}", hub.path.display());
        return Err(Failure::run(anyhow!(error).context(context)));
    }
    if let Some(code) = code {
        message::result(&code)?;
    }
    match &out {
        Out::File(path) => message::note(&format!("{} is made", path.display())),
        Out::Standard => message::result(&file)?,
        Out::Nowhere => {}
    }
    let argument = hub.argument(Path::new(DIRECTORY));
    message::note(&format!(
        "{name} with {} is in {}: `hybridwg reload {argument}` tells a hub that is up",
        list(&pair.client.interface.addresses),
        hub.path.display()
    ));
    Ok(())
}

/// Where the client's file goes.
enum Out {
    File(PathBuf),
    Standard,
    Nowhere,
}

fn destination(arguments: &Client, hub: &Located) -> Out {
    match &arguments.out {
        Some(path) if path.as_os_str() == "-" => Out::Standard,
        Some(path) => Out::File(path.clone()),
        None if arguments.qr => Out::Nowhere,
        None => Out::File(hub.path.with_file_name(format!("{}.conf", arguments.name))),
    }
}

/// The text of the hub's file, and its next client.
///
/// # Errors
/// [`Failure::Usage`]: the hub has such a client already, or lacks something.
fn pair(
    arguments: &Client,
    hub: &Located,
    entropy: &mut dyn Entropy,
) -> Result<(Zeroizing<String>, Pair), Failure> {
    let Client { name, allowed_ips, dns, endpoint, .. } = arguments;
    let path = hub.path.display();
    let (text, written) = config::load_text(&hub.path).map_err(file::unusable)?;
    let mut config = written.config;
    if let Some(line) = config::line_of_peer(&text, name) {
        return Err(Failure::usage(anyhow!(
            "{path}:{line}: there is a peer called {name} already"
        ))
        .with_hint("take another name, or remove that [Peer] first: its key goes with it"));
    }
    file::fetch_keys(hub, &mut config)?;
    let port = config.interface.listen_port.unwrap_or(0);
    let endpoint = endpoint.as_deref().map(|text| read_endpoint(text, port)).transpose()?;
    let wishes = Wishes { endpoint, allowed_ips: allowed_ips.clone(), dns: dns.clone() };
    let made = maker::client(entropy, &config, wishes);
    let pair = made.map_err(|error| {
        let failure = Failure::usage(anyhow!("{path}: {error}"));
        match error {
            MakerError::NoEndpoint => failure.with_hint(
                "give --endpoint HOST, or write `#hybridwg: PublicEndpoint = HOST:PORT` into its \
                 [Interface]",
            ),
            _ => failure,
        }
    })?;
    Ok((text, pair))
}

/// The address of a hub; `port` is the one that it listens on, 0 if that is not known.
///
/// # Errors
/// [`Failure::Usage`] if it is none, or has no port.
fn read_endpoint(text: &str, port: u16) -> Result<Endpoint, Failure> {
    let endpoint = maker::public_endpoint(text, port).ok_or_else(|| {
        Failure::usage(anyhow!(
            "read {text:?} as endpoint, accepted is a name or an address, with or without :PORT"
        ))
    })?;
    let has_port = match &endpoint {
        Endpoint::Address(address) => address.port() != 0,
        Endpoint::Name { port, .. } => *port != 0,
    };
    has_port.then_some(endpoint).ok_or_else(|| {
        Failure::usage(anyhow!("the endpoint {text} needs a port: {text}:PORT"))
            .with_hint("the hub's file has no ListenPort, so that it gets another one each time")
    })
}

/// A code, if the terminal has room for it.
///
/// # Errors
/// [`Failure::Usage`] if it has not, or no code could hold the file.
fn draw(file: &str) -> Result<Zeroizing<String>, Failure> {
    let drawing = Drawing::of(file)
        .ok_or_else(|| Failure::usage(anyhow!("this file is too long for a QR code")))?;
    let columns = drawing.columns();
    match message::columns() {
        Some(there) if usize::from(there) < columns => Err(Failure::usage(anyhow!(
            "the QR code is {columns} columns wide, and the terminal {there}"
        ))
        .with_hint("make the window wider or the letters smaller, and try again")),
        _ => Ok(drawing.lines(message::is_coloured())),
    }
}

/// # Errors
/// [`Failure::Usage`] if it is there and is not to be replaced; otherwise what stood in the way.
fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let outcome = match config::create(path, text) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && force => {
            config::replace(path, text)
        }
        outcome => outcome,
    };
    outcome.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::usage(anyhow!("{} is there already, and stays as it is", path.display()))
                .with_hint("--force replaces it, and the keys in it are lost")
        }
        _ => Failure::run(anyhow!(error).context(format!("cannot write {}", path.display()))),
    })
}

/// Where configurations are kept, on a host without one.
fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder == Path::new(DIRECTORY) => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)
        }
        _ => Ok(()),
    }
}

/// What this host has a way to, but for its default route. A host that does not tell has none.
fn networks_of_this_host() -> Vec<IpNet> {
    let routes = Netlink::new().routes().unwrap_or_default();
    let networks = routes.iter().map(|route| route.destination.trunc());
    networks.filter(|network| network.prefix_len() > 0).collect()
}

fn list(networks: &[IpNet]) -> String {
    let texts: Vec<String> = networks.iter().map(|network| network.addr().to_string()).collect();
    texts.join(" and ")
}
