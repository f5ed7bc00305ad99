//! Takes what packets add to flows, on one thread; spreads it over aggregators on threads of their own, by
//! flow, and gives their records back. All shards end an epoch before any begins the next one, so that the
//! records are those of a single aggregator.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Select, Sender, bounded};
use flow::{Observation, Record};

use super::pin;
use crate::aggregate::{
    Aggregator, AggregatorSettings, AggregatorTotals, FlowTable, Identities, Identity,
};
use crate::config::Cpu;

/// Observations handed over at once: enough that waking the other thread is nothing beside them.
const PORTION: usize = 1_024;
/// Portions on their way to a shard.
const PORTIONS_MAX: usize = 8;
/// Records handed back at once.
const RECORDS: usize = 512;
/// Record portions on their way back from a shard.
const ANSWERS_MAX: usize = 8;

/// What a shard is told.
enum Order {
    Handle(Portion),
    Advance {
        one_way: bool,
        now_ms: u64,
    },
    /// To learn from all flows which directions the mirror shows, before they end.
    TakeEvidence,
    Finish {
        one_way: bool,
    },
}

/// Observations and their identities, as many of both.
#[derive(Default)]
struct Portion {
    seen: Vec<Observation>,
    identities: Vec<Identity>,
}

/// What a shard tells.
enum Answer {
    /// Some records, and the space of a portion to be used again.
    Records(Vec<Record>),
    /// It has done what it was told up to an end of an epoch.
    Settled { totals: AggregatorTotals, flows_open: usize },
}

struct Shard {
    orders: Option<Sender<Order>>,
    answers: Receiver<Answer>,
    /// Emptied portions and records, to be used again.
    spare_portions: Receiver<Portion>,
    spare_records: Sender<Vec<Record>>,
    portion: Portion,
    totals: AggregatorTotals,
    flows_open: usize,
    thread: Option<JoinHandle<()>>,
}

/// Aggregators on threads of their own.
pub(super) struct Shards {
    shards: Vec<Shard>,
}

impl Shards {
    /// One shard for each of `cpus`, kept on it. Each holds its part of `flows_open_max`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        settings: AggregatorSettings,
        identities: &Identities,
        cpus: &[Cpu],
    ) -> io::Result<Self> {
        let count = u32::try_from(cpus.len()).unwrap_or(u32::MAX).max(1);
        let flows_open_max = settings.flows_open_max.div_ceil(count);
        let settings = AggregatorSettings { flows_open_max, ..settings };
        let start = |(number, cpu): (usize, &Cpu)| {
            let aggregator = Aggregator::with_identities(settings, identities.clone());
            Shard::start(aggregator, number, *cpu)
        };
        Ok(Self { shards: cpus.iter().enumerate().map(start).collect::<io::Result<_>>()? })
    }

    /// Whether the mirror shows one direction only.
    fn one_way(&self) -> bool {
        let totals = self.totals();
        totals.directions.is_one_way(totals.one_way)
    }

    /// Tells all shards to end something, and waits until they have.
    fn settle(&mut self, order: impl Fn() -> Order, emit: &mut dyn FnMut(Record)) {
        for shard in &mut self.shards {
            shard.hand_over(emit);
            shard.tell(order(), emit);
        }
        for shard in &mut self.shards {
            shard.wait(emit);
        }
    }
}

impl FlowTable for Shards {
    fn handle_identified(
        &mut self,
        seen: &[Observation],
        identities: &[Identity],
        emit: &mut dyn FnMut(Record),
    ) {
        let count = self.shards.len() as u64;
        for (seen, identity) in seen.iter().zip(identities) {
            // The table within a shard goes by the upper bits of the hash.
            let lower = u64::from(identity.hash() & 0xffff);
            let shard = &mut self.shards[usize::try_from((lower * count) >> 16).unwrap_or(0)];
            shard.portion.seen.push(*seen);
            shard.portion.identities.push(*identity);
            if shard.portion.seen.len() == PORTION {
                shard.hand_over(emit);
            }
        }
    }

    fn advance(&mut self, now_ms: u64, emit: &mut dyn FnMut(Record)) {
        // As a single table would: by what all have learnt up to the epoch before.
        let one_way = self.one_way();
        self.settle(|| Order::Advance { one_way, now_ms }, emit);
    }

    fn finish(&mut self, emit: &mut dyn FnMut(Record)) {
        self.settle(|| Order::TakeEvidence, emit);
        let one_way = self.one_way();
        self.settle(|| Order::Finish { one_way }, emit);
    }

    fn totals(&self) -> AggregatorTotals {
        self.shards.iter().fold(AggregatorTotals::default(), |sum, shard| sum.plus(&shard.totals))
    }

    fn flows_open(&self) -> usize {
        self.shards.iter().map(|shard| shard.flows_open).sum()
    }
}

