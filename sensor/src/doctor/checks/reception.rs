//! What the card and the driver do to frames before they are seen: merging, taking tags off, losing.

use super::super::finding::{Finding, Severity, counted, number, percent};
use super::super::thresholds::{CARD_LOSS_FAULT, permille};
use super::Port;
use crate::capture::AttachMode;

pub(super) fn check(port: &Port<'_>) -> Vec<Finding> {
    let mut findings = vec![loss(port)];
    let name = &port.facts.name;
    let Some(offloads) = port.facts.offloads else {
        findings.push(Finding::unknown(
            "offloads",
            format!("The driver of {name} does not tell its offloads."),
        ));
        return findings;
    };
    findings.push(merging(port, "gro", offloads.gro));
    findings.push(merging(port, "lro", offloads.lro));
    findings.push(merging(port, "gro_hw", offloads.gro_hw));
    findings.push(stripping(port, offloads.rx_vlan));
    findings
}

fn loss(port: &Port<'_>) -> Finding {
    const CHECK: &str = "loss_in_card";
    let name = &port.facts.name;
    if port.traffic.is_none() {
        return Finding::unknown(CHECK, "Card and driver were not watched.");
    }
    let received = port.nic.received;
    match (received, port.nic.missed) {
        (Some(received), Some(0)) => Finding::fine(
            CHECK,
            format!("Card and driver lost nothing of {}.", counted(received, "frame")),
        ),
        (received, Some(missed)) => {
            let received = received.unwrap_or(0);
            let share = permille(missed, received + missed);
            let severity =
                if share >= CARD_LOSS_FAULT { Severity::Fault } else { Severity::Warning };
            let finding = Finding::new(
                CHECK,
                severity,
                "The card loses frames before they are counted.",
            )
            .evidence(format!(
                "{} lost, {} received ({})",
                counted(missed, "frame"),
                number(received),
                percent(missed, received + missed)
            ))
            .why("The rings were full: the CPUs do not take the frames as fast as they come.");
            let cpus = port.machine.cpus.unwrap_or(u32::MAX);
            let finding = match port.facts.channels {
                Some(channels) if channels.rx < channels.rx_max.min(cpus) => {
                    let wanted = channels.rx_max.min(cpus);
                    finding.command(format!("ethtool -L {name} {} {wanted}", channels.word))
                }
                _ => finding,
            };
            match port.facts.rings {
                Some(rings) if rings.rx < rings.rx_max => finding
                    .command(format!("ethtool -G {name} rx {}", (rings.rx * 2).min(rings.rx_max))),
                _ => finding.advice("Give the rings more CPUs, or the sensor a faster machine."),
            }
        }
        (_, None) => {
            let drops = port.nic.unclear.filter(|drops| *drops > 0);
            Finding::unknown(
                CHECK,
                match drops {
                    Some(drops) => format!(
                        "{} dropped in the kernel; whether before the sensor's program or \
                         behind it the driver does not say.",
                        counted(drops, "frame was")
                    ),
                    None => "The driver does not tell what it loses.".to_owned(),
                },
            )
        }
    }
}

/// GRO, LRO and their like: which of them merge segments before the program sees them?
fn merging(port: &Port<'_>, check: &'static str, on: Option<bool>) -> Finding {
    let name = &port.facts.name;
    let (word, option) = match check {
        "gro" => ("GRO", "gro"),
        "lro" => ("LRO", "lro"),
        _ => ("GRO in the card", "rx-gro-hw"),
    };
    match on {
        None => {
            Finding::unknown(check, format!("The kernel does not know {word} on this interface."))
        }
        Some(false) => Finding::fine(check, format!("{word} is off.")),
        Some(true) if check == "gro" && port.mode == Some(AttachMode::Native) => Finding::fine(
            check,
            "GRO is on, and harmless: in native mode the program comes before it.",
        ),
        Some(true) => {
            let merges = match (check, port.mode) {
                ("gro", None) => Severity::Note,
                _ => Severity::Fault,
            };
            Finding::new(
                check,
                merges,
                format!("{word} is on: several segments arrive as one frame."),
            )
            .evidence(format!("ethtool -k {name}: {option} on"))
            .why(
                "Packets are counted too few and too long, and sequences of packet lengths, by \
                 which password guessing is told, are lost.",
            )
            .command(format!("ethtool -K {name} {option} off"))
        }
    }
}

fn stripping(port: &Port<'_>, on: Option<bool>) -> Finding {
    const CHECK: &str = "vlan_stripped";
    let name = &port.facts.name;
    let tagged = port.traffic.map(|traffic| traffic.frames_tagged + traffic.frames_tagged_twice);
    match (on, tagged) {
        (None, _) => {
            Finding::unknown(CHECK, "The kernel does not say whether the card takes VLAN tags off.")
        }
        (Some(false), _) => Finding::fine(CHECK, "The card leaves VLAN tags on the frames."),
        (Some(true), Some(tagged)) if tagged > 0 => Finding::fine(
            CHECK,
            format!(
                "VLAN tags arrive ({}), although rx-vlan-offload is on.",
                counted(tagged, "frame")
            ),
        ),
        (Some(true), _) => Finding::new(
            CHECK,
            Severity::Warning,
            "The card may take VLAN tags off before they are seen.",
        )
        .evidence(format!("ethtool -k {name}: rx-vlan-offload on, and no frame with a tag arrived"))
        .why(
            "The tag is then not in the frame that the program reads: networks with equal \
             addresses in different VLANs become one. Harmless where nothing is tagged.",
        )
        .command(format!("ethtool -K {name} rxvlan off")),
    }
}
