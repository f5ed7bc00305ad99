//! Do rings, queues, interrupts and CPUs fit together?

use super::super::finding::{Finding, Severity, counted, number, percent};
use super::super::thresholds::{
    BUFFER_BYTES, BUSIEST_CPU_WARNING, CACHE_SHARE, RING_MIN, SAMPLE_MIN, SCATTERED_WARNING,
    permille,
};
use super::Port;

/// Interrupts whose commands are written out; the rest follows the same pattern.
const COMMANDS_MAX: usize = 8;

pub(super) fn check(port: &Port<'_>) -> Vec<Finding> {
    vec![scattered(port), queues(port), balance(port), pinning(port), ring(port)]
}

fn scattered(port: &Port<'_>) -> Finding {
    const CHECK: &str = "flow_split";
    let name = &port.facts.name;
    let Some(tcp) = port.traffic.map(|traffic| &traffic.tcp).filter(|tcp| tcp.conversations > 0)
    else {
        return Finding::unknown(CHECK, "No TCP conversation to tell the spreading of flows by.");
    };
    let share = permille(tcp.scattered, tcp.conversations);
    if share >= SCATTERED_WARNING {
        return Finding::new(
            CHECK,
            Severity::Warning,
            "Frames of one flow arrive on several CPUs.",
        )
        .evidence(format!(
            "{} of {}{}",
            number(tcp.scattered),
            counted(tcp.conversations, "conversation"),
            tcp.examples
                .get("scattered")
                .map_or_else(String::new, |one| format!("; for example {one}"))
        ))
        .why(
            "Each CPU keeps such a flow in its own cache, the order of its packets is lost, and \
             loss on the way to the sensor cannot be judged.",
        )
        .command(format!("ethtool -N {name} rx-flow-hash tcp4 sdfn"))
        .command(format!("ethtool -N {name} rx-flow-hash tcp6 sdfn"))
        .advice("If interrupts are moved about (irqbalance), pin them; see `irq_pinning`.");
    }
    let mut what = "Frames of one flow arrive on one CPU.".to_owned();
    if tcp.directions_apart > 0 {
        // Harmless here: user space joins the directions.
        what = format!(
            "Each direction of a flow arrives on one CPU ({} have them on two, which this \
             sensor joins).",
            percent(tcp.directions_apart, tcp.both_directions)
        );
    }
    Finding::fine(CHECK, what)
}

fn queues(port: &Port<'_>) -> Finding {
    const CHECK: &str = "queues";
    let name = &port.facts.name;
    let (Some(channels), Some(cpus)) = (port.facts.channels, port.machine.cpus) else {
        return Finding::unknown(CHECK, "The driver does not tell its receive queues.");
    };
    let wanted = channels.rx_max.min(cpus);
    if channels.rx < wanted {
        return Finding::new(CHECK, Severity::Warning, "There are fewer receive queues than CPUs.")
            .evidence(format!(
                "{}, the driver has up to {}; {} are online",
                counted(channels.rx.into(), "queue"),
                channels.rx_max,
                counted(cpus.into(), "CPU")
            ))
            .why("Each queue is taken by one CPU: the others cannot help under load.")
            .command(format!("ethtool -L {name} {} {wanted}", channels.word));
    }
    if let Some(used) = port.facts.spread.queues
        && used < channels.rx
    {
        return Finding::new(CHECK, Severity::Warning, "Some receive queues get no frames.")
            .evidence(format!("{used} of {} stand in the indirection table", channels.rx))
            .why("Flows are spread over some of the CPUs only.")
            .command(format!("ethtool -X {name} equal {}", channels.rx));
    }
    let what = format!(
        "{} for {}.",
        counted(channels.rx.into(), "receive queue"),
        counted(cpus.into(), "CPU")
    );
    Finding::fine(CHECK, what)
}

