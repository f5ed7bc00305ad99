//! Facts and counts made by hand, and what is found in them. What a veth pair can show is tested on one.

use super::super::finding::{Finding, Remedy, Severity};
use super::super::traffic::{Tcp, Traffic};
use super::{NotRun, Port, file, port};
use crate::capture::{
    AttachMode, Channels, InterfaceFacts, Interrupt, MachineFacts, NicStatistics, Offloads, Rings,
    Spread, XdpAttached,
};

/// A good card in a good machine, on a mirror without a fault.
struct Case {
    facts: InterfaceFacts,
    machine: MachineFacts,
    mode: Option<AttachMode>,
    not_run: Option<NotRun>,
    traffic: Option<Traffic>,
    nic: NicStatistics,
}

impl Case {
    fn new() -> Self {
        let facts = InterfaceFacts {
            name: "span0".into(),
            driver: Some("ice".into()),
            up: true,
            carrier: Some(true),
            mtu: Some(9000),
            promiscuous: Some(true),
            offloads: Some(Offloads {
                gro: Some(true),
                lro: Some(false),
                gro_hw: Some(false),
                rx_vlan: Some(false),
                rx_checksum: Some(true),
            }),
            rings: Some(Rings { rx: 512, rx_max: 4096 }),
            channels: Some(Channels { rx: 4, rx_max: 64, word: "combined" }),
            spread: Spread { queues: Some(4), tcp_ports: Some(true) },
            interrupts: (0..4)
                .map(|number| Interrupt { number, cpus: number.to_string() })
                .collect(),
            ..InterfaceFacts::default()
        };
        let tcp = Tcp {
            packets: 90_000,
            conversations: 1000,
            both_directions: 900,
            judged: 900,
            payload_bytes: 10_000_000,
            ..Tcp::default()
        };
        let traffic = Traffic {
            duration_ms: Some(10_000),
            frames: 100_000,
            frames_group: 100,
            packets_ip: 99_000,
            comparable: 95_000,
            frames_by_cpu: (0..4).map(|cpu| (cpu, 25_000)).collect(),
            tcp,
            ..Traffic::default()
        };
        Self {
            facts,
            machine: MachineFacts {
                kernel: "6.1".into(),
                cpus: Some(4),
                cache_bytes: Some(32 << 20),
            },
            mode: Some(AttachMode::Native),
            not_run: None,
            traffic: Some(traffic),
            nic: NicStatistics { received: Some(100_000), missed: Some(0), unclear: Some(0) },
        }
    }

    fn traffic(&mut self) -> &mut Traffic {
        self.traffic.get_or_insert_default()
    }

    fn findings(&self) -> Vec<Finding> {
        port(&Port {
            facts: &self.facts,
            machine: &self.machine,
            mode: self.mode,
            not_run: self.not_run.as_ref(),
            traffic: self.traffic.as_ref(),
            nic: self.nic,
        })
    }

    /// What is neither fine nor a note nor unknown.
    fn wrong(&self) -> Vec<(&'static str, Severity)> {
        let findings = self.findings().into_iter();
        let findings = findings.map(|finding| (finding.check, finding.severity));
        findings.filter(|(_, severity)| *severity <= Severity::Warning).collect()
    }

    fn commands(&self, check: &str) -> Vec<String> {
        let finding = self.findings().into_iter().find(|finding| finding.check == check);
        let remedies = finding.expect("it is found").remedies.into_iter();
        let command = |remedy| match remedy {
            Remedy::Command(command) => Some(command),
            Remedy::Advice(_) => None,
        };
        remedies.filter_map(command).collect()
    }
}

