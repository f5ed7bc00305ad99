//! What TCP conversations tell: both directions, equal tags, nothing missing that the receiver has acknowledged.

use super::super::finding::{Finding, Severity, counted, number, percent};
use super::super::thresholds::{
    LOSS_FAULT, LOSS_HOLES_MIN, LOSS_WARNING, ONE_DIRECTION_FAULT, ONE_DIRECTION_WARNING,
    SAMPLE_MIN, TAGS_FAULT, permille,
};
use super::super::traffic::{Tcp, Traffic};
use crate::capture::InterfaceFacts;

pub(super) fn check(traffic: &Traffic) -> Vec<Finding> {
    let tcp = &traffic.tcp;
    let mut findings = vec![directions(tcp), loss(tcp), tags(tcp)];
    if tcp.packets_unplaced > 0 {
        findings.push(
            Finding::new(
                "not_inspected",
                Severity::Note,
                "Not every TCP conversation was inspected: there are more than fit.",
            )
            .evidence(format!(
                "{} in {} that began meanwhile, and in some that were under way; {} were inspected",
                counted(tcp.packets_unplaced, "packet"),
                counted(tcp.conversations_unplaced, "conversation"),
                number(tcp.conversations)
            ))
            .why("What is said about conversations rests on those that were."),
        );
    }
    findings
}

fn example(tcp: &Tcp, what: &str) -> String {
    tcp.examples.get(what).map_or_else(String::new, |example| format!("; for example {example}"))
}

fn directions(tcp: &Tcp) -> Finding {
    const CHECK: &str = "one_direction";
    let proven = tcp.one_direction + tcp.both_directions;
    if proven == 0 {
        return Finding::unknown(CHECK, "No TCP conversation under way to tell directions by.");
    }
    let share = permille(tcp.one_direction, proven);
    let evidence = format!(
        "{} of {} show one direction only, which answers packets that never came by{}",
        number(tcp.one_direction),
        counted(proven, "TCP conversation"),
        example(tcp, "one_direction")
    );
    let is_small = proven < SAMPLE_MIN;
    match share {
        ONE_DIRECTION_FAULT.. if !is_small => Finding::new(
            CHECK,
            Severity::Fault,
            "The mirror shows one direction of the traffic only.",
        )
        .evidence(evidence)
        .why(
            "Nothing tells an answered connection from a refused one: scans, floods and \
             password guessing look the same as normal use.",
        )
        .advice(
            "On the switch: mirror both directions of the source port (`monitor session 1 \
             source interface X both`). With an optical tap: connect both its fibres, each to a \
             port of the sensor, and name both.",
        ),
        ONE_DIRECTION_WARNING.. => {
            let what = if is_small {
                "Few conversations were seen, some of them in one direction only."
            } else {
                "Part of the conversations shows one direction only."
            };
            Finding::new(CHECK, Severity::Warning, what)
                .evidence(evidence)
                .why(
                    "Answers that take another way (a second uplink, asymmetric routing) are \
                     not seen: such connections look unanswered.",
                )
                .advice(
                    "Mirror the other uplink too, to this port or to a second port of the \
                     sensor.",
                )
        }
        _ => Finding::fine(
            CHECK,
            format!(
                "Both directions arrive: {} of {}.",
                percent(tcp.both_directions, proven),
                counted(proven, "TCP conversation")
            ),
        ),
    }
}

fn loss(tcp: &Tcp) -> Finding {
    const CHECK: &str = "loss_upstream";
    if tcp.judged == 0 || tcp.payload_bytes + tcp.lost_bytes == 0 {
        return Finding::unknown(
            CHECK,
            "Loss on the way to the sensor cannot be told: no TCP conversation with both \
             directions in order.",
        );
    }
    let whole = tcp.payload_bytes + tcp.lost_bytes;
    let evidence = format!(
        "{} of {} bytes ({}) were acknowledged by their receiver and never seen, in {} (about {})",
        number(tcp.lost_bytes),
        number(whole),
        percent(tcp.lost_bytes, whole),
        counted(tcp.lost_gaps, "hole"),
        counted(tcp.lost_segments, "segment")
    );
    let finding = |severity, what| {
        Finding::new(CHECK, severity, what)
            .evidence(format!("{evidence}{}", example(tcp, "loss")))
            .why(
                "The frames passed the mirrored link and were lost before the sensor: in the \
                 mirror itself, in the cable, or in this card. No counter of the sensor can \
                 show them.",
            )
            .advice(
                "On the switch: compare the load of the source (both directions add up) with \
                 the speed of the mirror port; mirror fewer ports, or to a faster one.",
            )
            .advice(
                "Look at the output drops of the mirror's destination port on the switch, and \
                 at the card's own counters below.",
            )
    };
    let share = permille(tcp.lost_bytes, whole);
    if tcp.lost_bytes == 0 {
        return Finding::fine(
            CHECK,
            format!(
                "Nothing is missing that a receiver has acknowledged ({} in {}).",
                counted(tcp.payload_bytes, "byte"),
                counted(tcp.judged, "conversation")
            ),
        );
    }
    if tcp.lost_gaps < LOSS_HOLES_MIN {
        return finding(Severity::Note, "A few segments were lost on the way to the sensor.");
    }
    match share {
        LOSS_FAULT.. => finding(Severity::Fault, "Frames are lost on the way to the sensor."),
        LOSS_WARNING.. => {
            finding(Severity::Warning, "Some frames are lost on the way to the sensor.")
        }
        _ => finding(Severity::Note, "A few segments were lost on the way to the sensor."),
    }
}

