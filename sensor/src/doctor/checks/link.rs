//! Is the port switched on, is it free, can the kernel run the program on it?

use super::super::finding::{Finding, Severity};
use super::{NotRun, Port};
use crate::capture::AttachMode;

pub(super) fn check(port: &Port<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(up(port));
    if let Some(finding) = not_run(port) {
        findings.push(finding);
    }
    findings.extend(mode(port));
    findings.push(used(port));
    findings
}

fn up(port: &Port<'_>) -> Finding {
    const CHECK: &str = "interface_down";
    let name = &port.facts.name;
    if !port.facts.up {
        return Finding::new(CHECK, Severity::Fault, format!("{name} is switched off."))
            .why("An interface that is switched off receives nothing.")
            .command(format!("ip link set dev {name} up"));
    }
    match port.facts.carrier {
        Some(false) => {
            Finding::new(CHECK, Severity::Fault, format!("{name} has no signal on its cable."))
                .why("Nothing arrives.")
                .advice(
                    "Check cable, transceiver and the switch's port: is the mirror's \
                     destination port switched on, at the same speed?",
                )
                .command(format!("ethtool {name}"))
        }
        Some(true) => Finding::fine(CHECK, format!("{name} is up, with a signal on its cable.")),
        None => Finding::unknown(
            CHECK,
            format!("{name} is up; whether its cable has a signal the driver does not say."),
        ),
    }
}

fn not_run(port: &Port<'_>) -> Option<Finding> {
    let name = &port.facts.name;
    Some(match port.not_run? {
        NotRun::Down => return None,
        NotRun::Occupied => {
            let finding = Finding::new(
                "xdp_attached",
                Severity::Warning,
                format!("Another XDP program is on {name}, so the traffic was not looked at."),
            );
            let (evidence, off) = match port.facts.xdp {
                Some(xdp) => (
                    match xdp.program {
                        Some(program) => format!("program {program}, {} mode", xdp.mode),
                        None => format!("{} mode", xdp.mode),
                    },
                    if xdp.mode == "generic" { "xdpgeneric" } else { "xdp" },
                ),
                None => ("it went while this looked".to_owned(), "xdp"),
            };
            finding
                .evidence(evidence)
                .why(
                    "The kernel runs one XDP program on an interface. If it is the sensor's, \
                     all is well: stop the sensor for as long as this listens.",
                )
                .advice("Or, when it is nobody's, take it off:")
                .command(format!("ip link set dev {name} {off} off"))
        }
        NotRun::Kernel(said) => {
            Finding::new("kernel", Severity::Fault, "This kernel cannot run the sensor's program.")
                .evidence(format!("kernel {}: {said}", port.machine.kernel))
                .why(
                    "The sensor needs Linux 5.9 at least (XDP links), 5.18 for jumbo frames in \
                     several buffers, with BPF system call and JIT.",
                )
                .advice("Install a newer kernel. Debian 12, Ubuntu 24.04 and RHEL 9 have one.")
        }
        NotRun::Refused(said) => Finding::new(
            "kernel",
            Severity::Fault,
            format!("The driver of {name} takes no XDP program."),
        )
        .evidence(said.clone())
        .why("Without the program nothing is counted.")
        .command(format!("spanwatch-sensor doctor --interface {name} --mode generic")),
    })
}

fn mode(port: &Port<'_>) -> Option<Finding> {
    const CHECK: &str = "generic_mode";
    let name = &port.facts.name;
    let driver = port.facts.driver.as_deref().unwrap_or("unknown");
    Some(match port.mode? {
        AttachMode::Native => {
            Finding::fine(CHECK, format!("The program runs in the driver ({driver}): native mode."))
        }
        AttachMode::Generic => {
            Finding::new(CHECK, Severity::Warning, "The program runs in generic mode.")
                .evidence(format!("interface {name}, driver {driver}"))
                .why(
                    "The kernel has then allocated memory for each frame before it is counted: \
                     a fraction of the speed, loss under load, and merged segments where GRO is \
                     on.",
                )
                .advice(
                    "Use a card whose driver has native XDP (ixgbe, i40e, ice, igb, mlx5_core, \
                     bnxt_en, ena, virtio_net with enough queues, …).",
                )
                .advice(
                    "Where the driver has it, it may refuse because of the MTU or the number of \
                     queues; the kernel log says so:",
                )
                .command("dmesg | tail")
        }
    })
}

fn used(port: &Port<'_>) -> Finding {
    const CHECK: &str = "addresses";
    const WHY: &str = "The sensor then passes every frame on to the network stack, which costs \
                       time, and the machine may answer to what it sees. A mirror port needs no \
                       address.";
    let name = &port.facts.name;
    match port.facts.used_as {
        None => Finding::fine(CHECK, format!("{name} only listens: no address, no bridge.")),
        Some("address") => Finding::new(
            CHECK,
            Severity::Warning,
            format!("{name} has an address: this machine uses it for something else."),
        )
        .evidence(port.facts.addresses.join(", "))
        .why(WHY)
        .advice("If this is the mirror port (and not the one that you are logged in through):")
        .command(format!("ip address flush dev {name}")),
        Some(used) => {
            let what = if used == "port" {
                format!("{name} is a port of a bridge or bond.")
            } else {
                format!("Other interfaces are stacked on {name} (VLAN, macvlan or tunnel).")
            };
            let finding = Finding::new(CHECK, Severity::Warning, what).why(WHY);
            if used == "port" {
                finding.command(format!("ip link set dev {name} nomaster"))
            } else {
                finding.command(format!("ip -details link show | grep '@{name}:'"))
            }
        }
    }
}
