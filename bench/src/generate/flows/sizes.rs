//! In: packets, flows, and how the packets are spread. Out: which flow a packet belongs to, and how many a flow has.
//! Every flow has at least one. Keeps eight bytes a flow.

use clap::ValueEnum;

/// Entries of the index into the flows; one covers a few flows where there are a million.
const INDEX_BITS: u32 = 16;

/// How the packets are spread over the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Spread {
    /// Few flows have most packets: one each, and the rest by Zipf's law, the n-th flow having 1/n of the first.
    Zipf,
    /// Each flow has as many as any other.
    Even,
    /// Each packet is a flow of its own.
    One,
}

/// How many packets each flow has. The packets stand in a row, flow after flow.
#[derive(Clone, Debug)]
pub(super) enum Sizes {
    /// Equal ones, but for one packet more here and there.
    Even { packets: u64, flows: u64 },
    /// Any.
    Table(Table),
}

#[derive(Clone, Debug)]
pub(super) struct Table {
    /// For each flow, where its packets end.
    ends: Vec<u32>,
    /// For each 2^shift-th packet, its flow.
    index: Vec<u32>,
    shift: u32,
}

impl Sizes {
    /// There are at least as many packets as flows, and one flow.
    pub(super) fn new(spread: Spread, packets: u32, flows: u32) -> Self {
        match spread {
            Spread::Zipf => Self::Table(Table::new(zipf(packets, flows), packets)),
            Spread::Even | Spread::One => {
                Self::Even { packets: packets.into(), flows: flows.into() }
            }
        }
    }

    /// The flow of the packet at this position.
    pub(super) fn flow(&self, position: u32) -> u32 {
        match self {
            // The first one whose end is behind the position.
            Self::Even { packets, flows } => {
                narrow(((u64::from(position) + 1) * flows).div_ceil(*packets) - 1)
            }
            Self::Table(table) => table.flow(position),
        }
    }

    /// How many packets a flow has.
    pub(super) fn packets(&self, flow: u32) -> u32 {
        match self {
            Self::Even { packets, flows } => {
                let flow = u64::from(flow);
                narrow((flow + 1) * packets / flows - flow * packets / flows)
            }
            Self::Table(Table { ends, .. }) => {
                let flow = flow as usize;
                let start = flow.checked_sub(1).map_or(0, |before| ends[before]);
                ends[flow] - start
            }
        }
    }
}

impl Table {
    fn new(ends: Vec<u32>, packets: u32) -> Self {
        let shift = (u32::BITS - packets.leading_zeros()).saturating_sub(INDEX_BITS);
        let mut index = Vec::new();
        let mut flow = 0_u32;
        for position in (0..packets).step_by(1 << shift) {
            while ends.get(flow as usize).is_some_and(|end| *end <= position) {
                flow += 1;
            }
            index.push(flow);
        }
        index.push(narrow(ends.len() as u64 - 1));
        Self { ends, index, shift }
    }

    fn flow(&self, position: u32) -> u32 {
        let entry = (position >> self.shift) as usize;
        let (first, last) = (self.index[entry], self.index[entry + 1]);
        let candidates = &self.ends[first as usize..=last as usize];
        let after = candidates.partition_point(|end| *end <= position);
        first + narrow(after as u64)
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("there are fewer than 2^32 packets, and no more flows")
}

/// Only sums, quotients and rounding, which every machine does alike.
fn zipf(packets: u32, flows: u32) -> Vec<u32> {
    let weight = |flow: u32| 1.0 / (f64::from(flow) + 1.0);
    let total: f64 = (0..flows).map(weight).sum();
    let rest = f64::from(packets - flows);
    let mut sum = 0.0;
    let end = |flow: u32| {
        sum += weight(flow);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of the packets, which are fewer than 2^32"
        )]
        let share = (rest * sum / total).round() as u32;
        flow + 1 + share
    };
    (0..flows).map(end).collect()
}