/// Whether the load is on one CPU although there are several queues.
fn balance(port: &Port<'_>) -> Finding {
    const CHECK: &str = "cpu_balance";
    let name = &port.facts.name;
    let Some(traffic) = port.traffic else {
        return Finding::unknown(CHECK, "Which CPUs take frames was not watched.");
    };
    let queues = port.facts.channels.map_or(0, |channels| channels.rx);
    let busiest = traffic.frames_by_cpu.iter().max_by_key(|(_, frames)| **frames);
    let Some((cpu, frames)) = busiest else {
        return Finding::unknown(CHECK, "No frame came that a CPU could have taken.");
    };
    let is_known = traffic.tcp.conversations >= SAMPLE_MIN && queues > 1;
    if is_known && permille(*frames, traffic.frames) >= BUSIEST_CPU_WARNING {
        return Finding::new(CHECK, Severity::Warning, "One CPU takes nearly every frame.")
            .evidence(format!(
                "CPU {cpu} took {} of {} ({}), with {}",
                number(*frames),
                number(traffic.frames),
                percent(*frames, traffic.frames),
                counted(queues.into(), "queue")
            ))
            .why(
                "The card spreads flows by a hash that does not reach inside what it receives \
                 (PPPoE, MPLS, tunnels), or all interrupts go to one CPU.",
            )
            .command(format!("ethtool -n {name} rx-flow-hash tcp4"))
            .command(format!("ethtool -x {name}"));
    }
    Finding::fine(
        CHECK,
        format!(
            "{} took frames, the busiest {}.",
            counted(traffic.frames_by_cpu.len() as u64, "CPU"),
            percent(*frames, traffic.frames)
        ),
    )
}

fn pinning(port: &Port<'_>) -> Finding {
    const CHECK: &str = "irq_pinning";
    let interrupts = &port.facts.interrupts;
    if interrupts.is_empty() {
        return Finding::unknown(CHECK, "The machine lists no interrupts of this interface.");
    }
    let free: Vec<_> =
        interrupts.iter().filter(|interrupt| interrupt.cpus.contains([',', '-'])).collect();
    if free.is_empty() {
        return Finding::fine(
            CHECK,
            format!("{} pinned to one CPU each.", counted(interrupts.len() as u64, "interrupt")),
        );
    }
    let mut finding = Finding::new(
        CHECK,
        Severity::Warning,
        "The card's interrupts are not pinned to CPUs.",
    )
    .evidence(format!(
        "{} of {} may move between CPUs",
        free.len(),
        counted(interrupts.len() as u64, "interrupt")
    ))
    .why(
        "When an interrupt moves, a flow changes its CPU and its cache; irqbalance does that \
         every ten seconds.",
    )
    .command("systemctl disable --now irqbalance");
    let cpus = port.machine.cpus.unwrap_or(1).max(1) as usize;
    for (index, interrupt) in interrupts.iter().enumerate().take(COMMANDS_MAX) {
        finding = finding.command(format!(
            "echo {} > /proc/irq/{}/smp_affinity_list",
            index % cpus,
            interrupt.number
        ));
    }
    if interrupts.len() > COMMANDS_MAX {
        finding = finding.advice("And so on for the others, one CPU each in turn.");
    }
    finding
}

fn ring(port: &Port<'_>) -> Finding {
    const CHECK: &str = "ring_size";
    let name = &port.facts.name;
    let (Some(rings), Some(cache)) = (port.facts.rings, port.machine.cache_bytes) else {
        return Finding::unknown(
            CHECK,
            "The driver or the machine does not tell ring and cache size.",
        );
    };
    let queues = u64::from(port.facts.channels.map_or(1, |channels| channels.rx.max(1)));
    let bytes = u64::from(rings.rx) * BUFFER_BYTES * queues;
    if bytes <= cache / CACHE_SHARE || u64::from(rings.rx) <= RING_MIN {
        return Finding::fine(
            CHECK,
            format!("Rings of {} descriptors fit into the cache.", number(rings.rx.into())),
        );
    }
    let fitting = (cache / CACHE_SHARE / BUFFER_BYTES / queues).max(RING_MIN);
    let wanted = 1_u64 << fitting.ilog2();
    let finding = Finding::new(
        CHECK,
        Severity::Warning,
        "The receive rings are larger than the cache likes.",
    )
    .evidence(format!(
        "{} of {} descriptors use {} MiB, the last-level cache has {} MiB",
        counted(queues, "ring"),
        number(rings.rx.into()),
        number(bytes >> 20),
        number(cache >> 20)
    ))
    .why("A frame that has left the cache again before its headers are read costs a third more.");
    if port.nic.missed.is_some_and(|missed| missed > 0) {
        return finding.advice(
            "The card is losing frames now, so do not make the rings smaller before that is \
             mended.",
        );
    }
    finding.command(format!("ethtool -G {name} rx {wanted}"))
}
