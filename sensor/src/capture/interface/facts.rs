//! Everything about one interface that needs no frame to be known: what the kernel and the driver say of it, and the
//! machine around it. What nobody says is `None`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::ethtool::{Channels, Offloads, Rings, Spread};
use super::statistics::is_known;
use super::{
    Attributes, IFLA_ADDRESS, IFLA_CARRIER, IFLA_MTU, IFLA_NUM_RX_QUEUES, IFLA_PROMISCUITY,
    IFLA_XDP, Interface, Interfaces, NicStatistics, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR,
    RTM_NEWLINK, Use, u32_at,
};

const IFF_UP: u32 = 1;
const IFF_PROMISC: u32 = 0x100;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const XDP_ATTACHED_SKB: u8 = 2;
/// Interrupts of one interface that are listed.
const INTERRUPTS_MAX: usize = 1024;

/// An XDP program that somebody has attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct XdpAttached {
    /// `native`, `generic`, or `several`.
    pub mode: &'static str,
    /// The kernel's number of it, as `bpftool prog show id` takes it.
    pub program: Option<u32>,
}

/// An interrupt of the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// CPUs that may take it, as the kernel lists them (`0-3,8`).
    pub cpus: String,
}

/// One interface as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Name of the driver.
    pub driver: Option<String>,
    /// Its hardware address, `aa:bb:cc:dd:ee:ff`.
    pub hardware_address: Option<String>,
    /// Switched on by the administrator.
    pub up: bool,
    /// A signal on the cable.
    pub carrier: Option<bool>,
    /// Longest packet it takes, bytes without the Ethernet header.
    pub mtu: Option<u32>,
    /// Takes frames that are sent to others.
    pub promiscuous: Option<bool>,
    /// Its addresses, those that every interface gets (IPv6 link-local) aside.
    pub addresses: Vec<String>,
    /// Why frames have to reach the network stack, if they have: `address`, `port` or `stacked`.
    pub used_as: Option<&'static str>,
    /// An XDP program that was attached before.
    pub xdp: Option<XdpAttached>,
    /// What card and driver do to frames before they are seen.
    pub offloads: Option<Offloads>,
    /// Receive rings.
    pub rings: Option<Rings>,
    /// Receive queues that the driver can be asked for.
    pub channels: Option<Channels>,
    /// Receive queues that the kernel has for it.
    pub rx_queues: Option<u32>,
    /// How flows are spread over the queues.
    pub spread: Spread,
    /// Interrupts, where the machine lists them.
    pub interrupts: Vec<Interrupt>,
}

impl InterfaceFacts {
    /// The hardware address as a number; 0 where there is none.
    pub(in crate::capture) fn address_number(&self) -> u64 {
        let hexadecimal: String =
            self.hardware_address.iter().flat_map(|text| text.split(':')).collect();
        u64::from_str_radix(&hexadecimal, 16).unwrap_or(0)
    }
}

/// The machine around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MachineFacts {
    /// Release of the running kernel.
    pub kernel: String,
    /// CPUs that are switched on.
    pub cpus: Option<u32>,
    /// The last-level cache that the first CPU can use, bytes.
    pub cache_bytes: Option<u64>,
}

impl MachineFacts {
    /// Asks the kernel.
    #[must_use]
    pub fn read() -> Self {
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus: aya::util::online_cpus().ok().and_then(|cpus| u32::try_from(cpus.len()).ok()),
            cache_bytes: cache_bytes(),
        }
    }
}

/// The largest cache of CPU 0.
fn cache_bytes() -> Option<u64> {
    let sizes = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?.filter_map(|entry| {
        let text = fs::read_to_string(entry.ok()?.path().join("size")).ok()?;
        kibibytes(text.trim())
    });
    sizes.max()
}

/// `32768K` in bytes.
pub(super) fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)
}

impl Interfaces {
    /// Everything that is known of one interface; `None` when there is none of that name.
    pub(in crate::capture) fn facts(&self, name: &str) -> io::Result<Option<InterfaceFacts>> {
        let all = self.list()?;
        let Some(interface) = all.iter().find(|interface| interface.name == name) else {
            return Ok(None);
        };
        let mut facts = InterfaceFacts { name: name.to_owned(), ..InterfaceFacts::default() };
        self.dump(RTM_GETLINK, |kind, body| {
            if kind == RTM_NEWLINK && u32_at(body, 4) == Some(interface.index) {
                read_link(body, &mut facts);
            }
        })?;
        self.dump(RTM_GETADDR, |kind, body| {
            if kind == RTM_NEWADDR && super::is_address_of(body, interface.index) {
                facts.addresses.extend(read_address(body));
            }
        })?;
        facts.used_as = self.used_for(interface, &all)?.map(|used| match used {
            Use::Address => "address",
            Use::Port => "port",
            Use::Stacked => "stacked",
        });
        facts.driver = self.ethtool.driver(name);
        facts.offloads = self.ethtool.offloads(name);
        facts.rings = self.ethtool.rings(name);
        facts.channels = self.ethtool.channels(name);
        facts.spread = self.ethtool.spread(name);
        facts.interrupts = interrupts(name, facts.hardware_address.as_deref());
        Ok(Some(facts))
    }

