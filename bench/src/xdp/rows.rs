//! The rows of the table: what each is called, what it measures, and what is asked of it.

use super::frames::Around;

/// Every packet is a flow of its own.
pub(super) const EACH_ITS_OWN: u32 = 0;

/// Which program a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Design {
    /// `XDP_DROP` and nothing else.
    Drop,
    /// Chooses a flow, and drops: what that costs in the rows with many flows.
    Choose,
    /// The parser alone.
    Parse,
    /// The object that the sensor carries.
    Product,
    /// The same sources, with a flow chosen for each packet.
    ProductOnFlows,
    /// The same where copies are removed and no packet is one.
    Deduplicate,
    /// The object that the sensor carries where copies are removed; three packets of four are copies.
    DeduplicateCopies,
    /// An LRU hash table.
    Lru,
    /// A ring buffer.
    Ring,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) design: Design,
    pub(super) around: Around,
    /// How many flows; [`EACH_ITS_OWN`] for no two alike.
    pub(super) flows: u32,
    /// Largest ratio to `XDP_DROP` that is asked for.
    pub(super) target: Option<f64>,
}

const fn row(name: &'static str, design: Design) -> Row {
    Row { name, design, around: Around::Plain, flows: 1, target: None }
}

const fn on_flows(name: &'static str, flows: u32, target: Option<f64>) -> Row {
    Row { flows, target, ..row(name, Design::ProductOnFlows) }
}

const fn within(name: &'static str, around: Around, target: Option<f64>) -> Row {
    Row { around, target, ..row(name, Design::Product) }
}

const fn deduplicate(name: &'static str, flows: u32) -> Row {
    Row { flows, around: Around::Identified, ..row(name, Design::Deduplicate) }
}

/// Of a plain frame whose flow is in the cache.
const HIT: Option<f64> = Some(1.4);
const HIT_IPV6: Option<f64> = Some(1.6);
/// Of a frame with one layer around its packet.
const HIT_WITHIN: Option<f64> = Some(2.2);
const NEW: Option<f64> = Some(3.3);

/// Every row, in the order of the table.
pub(super) const ROWS: &[Row] = &[
    row("drop", Design::Drop),
    row("choose", Design::Choose),
    row("parse", Design::Parse),
    within("hit 1", Around::Plain, HIT),
    on_flows("hit 1k", 1_000, HIT),
    on_flows("hit 8k", 8_000, None),
    on_flows("flows 40k", 40_000, None),
    on_flows("flows 1M", 1_000_000, None),
    within("hit ipv6 1", Around::Ipv6, HIT_IPV6),
    Row { around: Around::Ipv6, ..on_flows("hit ipv6 1k", 1_000, HIT_IPV6) },
    within("hit vlan", Around::Vlan, HIT_WITHIN),
    within("hit qinq", Around::Qinq, None),
    within("hit vxlan", Around::Vxlan, HIT_WITHIN),
    within("hit geneve", Around::Geneve, None),
    within("hit gre", Around::Gre, HIT_WITHIN),
    within("hit erspan", Around::Erspan, None),
    within("hit mpls", Around::Mpls, None),
    within("hit pppoe", Around::Pppoe, None),
    within("hit ipip", Around::IpIp, None),
    within("hit 6in4", Around::SixInFour, None),
    within("hit gtp-u", Around::Gtp, None),
    on_flows("new every packet", EACH_ITS_OWN, NEW),
    Row { around: Around::Syn, ..on_flows("new every syn", EACH_ITS_OWN, None) },
    deduplicate("deduplicate 1", 1),
    deduplicate("deduplicate 1k", 1_000),
    deduplicate("deduplicate new", EACH_ITS_OWN),
    Row { around: Around::Identified, ..row("deduplicate copies", Design::DeduplicateCopies) },
    row("lru hit 1", Design::Lru),
    Row { flows: 1_000, ..row("lru hit 1k", Design::Lru) },
    Row { flows: 1_000_000, ..row("lru 1M", Design::Lru) },
    row("ring", Design::Ring),
];