fn tags(tcp: &Tcp) -> Finding {
    const CHECK: &str = "vlan_asymmetric";
    if tcp.both_directions == 0 {
        return Finding::unknown(
            CHECK,
            "No conversation with both directions to compare VLAN tags by.",
        );
    }
    if tcp.tags_differ == 0 {
        return Finding::fine(CHECK, "Both directions of a conversation carry the same VLAN tags.");
    }
    let share = permille(tcp.tags_differ, tcp.both_directions);
    let severity = if share >= TAGS_FAULT { Severity::Fault } else { Severity::Warning };
    let is_one_side = tcp.tags_one_side * 2 > tcp.tags_differ;
    let what = if is_one_side {
        "One direction of the conversations has a VLAN tag, the other none."
    } else {
        "The directions of conversations carry different VLAN tags."
    };
    let finding = Finding::new(CHECK, severity, what)
        .evidence(format!(
            "{} of {} seen in both directions ({}){}",
            number(tcp.tags_differ),
            counted(tcp.both_directions, "conversation"),
            percent(tcp.tags_differ, tcp.both_directions),
            example(tcp, "tags_differ")
        ))
        .why(
            "VLANs keep equal addresses of different networks apart, so each such conversation \
             becomes two flows of one direction each.",
        );
    if is_one_side {
        finding.advice(
            "On the switch: let the mirror keep or drop the tags of both directions alike \
             (`encapsulation replicate` on the destination, or a trunk as the source).",
        )
    } else {
        finding.advice(
            "The traffic is routed between VLANs: mirror one side of the router, where both \
             directions are in the same VLAN.",
        )
    }
}

/// Short segments arrive and long ones do not: a limit of length on the way.
pub(super) fn long_segments(traffic: &Traffic, facts: Option<&InterfaceFacts>) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    let tcp = &traffic.tcp;
    let mtu = facts.and_then(|facts| facts.mtu);
    if tcp.only_short > 0 {
        let finding = Finding::new(
            CHECK,
            Severity::Fault,
            "Long frames do not arrive, short ones do.",
        )
        .evidence(format!(
            "{} of which every long segment is missing; the longest frame seen has {} bytes{}",
            counted(tcp.only_short, "direction"),
            number(traffic.frame_bytes_max),
            mtu.map_or_else(String::new, |mtu| format!(", the MTU is {}", number(mtu.into())))
        ))
        .why(
            "The mirrored network sends jumbo frames, or the mirror adds a header, and the card \
             throws away what is longer than its MTU allows.",
        );
        return vec![match facts {
            Some(facts) => finding
                .command(format!("ip link set dev {} mtu 9216", facts.name))
                .advice("If the driver refuses so large an MTU, take the largest that it names:")
                .command(format!(
                    "ip -details link show dev {} | grep -o 'maxmtu [0-9]*'",
                    facts.name
                )),
            None => finding.advice(
                "Raise the MTU of the interface that captured, and of the mirror's tunnel.",
            ),
        }];
    }
    if traffic.frames_jumbo > 0 {
        let what = format!(
            "Jumbo frames arrive: {}, the longest of {} bytes.",
            number(traffic.frames_jumbo),
            number(traffic.frame_bytes_max)
        );
        return vec![Finding::fine(CHECK, what)];
    }
    let Some(mtu) = mtu else { return Vec::new() };
    vec![Finding::fine(
        CHECK,
        format!("No sign of frames longer than the MTU ({} bytes).", number(mtu.into())),
    )]
}
