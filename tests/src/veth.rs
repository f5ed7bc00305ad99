//! A veth pair between two network namespaces of its own: a sensor's end and a sender's end, and nothing else on
//! it. Removed when dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use pnet_datalink::{Channel, Config};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::{read, skip};

/// Two namespaces and the pairs between them.
pub struct VethPair {
    span: String,
    generator: String,
    pairs: usize,
}

impl VethPair {
    /// So many pairs between the two namespaces; `None`, after saying so, without the privilege.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn new(pairs: usize) -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces and XDP need root");
            return Ok(None);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("spanwatch-p{}-{number}", std::process::id());
        let pair = Self { span: format!("{name}-span"), generator: format!("{name}-gen"), pairs };
        for namespace in [&pair.span, &pair.generator] {
            ip(&["netns", "add", namespace])?;
            // Neighbour discovery would add frames of its own to the counts.
            let quiet = "for v in all default; do \
                         echo 1 > /proc/sys/net/ipv6/conf/$v/disable_ipv6; done";
            ip(&["netns", "exec", namespace, "sh", "-c", quiet])?;
        }
        let (span, generator) = (pair.span.as_str(), pair.generator.as_str());
        for number in 0..pairs {
            let (ours, theirs) = (Self::span_end(number), Self::generator_end(number));
            ip(&[
                "link", "add", &ours, "netns", span, "type", "veth", "peer", "name", &theirs,
                "netns", generator,
            ])?;
            for (namespace, end) in [(span, &ours), (generator, &theirs)] {
                ip(&["-n", namespace, "link", "set", end, "up"])?;
            }
        }
        Ok(Some(pair))
    }

    /// Name of a listening end.
    #[must_use]
    pub fn span_end(number: usize) -> String {
        format!("span{number}")
    }

    /// Name of a sending end.
    #[must_use]
    pub fn generator_end(number: usize) -> String {
        format!("gen{number}")
    }

    /// Names of all listening ends.
    #[must_use]
    pub fn span_ends(&self) -> Vec<String> {
        (0..self.pairs).map(Self::span_end).collect()
    }

    /// The listening namespace's name, for `ip netns exec`.
    #[must_use]
    pub fn span_namespace(&self) -> &str {
        &self.span
    }

    /// The sending namespace's name, for `ip netns exec`.
    #[must_use]
    pub fn generator_namespace(&self) -> &str {
        &self.generator
    }

    /// Moves this thread into the listening ends' namespace.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn enter_span(&self) -> Result<()> {
        enter(&self.span)
    }

    /// Moves this thread into the sending ends' namespace.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn enter_generator(&self) -> Result<()> {
        enter(&self.generator)
    }

    /// Gives both ends of the first pair an address, so that programs can talk over it: the listening one's comes back.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn connect(&self) -> Result<IpAddr> {
        for (namespace, end, address) in [
            (&self.span, Self::span_end(0), "10.213.0.1/24"),
            (&self.generator, Self::generator_end(0), "10.213.0.2/24"),
        ] {
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "address", "add", address, "dev", &end])?;
        }
        Ok(Ipv4Addr::new(10, 213, 0, 1).into())
    }

    /// Cuts the first pair, or mends it.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_up(&self, is_up: bool) -> Result<()> {
        let state = if is_up { "up" } else { "down" };
        ip(&["-n", &self.generator, "link", "set", &Self::generator_end(0), state]).map(drop)
    }

    /// Gives the sending end of the first pair another address, as a new lease would: 10.213.0.`host`.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn readdress(&self, host: u8) -> Result<()> {
        let (namespace, end) = (&self.generator, Self::generator_end(0));
        ip(&["-n", namespace, "address", "flush", "dev", &end])?;
        let address = format!("10.213.0.{host}/24");
        ip(&["-n", namespace, "address", "add", &address, "dev", &end]).map(drop)
    }

    /// Whether a program is attached to the listening end.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn is_attached(&self, number: usize) -> Result<bool> {
        let end = Self::span_end(number);
        let text = ip(&["-n", &self.span, "-json", "link", "show", &end])?;
        let links: Value = serde_json::from_str(&text).context("what ip says")?;
        Ok(links.get(0).context("one interface")?.get("xdp").is_some())
    }

    /// Sends frames as they are from a sending end.
    ///
    /// # Errors
    ///
    /// When the interface does not take one.
    pub fn send<'a>(
        &self,
        number: usize,
        frames: impl Iterator<Item = &'a [u8]> + Send,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<()> {
                self.enter_generator()?;
                let name = Self::generator_end(number);
                let interface = pnet_datalink::interfaces()
                    .into_iter()
                    .find(|candidate| candidate.name == name)
                    .with_context(|| format!("there is no interface {name}"))?;
                let channel = pnet_datalink::channel(&interface, Config::default())
                    .context("a raw socket")?;
                let Channel::Ethernet(mut sender, _) = channel else {
                    bail!("{name} does not carry Ethernet");
                };
                for frame in frames {
                    sender.send_to(frame, None).context("the interface took no frame")??;
                }
                Ok(())
            });
            sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
        })
    }
}

impl Drop for VethPair {
    fn drop(&mut self) {
        for namespace in [&self.span, &self.generator] {
            // The pairs go with their namespaces; a namespace that was never made is no loss.
            ip(&["netns", "delete", namespace]).ok();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    read(Command::new("ip").args(arguments))
}

fn enter(namespace: &str) -> Result<()> {
    let path: PathBuf = Path::new("/var/run/netns").join(namespace);
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering {}", path.display()))
}
