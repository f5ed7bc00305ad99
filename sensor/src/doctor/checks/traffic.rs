//! Does the mirrored traffic arrive, once, and whole?

use flow::COPY_WITHIN_MS;

use super::super::finding::{Finding, Severity, counted, number, percent};
use super::super::thresholds::{
    COPIES_FAULT, COPIES_WARNING, CUT_FAULT, FRAGMENTS_NOTE, SAMPLE_MIN, permille,
};
use super::super::traffic::Traffic;
use super::Port;

/// Whether anything arrives, and whether it is a mirror's.
pub(super) fn arrival(port: &Port<'_>, traffic: &Traffic) -> Vec<Finding> {
    let name = &port.facts.name;
    let others = traffic.frames_of_others();
    let mut findings = Vec::new();
    if others == 0 && port.facts.promiscuous == Some(false) {
        findings.push(
            Finding::new(
                "promiscuous",
                Severity::Fault,
                format!("{name} takes only frames that are sent to itself."),
            )
            .evidence("promiscuous mode is off, and no frame for another address arrived")
            .why("A mirror's frames are addressed to others: the card throws them away.")
            .command(format!("ip link set dev {name} promisc on")),
        );
    } else if others > 0 {
        findings.push(Finding::fine("promiscuous", "Frames that are sent to others arrive."));
    }
    if traffic.frames == 0 {
        findings.push(
            Finding::new("no_traffic", Severity::Fault, "Nothing arrived.")
                .evidence(format!(
                    "0 frames in {} s; card and driver received {}",
                    number(traffic.duration_ms.unwrap_or(0) / 1000),
                    port.nic.received.map_or_else(|| "an unknown number".to_owned(), number)
                ))
                .why("The mirror session is missing, inactive, or sends to another port.")
                .advice(
                    "On the switch: is the session active, is its destination this port, does \
                     its source port carry traffic? (`show monitor session all`)",
                )
                .command(format!("ethtool -S {name}")),
        );
    } else if others == 0 && traffic.frames >= SAMPLE_MIN {
        findings.push(
            Finding::new(
                "no_mirror",
                Severity::Fault,
                "Only broadcast, multicast and this machine's own frames arrive.",
            )
            .evidence(format!(
                "{}: {} to groups, {} to {name} itself",
                counted(traffic.frames, "frame"),
                number(traffic.frames_group),
                number(traffic.frames_own)
            ))
            .why("That is what an ordinary switch port gets: this port is no mirror's destination.")
            .advice("On the switch: make this port the destination of the mirror session."),
        );
    } else if others == 0 {
        let frames = counted(traffic.frames, "frame");
        findings.push(Finding::unknown(
            "no_mirror",
            format!("Only {frames} arrived, none of them between others: listen for longer."),
        ));
    } else {
        findings.push(Finding::fine(
            "no_traffic",
            format!(
                "{} arrived, {} of them between others.",
                counted(traffic.frames, "frame"),
                percent(others, traffic.frames)
            ),
        ));
    }
    findings
}

/// Copies, cut frames, encapsulations, fragments.
pub(super) fn check(traffic: &Traffic) -> Vec<Finding> {
    let mut findings = vec![copies(traffic), cut(traffic)];
    findings.extend(snapped(traffic));
    findings.extend(encapsulations(traffic));
    if permille(traffic.fragments, traffic.packets_ip) >= FRAGMENTS_NOTE {
        findings.push(
            Finding::new("fragments", Severity::Note, "Many packets are fragments.")
                .evidence(format!(
                    "{}, {} of IP packets",
                    counted(traffic.fragments, "fragment"),
                    percent(traffic.fragments, traffic.packets_ip)
                ))
                .why(
                    "A fragment behind the first carries no ports. A tunnel whose MTU is larger \
                     than its path's is the usual reason.",
                ),
        );
    }
    findings
}