impl Shard {
    fn start(aggregator: Aggregator, number: usize, cpu: Cpu) -> io::Result<Self> {
        let (orders, ordered) = bounded(PORTIONS_MAX);
        let (answering, answers) = bounded(ANSWERS_MAX);
        let (emptied_portions, spare_portions) = bounded(PORTIONS_MAX);
        let (spare_records, emptied_records) = bounded(ANSWERS_MAX);
        let mut worker = Worker {
            aggregator,
            answers: answering,
            emptied_portions,
            spare_records: emptied_records,
            records: Vec::with_capacity(RECORDS),
        };
        let thread = thread::Builder::new().name(format!("shard {number}")).spawn(move || {
            pin(Some(cpu), "shard's");
            worker.run(&ordered);
        })?;
        Ok(Self {
            orders: Some(orders),
            answers,
            spare_portions,
            spare_records,
            portion: Portion::default(),
            totals: AggregatorTotals::default(),
            flows_open: 0,
            thread: Some(thread),
        })
    }

    /// Hands the collected observations to the thread.
    fn hand_over(&mut self, emit: &mut dyn FnMut(Record)) {
        if self.portion.seen.is_empty() {
            return;
        }
        let next = self.spare_portions.try_recv().unwrap_or_default();
        let portion = std::mem::replace(&mut self.portion, next);
        self.tell(Order::Handle(portion), emit);
    }

    /// Gives an order. A shard that is busy gives records meanwhile: were they left, both sides would
    /// wait for each other.
    fn tell(&mut self, order: Order, emit: &mut dyn FnMut(Record)) {
        loop {
            let orders = self.orders.as_ref().expect("orders end only when this is dropped");
            let mut either = Select::new();
            let room = either.send(orders);
            either.recv(&self.answers);
            let ready = either.select();
            if ready.index() == room {
                match ready.send(orders, order) {
                    Ok(()) => return,
                    Err(_ended) => self.fail(),
                }
            }
            match ready.recv(&self.answers) {
                Ok(answer) => {
                    self.take(answer, emit);
                }
                Err(_ended) => self.fail(),
            }
        }
    }

    /// Waits until it has settled.
    fn wait(&mut self, emit: &mut dyn FnMut(Record)) {
        loop {
            match self.answers.recv() {
                Ok(answer) => {
                    if self.take(answer, emit) {
                        return;
                    }
                }
                Err(_ended) => self.fail(),
            }
        }
    }

    /// Says whether it has settled.
    fn take(&mut self, answer: Answer, emit: &mut dyn FnMut(Record)) -> bool {
        match answer {
            Answer::Records(mut records) => {
                records.drain(..).for_each(emit);
                let _enough_spares = self.spare_records.try_send(records);
                false
            }
            Answer::Settled { totals, flows_open } => {
                (self.totals, self.flows_open) = (totals, flows_open);
                true
            }
        }
    }

    /// The thread has ended by a fault of its own, and with it what it held: that cannot be mended here,
    /// and must not look as if nothing had happened.
    fn fail(&mut self) -> ! {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => unreachable!("a shard ends only after its orders have ended, or by a panic"),
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.orders = None;
        // It may be waiting to give what nobody wants any more.
        for _unwanted in &self.answers {}
        if let Some(thread) = self.thread.take() {
            let _already_told = thread.join();
        }
    }
}

/// The thread's side.
struct Worker {
    aggregator: Aggregator,
    answers: Sender<Answer>,
    emptied_portions: Sender<Portion>,
    spare_records: Receiver<Vec<Record>>,
    records: Vec<Record>,
}

impl Worker {
    fn run(&mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Handle(mut portion) => {
                    self.act(|aggregator, emit| {
                        aggregator.handle_identified(&portion.seen, &portion.identities, emit);
                    });
                    portion.seen.clear();
                    portion.identities.clear();
                    let _enough_spares = self.emptied_portions.try_send(portion);
                }
                Order::Advance { one_way, now_ms } => {
                    self.act(|aggregator, emit| aggregator.advance_as(one_way, now_ms, emit));
                    self.settled();
                }
                Order::TakeEvidence => {
                    self.aggregator.take_all_evidence();
                    self.settled();
                }
                Order::Finish { one_way } => {
                    self.act(|aggregator, emit| aggregator.finish_as(one_way, emit));
                    self.settled();
                }
            }
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Aggregator, &mut dyn FnMut(Record))) {
        let Self { aggregator, answers, spare_records, records, .. } = self;
        act(aggregator, &mut |record| {
            records.push(record);
            if records.len() == RECORDS {
                let spare = spare_records.try_recv();
                let spare = spare.unwrap_or_else(|_none| Vec::with_capacity(RECORDS));
                let _nobody_listens =
                    answers.send(Answer::Records(std::mem::replace(records, spare)));
            }
        });
    }

    fn settled(&mut self) {
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            let _nobody_listens = self.answers.send(Answer::Records(records));
            self.records = self.spare_records.try_recv().unwrap_or_default();
        }
        let totals = self.aggregator.totals();
        let flows_open = self.aggregator.flows_open();
        let _nobody_listens = self.answers.send(Answer::Settled { totals, flows_open });
    }
}
