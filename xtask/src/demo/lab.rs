//! The demo's network: four namespaces of its own, removed when dropped. Nothing outside them is touched.
//!
//! ```text
//!  internet                 site                        sensor                police
//! ┌──────────┐        ┌──────────────────┐          ┌──────────────┐      ┌───────────┐
//! │ visitors │ wan0 ═ lan0  10.20.0.0/24 │          │ XDP on       │      │ backend   │
//! │ attackers│        │ each frame copied│ span0 ═ mirror0         │mgmt0═ mgmt0     │
//! └──────────┘        └─ to span0 (tc) ──┘          └──────────────┘      └───────────┘
//! ```

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::shell;

/// Where the backend listens, inside the lab.
pub(super) const BACKEND: &str = "10.99.0.1:7443";

/// One of the four namespaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Internet,
    Site,
    Sensor,
    Police,
}

impl Host {
    const ALL: [Self; 4] = [Self::Internet, Self::Site, Self::Sensor, Self::Police];

    const fn name(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Site => "site",
            Self::Sensor => "sensor",
            Self::Police => "police",
        }
    }
}

/// The four namespaces and their cables.
pub(super) struct Lab {
    prefix: String,
}

impl Lab {
    /// Makes the namespaces, lays the cables, and mirrors every frame of the site's line to `span0`.
    pub(super) fn build() -> Result<Self> {
        let lab = Self { prefix: format!("spanwatch-{}", std::process::id()) };
        for host in Host::ALL {
            ip(["netns", "add", &lab.namespace(host)])?;
            lab.ip(host, "link set lo up")?;
        }
        lab.cable((Host::Site, "lan0"), (Host::Internet, "wan0"))?;
        lab.cable((Host::Site, "span0"), (Host::Sensor, "mirror0"))?;
        lab.cable((Host::Sensor, "mgmt0"), (Host::Police, "mgmt0"))?;
        for address in ["10.20.0.10/24", "10.20.0.20/24"] {
            lab.ip(Host::Site, &format!("address add {address} dev lan0"))?;
        }
        lab.ip(Host::Site, "route add default dev lan0")?;
        for address in
            ["203.0.113.30", "203.0.113.66", "203.0.113.77", "198.51.100.9", "198.51.100.80"]
        {
            lab.ip(Host::Internet, &format!("address add {address}/32 dev wan0"))?;
        }
        lab.ip(Host::Internet, "route add 10.20.0.0/24 dev wan0")?;
        lab.ip(Host::Sensor, "address add 10.99.0.2/24 dev mgmt0")?;
        lab.ip(Host::Police, "address add 10.99.0.1/24 dev mgmt0")?;
        lab.mirror()?;
        Ok(lab)
    }

    /// A command that runs inside one of the namespaces.
    pub(super) fn command(&self, host: Host, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).arg(program);
        command
    }

    /// Frames that were put on the cable to the mirror port, lost ones included.
    pub(super) fn frames_mirrored(&self) -> Result<u64> {
        #[derive(Deserialize)]
        struct Link {
            stats64: Directions,
        }
        #[derive(Deserialize)]
        struct Directions {
            tx: Sent,
        }
        #[derive(Deserialize)]
        struct Sent {
            packets: u64,
            dropped: u64,
        }
        let mut show = Command::new("ip");
        show.args(["-n", &self.namespace(Host::Site), "-s", "-j", "link", "show", "span0"]);
        let links: Vec<Link> =
            serde_json::from_str(&shell::read(&mut show)?).context("`ip -j` printed no JSON")?;
        let sent = &links.first().context("`ip` shows no span0")?.stats64.tx;
        Ok(sent.packets + sent.dropped)
    }

    fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.prefix, host.name())
    }

    fn ip(&self, host: Host, words: &str) -> Result<()> {
        let namespace = self.namespace(host);
        ip(["-n", namespace.as_str()].into_iter().chain(words.split(' ')))
    }

    fn cable(&self, one: (Host, &str), other: (Host, &str)) -> Result<()> {
        let far = self.namespace(other.0);
        self.ip(
            one.0,
            &format!("link add dev {} type veth peer name {} netns {far}", one.1, other.1),
        )?;
        for (host, end) in [one, other] {
            // No neighbour discovery of the kernel's own: only the demo's frames are on the wire.
            let quiet = format!("net.ipv6.conf.{end}.disable_ipv6=1");
            shell::read(self.command(host, "sysctl").args(["-qw", &quiet]))?;
            self.ip(host, &format!("link set {end} up"))?;
        }
        Ok(())
    }

    /// What a switch does for a mirror port: copies what comes in and what goes out.
    fn mirror(&self) -> Result<()> {
        let tc = |words: &str| {
            shell::read(self.command(Host::Site, "tc").args(words.split(' '))).map(drop)
        };
        tc("qdisc add dev lan0 clsact")?;
        for direction in ["ingress", "egress"] {
            tc(&format!(
                "filter add dev lan0 {direction} protocol all u32 match u32 0 0 \
                 action mirred egress mirror dev span0"
            ))?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in Host::ALL {
            // One that was never made need not be removed.
            drop(ip(["netns", "delete", &self.namespace(host)]));
        }
    }
}

fn ip<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<()> {
    shell::read(Command::new("ip").args(words)).map(drop)
}