fn copies(traffic: &Traffic) -> Finding {
    const CHECK: &str = "duplicates";
    if traffic.comparable < SAMPLE_MIN {
        return Finding::unknown(CHECK, "Too few packets to tell copies by.");
    }
    let share = permille(traffic.copies, traffic.comparable);
    let severity = match share {
        COPIES_FAULT.. => Severity::Fault,
        COPIES_WARNING.. => Severity::Warning,
        _ if traffic.copies == 0 => return Finding::fine(CHECK, "No packet arrives twice."),
        _ => Severity::Note,
    };
    let what = if severity == Severity::Note {
        "A few packets arrive twice."
    } else {
        "The mirror sends packets twice."
    };
    let mut evidence = format!(
        "{} of {} packets ({}) are copies of one that came less than {COPY_WITHIN_MS} ms before",
        number(traffic.copies),
        number(traffic.comparable),
        percent(traffic.copies, traffic.comparable)
    );
    let finding = Finding::new(CHECK, severity, what).why(
        "Every count of packets and bytes is too high, and a copy looks like a retransmission.",
    );
    let finding = if traffic.copies_other_ttl * 2 > traffic.copies {
        evidence.push_str("; the copies have another TTL: taken before and behind a router");
        finding.advice("On the switch: mirror one side of the router only, not both VLANs.")
    } else if traffic.copies_other_tags * 2 > traffic.copies {
        evidence.push_str("; the copies have other VLAN tags: taken in two VLANs");
        finding.advice("On the switch: mirror the port, or one VLAN, not both.")
    } else {
        finding.advice(
            "On the switch: when the mirror's sources are several ports or a whole VLAN, take \
             one direction of them (`rx`); when it is one port, take it in one session, both \
             directions.",
        )
    };
    let told_apart = percent(traffic.comparable, traffic.packets_ip);
    let finding = finding.advice(format!(
        "Where the switch cannot: `capture.deduplicate = true` (`run --deduplicate`) has the sensor \
         count such a packet once. Copies are known of {told_apart} of the packets here; the others \
         have nothing that tells them from a repetition."
    ));
    finding.evidence(evidence)
}

fn cut(traffic: &Traffic) -> Finding {
    const CHECK: &str = "frames_cut";
    if traffic.packets_ip == 0 {
        return Finding::unknown(CHECK, "No IP packet to tell cut frames by.");
    }
    if traffic.frames_cut == 0 {
        return Finding::fine(CHECK, "Every frame is as long as its IP header says.");
    }
    let share = permille(traffic.frames_cut, traffic.packets_ip);
    let severity = if share >= CUT_FAULT { Severity::Fault } else { Severity::Warning };
    Finding::new(CHECK, severity, "Frames are cut: shorter than their IP header says.")
        .evidence(format!(
            "{} of {} packets ({}), up to {} bytes missing; the longest frame has {}",
            number(traffic.frames_cut),
            number(traffic.packets_ip),
            percent(traffic.frames_cut, traffic.packets_ip),
            number(traffic.cut_bytes_max),
            number(traffic.frame_bytes_max)
        ))
        .why(
            "Byte counts are too low: the sensor counts what arrives. Headers still suffice to \
             count packets and flows.",
        )
        .advice(
            "On the switch or packet broker: switch truncation (slicing, `mtu` of the mirror \
             session) off. A tunnel that carries the mirror needs a larger MTU.",
        )
}

/// Only for a capture file: who wrote it kept less than the wire carried.
fn snapped(traffic: &Traffic) -> Option<Finding> {
    let snapped = traffic.frames_snapped.filter(|snapped| *snapped > 0)?;
    Some(
        Finding::new(
            "snap_length",
            Severity::Note,
            "The file holds the beginnings of frames only.",
        )
        .evidence(format!(
            "{} of {} ({})",
            number(snapped),
            counted(traffic.frames, "frame"),
            percent(snapped, traffic.frames)
        ))
        .why("Their lengths on the wire are in the file, so nothing is counted wrong."),
    )
}

fn encapsulations(traffic: &Traffic) -> Option<Finding> {
    if traffic.encapsulated.is_empty() {
        return None;
    }
    let shares: Vec<_> = traffic
        .encapsulated
        .iter()
        .map(|(what, frames)| {
            format!("{what} {} ({})", number(*frames), percent(*frames, traffic.frames))
        })
        .collect();
    Some(
        Finding::new("encapsulation", Severity::Note, "Part of the traffic is inside tunnels.")
            .evidence(shares.join(", "))
            .why(
                "Flows are told apart by what is inside where the sensor can read it; what it \
                 cannot (esp, l2tp, tunnel_closed) stays one flow for each tunnel.",
            ),
    )
}