#[test]
fn a_good_port_has_nothing_wrong_and_nothing_unknown() {
    let case = Case::new();
    assert_eq!(case.wrong(), []);
    let unknown = case.findings().into_iter().filter(|one| one.severity == Severity::Unknown);
    assert_eq!(unknown.map(|one| one.check).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn what_a_driver_does_not_tell_is_unknown() {
    let mut case = Case::new();
    case.facts = InterfaceFacts {
        name: "span0".into(),
        up: true,
        promiscuous: Some(true),
        ..InterfaceFacts::default()
    };
    case.machine = MachineFacts::default();
    case.nic = NicStatistics::default();
    assert_eq!(case.wrong(), []);
    let unknown = case.findings().into_iter().filter(|one| one.severity == Severity::Unknown);
    let unknown: Vec<_> = unknown.map(|one| one.check).collect();
    assert_eq!(
        unknown,
        ["interface_down", "loss_in_card", "offloads", "queues", "irq_pinning", "ring_size"]
    );
}

#[test]
fn rings_that_the_cache_does_not_hold_get_a_size_that_it_does() {
    let mut case = Case::new();
    case.facts.rings = Some(Rings { rx: 4096, rx_max: 8192 });
    assert_eq!(case.wrong(), [("ring_size", Severity::Warning)]);
    // Half of 32 MiB, four rings, a page each.
    assert_eq!(case.commands("ring_size"), ["ethtool -G span0 rx 1024"]);
    // Not while frames are lost for want of room.
    case.nic.missed = Some(5000);
    assert_eq!(case.commands("ring_size"), [""; 0]);
    assert_eq!(
        case.commands("loss_in_card"),
        ["ethtool -G span0 rx 8192"],
        "every CPU has its queue already"
    );
}

#[test]
fn frames_that_the_card_loses_ask_for_queues_and_room() {
    let mut case = Case::new();
    case.nic.missed = Some(30);
    assert_eq!(case.wrong(), [("loss_in_card", Severity::Warning)], "under one in a thousand");
    case.nic.missed = Some(3000);
    case.facts.channels = Some(Channels { rx: 2, rx_max: 64, word: "combined" });
    case.facts.spread.queues = Some(2);
    assert_eq!(case.wrong(), [("loss_in_card", Severity::Fault), ("queues", Severity::Warning)]);
    assert_eq!(
        case.commands("loss_in_card"),
        ["ethtool -L span0 combined 4", "ethtool -G span0 rx 1024"]
    );
    case.nic.missed = None;
    case.nic.unclear = Some(7);
    assert_eq!(case.wrong(), [("queues", Severity::Warning)], "unknown is no fault");
}

#[test]
fn queues_interrupts_and_cpus_have_to_fit() {
    let mut case = Case::new();
    case.facts.spread.queues = Some(1);
    assert_eq!(case.wrong(), [("queues", Severity::Warning)]);
    assert_eq!(case.commands("queues"), ["ethtool -X span0 equal 4"]);

    let mut case = Case::new();
    case.traffic().frames_by_cpu = [(0, 99_000), (1, 1000)].into();
    assert_eq!(case.wrong(), [("cpu_balance", Severity::Warning)]);

    let mut case = Case::new();
    case.facts.interrupts = [7, 9].map(|number| Interrupt { number, cpus: "0-3".into() }).into();
    assert_eq!(case.wrong(), [("irq_pinning", Severity::Warning)]);
    let commands = case.commands("irq_pinning");
    assert!(
        commands.contains(&"echo 1 > /proc/irq/9/smp_affinity_list".to_owned()),
        "{commands:?}"
    );

    let mut case = Case::new();
    case.traffic().tcp.scattered = 500;
    assert_eq!(case.wrong(), [("flow_split", Severity::Warning)]);
}

#[test]
fn merging_in_the_card_is_a_fault_in_any_mode() {
    for (lro, gro_hw, check) in [(true, false, "lro"), (false, true, "gro_hw")] {
        let mut case = Case::new();
        let offloads = case.facts.offloads.get_or_insert_default();
        (offloads.lro, offloads.gro_hw) = (Some(lro), Some(gro_hw));
        assert_eq!(case.wrong(), [(check, Severity::Fault)]);
    }
}

#[test]
fn loss_has_degrees() {
    let mut case = Case::new();
    let degrees = [(50, 3, None), (5_000, 100, None), (50_000, 100, Some(Severity::Warning))];
    for (lost_bytes, lost_gaps, severity) in degrees {
        let tcp = &mut case.traffic().tcp;
        (tcp.lost_bytes, tcp.lost_gaps) = (lost_bytes, lost_gaps);
        let expected: Vec<_> =
            severity.map(|severity| ("loss_upstream", severity)).into_iter().collect();
        assert_eq!(case.wrong(), expected, "{lost_bytes} bytes in {lost_gaps} holes");
    }
    case.traffic().tcp.lost_bytes = 500_000;
    assert_eq!(case.wrong(), [("loss_upstream", Severity::Fault)]);
}

#[test]
fn copies_and_directions_have_degrees() {
    let mut case = Case::new();
    case.traffic().copies = 3;
    assert_eq!(case.wrong(), []);
    case.traffic().copies = 5000;
    assert_eq!(case.wrong(), [("duplicates", Severity::Warning)]);
    case.traffic().copies = 40_000;
    case.traffic().copies_other_ttl = 39_000;
    assert_eq!(case.wrong(), [("duplicates", Severity::Fault)]);

    let mut case = Case::new();
    case.traffic().tcp.one_direction = 300;
    assert_eq!(case.wrong(), [("one_direction", Severity::Warning)]);
    let tcp = &mut case.traffic().tcp;
    (tcp.one_direction, tcp.both_directions) = (3, 0);
    assert_eq!(
        case.wrong(),
        [("one_direction", Severity::Warning)],
        "three are too few for a fault"
    );
}

#[test]
fn what_is_in_the_way_is_said_and_the_rest_is_unknown() {
    let mut case = Case::new();
    (case.mode, case.traffic) = (None, None);
    case.not_run = Some(NotRun::Occupied);
    case.facts.xdp = Some(XdpAttached { mode: "generic", program: Some(17) });
    assert_eq!(case.wrong(), [("xdp_attached", Severity::Warning)]);
    assert_eq!(case.commands("xdp_attached"), ["ip link set dev span0 xdpgeneric off"]);

    case.not_run =
        Some(NotRun::Kernel("this kernel is 4.19, and the sensor needs at least 5.9".into()));
    assert_eq!(case.wrong(), [("kernel", Severity::Fault)]);
    case.not_run = Some(NotRun::Refused("no".into()));
    assert_eq!(case.wrong(), [("kernel", Severity::Fault)]);

    case.not_run = Some(NotRun::Down);
    case.facts.carrier = Some(false);
    assert_eq!(case.wrong(), [("interface_down", Severity::Fault)]);
}

#[test]
fn an_empty_capture_and_one_of_tunnels_only_are_no_fault() {
    let wrong = |traffic: &Traffic| {
        file(traffic).into_iter().filter(|one| one.severity <= Severity::Warning).count()
    };
    assert_eq!(wrong(&Traffic::default()), 0);
    let tunnels = Traffic {
        frames: 5000,
        packets_ip: 5000,
        encapsulated: [("gre", 4000), ("esp", 1000)].into(),
        ..Traffic::default()
    };
    assert_eq!(wrong(&tunnels), 0);
    let note = file(&tunnels).into_iter().find(|one| one.check == "encapsulation");
    assert_eq!(note.expect("tunnels are told").evidence, "esp 1,000 (20.0 %), gre 4,000 (80.0 %)");
}
