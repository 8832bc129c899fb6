//! The text for people. Its form is that of wg(8), byte for byte, but for lines about offloads, flows and
//! path MTUs where the device is one of ours.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::{Shown, Style, Text};
use crate::control::command::PeerSnapshot;
use crate::control::resolve::endpoint_text;
use crate::control::settings::{FlowCount, Status};
use crate::time::Wall;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";

/// All devices, with an empty line between them.
pub(super) fn render(shown: &[Shown], style: Style, now: Wall) -> Text {
    let mut page = Page { text: Zeroizing::new(String::with_capacity(4096)), style };
    for (index, device) in shown.iter().enumerate() {
        if index > 0 {
            page.text.push('\n');
        }
        let written = page.device(device, now);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    page.text
}

struct Page {
    text: Text,
    style: Style,
}

impl Page {
    fn device(&mut self, shown: &Shown, now: Wall) -> fmt::Result {
        let device = &shown.device;
        self.colour(RESET);
        self.heading(GREEN, "interface", &shown.interface);
        if let (Some(public), Some(private)) = (shown.public_key(), &device.private_key) {
            self.field("public key", &public.to_base64());
            self.secret("private key", private.to_base64());
        }
        if device.listen_port != 0 {
            self.field("listening port", &device.listen_port.to_string());
        }
        if device.fwmark != 0 {
            self.field("fwmark", &format!("{:#x}", device.fwmark));
        }
        if let Some(Status { offloads, .. }) = &shown.status {
            let names: Vec<_> = offloads.names().collect();
            let text = if names.is_empty() { "(none)".to_owned() } else { names.join(", ") };
            self.field("offloads", &text);
        }
        if let Some(Status { is_rootless, is_masquerading, flows, .. }) = &shown.status {
            if *is_rootless {
                self.field("mode", "rootless");
            }
            if *is_masquerading {
                self.field("masquerade", "flow by flow");
            }
            if let Some(FlowCount { now, is_full, .. }) = flows {
                let limit = if *is_full { " (no more may begin)" } else { "" };
                self.field("flows", &format!("{now}{limit}"));
            }
        }
        let mut peers: Vec<&PeerSnapshot> = device.peers.iter().collect();
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_handshake));
        for peer in peers {
            self.text.push('\n');
            self.peer(shown, peer, now)?;
        }
        Ok(())
    }

    fn peer(&mut self, shown: &Shown, peer: &PeerSnapshot, now: Wall) -> fmt::Result {
        self.heading(YELLOW, "peer", &peer.public_key.to_base64());
        if !peer.preshared_key.is_zero() {
            self.secret("preshared key", peer.preshared_key.to_base64());
        }
        if let Some(endpoint) = peer.endpoint {
            self.field("endpoint", &endpoint_text(endpoint));
        }
        self.label("allowed ips");
        self.allowed_ips(peer)?;
        if let Some(handshake) = peer.last_handshake {
            self.label("latest handshake");
            self.ago(handshake, now)?;
        }
        if let Some(path) = shown.path_of(peer) {
            self.field("path mtu", &format!("{} ({})", path.mtu, path.source.name()));
        }
        if peer.rx_bytes != 0 || peer.tx_bytes != 0 {
            self.label("transfer");
            self.bytes(peer.rx_bytes)?;
            self.text.push_str(" received, ");
            self.bytes(peer.tx_bytes)?;
            self.text.push_str(" sent\n");
        }
        if peer.persistent_keepalive != 0 {
            self.label("persistent keepalive");
            self.text.push_str("every ");
            self.duration(u64::from(peer.persistent_keepalive))?;
            self.text.push('\n');
        }
        Ok(())
    }

    fn allowed_ips(&mut self, peer: &PeerSnapshot) -> fmt::Result {
        if peer.allowed_ips.is_empty() {
            self.text.push_str("(none)");
        }
        let mut separator = "";
        for network in &peer.allowed_ips {
            write!(self.text, "{separator}{}", network.addr())?;
            self.coloured(CYAN, "/");
            write!(self.text, "{}", network.prefix_len())?;
            separator = ", ";
        }
        self.text.push('\n');
        Ok(())
    }

    fn ago(&mut self, then: Wall, now: Wall) -> fmt::Result {
        match now.secs.checked_sub(then.secs) {
            Some(0) => self.text.push_str("Now"),
            Some(seconds) => {
                self.duration(seconds)?;
                self.text.push_str(" ago");
            }
            None => {
                const WARNING: &str = "System clock wound backward; connection problems may ensue.";
                self.text.push('(');
                self.coloured(RED, WARNING);
                self.text.push(')');
            }
        }
        self.text.push('\n');
        Ok(())
    }

    /// A year has 365 days here, as in `wg`.
    fn duration(&mut self, seconds: u64) -> fmt::Result {
        let units = [
            (seconds / (365 * 86_400), "year"),
            (seconds / 86_400 % 365, "day"),
            (seconds / 3_600 % 24, "hour"),
            (seconds / 60 % 60, "minute"),
            (seconds % 60, "second"),
        ];
        let mut separator = "";
        for (count, unit) in units.into_iter().filter(|&(count, _)| count != 0) {
            write!(self.text, "{separator}{count} ")?;
            let plural = if count == 1 { "" } else { "s" };
            self.coloured(CYAN, &format!("{unit}{plural}"));
            separator = ", ";
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: u64) -> fmt::Result {
        let (bits, unit) = match bytes {
            0..1_024 => {
                write!(self.text, "{bytes} ")?;
                self.coloured(CYAN, "B");
                return Ok(());
            }
            1_024..1_048_576 => (10, "KiB"),
            1_048_576..1_073_741_824 => (20, "MiB"),
            1_073_741_824..1_099_511_627_776 => (30, "GiB"),
            1_099_511_627_776.. => (40, "TiB"),
        };
        // Above 2^53 the last digits are lost, which two decimals do not show.
        write!(self.text, "{:.2} ", bytes as f64 / f64::from(2.0_f32).powi(bits))?;
        self.coloured(CYAN, unit);
        Ok(())
    }

    fn heading(&mut self, colour: &str, label: &str, value: &str) {
        self.colour(colour);
        self.colour(BOLD);
        self.text.push_str(label);
        self.colour(RESET);
        self.text.push_str(": ");
        self.coloured(colour, value);
        self.text.push('\n');
    }

    fn field(&mut self, label: &str, value: &str) {
        self.label(label);
        self.text.push_str(value);
        self.text.push('\n');
    }

    fn secret(&mut self, label: &str, key: String) {
        let key = Zeroizing::new(key);
        self.field(label, if self.style.keys_shown { &key } else { "(hidden)" });
    }

    fn label(&mut self, label: &str) {
        self.text.push_str("  ");
        self.coloured(BOLD, label);
        self.text.push_str(": ");
    }

    fn coloured(&mut self, colour: &str, text: &str) {
        self.colour(colour);
        self.text.push_str(text);
        self.colour(RESET);
    }

    fn colour(&mut self, sequence: &str) {
        if self.style.coloured {
            self.text.push_str(sequence);
        }
    }
}