    /// What card and driver of this interface have counted.
    pub(in crate::capture) fn statistics(&self, interface: &Interface) -> NicStatistics {
        let driver = self.ethtool.driver(&interface.name);
        // Some cards take milliseconds to answer: only those are asked whose answer is understood.
        let own = driver.as_deref().filter(|driver| is_known(driver));
        let own = own.and_then(|_| self.ethtool.counters(&interface.name)).unwrap_or_default();
        NicStatistics::new(interface.generic, driver.as_deref(), &own)
    }
}

/// Of a `struct ifinfomsg` and its attributes.
pub(super) fn read_link(body: &[u8], facts: &mut InterfaceFacts) {
    let flags = u32_at(body, 8).unwrap_or_default();
    facts.up = flags & IFF_UP != 0;
    facts.promiscuous = Some(flags & IFF_PROMISC != 0);
    for (kind, value) in Attributes(body.get(16..).unwrap_or_default()) {
        match kind {
            IFLA_ADDRESS => {
                let digits: Vec<_> = value.iter().map(|byte| format!("{byte:02x}")).collect();
                facts.hardware_address = (value.len() == 6).then(|| digits.join(":"));
            }
            IFLA_MTU => facts.mtu = u32_at(value, 0),
            IFLA_CARRIER => facts.carrier = value.first().map(|carrier| *carrier != 0),
            // The flag above says what the administrator asked for; this counts everybody who did.
            IFLA_PROMISCUITY => facts.promiscuous = u32_at(value, 0).map(|users| users > 0),
            IFLA_NUM_RX_QUEUES => facts.rx_queues = u32_at(value, 0),
            IFLA_XDP => facts.xdp = read_xdp(value),
            _ => {}
        }
    }
}

fn read_xdp(value: &[u8]) -> Option<XdpAttached> {
    let mut mode = 0;
    let mut program = None;
    for (kind, value) in Attributes(value) {
        match kind {
            IFLA_XDP_ATTACHED => mode = *value.first()?,
            IFLA_XDP_PROG_ID | IFLA_XDP_DRV_PROG_ID | IFLA_XDP_SKB_PROG_ID => {
                program = program.or(u32_at(value, 0));
            }
            _ => {}
        }
    }
    let mode = match mode {
        0 => return None,
        XDP_ATTACHED_SKB => "generic",
        1 | 3 => "native",
        _ => "several",
    };
    Some(XdpAttached { mode, program })
}

/// Of a `struct ifaddrmsg` and its attributes.
fn read_address(body: &[u8]) -> Option<String> {
    let [family, length, ..] = *body.first_chunk::<4>()?;
    let find = |wanted| Attributes(body.get(8..)?).find(|(kind, _)| *kind == wanted);
    // On a point-to-point link the first is the other side's.
    let (_, value) = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?;
    let address = match family {
        AF_INET => Ipv4Addr::from(*value.first_chunk()?).to_string(),
        AF_INET6 => Ipv6Addr::from(*value.first_chunk()?).to_string(),
        _ => return None,
    };
    Some(format!("{address}/{length}"))
}

/// The interrupts of a card, with the CPUs that may take them. The folder of interfaces may show another network
/// namespace than the one that is asked about: the hardware address tells.
fn interrupts(name: &str, hardware_address: Option<&str>) -> Vec<Interrupt> {
    let folder = std::path::Path::new("/sys/class/net").join(name);
    let shown = fs::read_to_string(folder.join("address")).ok();
    if hardware_address.is_none() || shown.as_deref().map(str::trim) != hardware_address {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(folder.join("device/msi_irqs")) else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u32> = numbers.take(INTERRUPTS_MAX).collect();
    numbers.sort_unstable();
    let cpus = |number: &u32| {
        fs::read_to_string(format!("/proc/irq/{number}/smp_affinity_list"))
            .ok()
            .map(|cpus| Interrupt { number: *number, cpus: cpus.trim().to_owned() })
    };
    numbers.iter().filter_map(cpus).collect()
}
