//! The wheel against a list that is searched through.

use proptest::prelude::*;

use super::{Ticket, Wheel};

const START_MS: u64 = 1_780_000_000_000;

/// Everything that is due, in the order in which it is given.
fn due(wheel: &mut Wheel, before_ms: u64, now_ms: u64) -> Vec<Ticket> {
    let mut given = Vec::new();
    for list in Wheel::due(before_ms, now_ms) {
        let mut rest = wheel.take(list);
        while let Some(block) = wheel.next_block(&mut rest) {
            given.extend_from_slice(block.tickets());
        }
    }
    given
}

proptest! {
    /// No ticket is lost, none is given twice, none comes more than a tick late; and at most a tick early,
    /// unless it lies further ahead than the wheel reaches.
    #[test]
    fn each_ticket_comes_back_once_in_time(
        steps in prop::collection::vec((prop::collection::vec(0_u64..300_000, 0..200), 1_u64..60_000), 1..20),
    ) {
        const TICK_MS: u64 = 256;
        const REACH_MS: u64 = 1_023 * TICK_MS;
        let mut wheel = Wheel::new();
        let mut now_ms = START_MS;
        let mut waiting: Vec<(u32, u64, u64)> = Vec::new();
        let mut place = 0;
        for (delays, step_ms) in steps {
            for delay_ms in delays {
                wheel.file(Ticket { place, number: 7 }, now_ms + delay_ms, now_ms);
                waiting.push((place, now_ms + delay_ms, now_ms));
                place += 1;
            }
            let before_ms = now_ms;
            now_ms += step_ms;
            for ticket in due(&mut wheel, before_ms, now_ms) {
                let at = waiting.iter().position(|(place, ..)| *place == ticket.place);
                let (_, due_ms, filed_ms) = waiting.remove(at.expect("each comes back once"));
                let reached_ms = due_ms.min(filed_ms + REACH_MS - TICK_MS);
                prop_assert!(now_ms + TICK_MS >= reached_ms, "{now_ms} for {due_ms}");
            }
            prop_assert_eq!(wheel.len(), waiting.len());
            let late = waiting.iter().find(|(_, due_ms, _)| due_ms + TICK_MS < now_ms);
            prop_assert_eq!(late, None);
        }
        while let Some((ticket, _)) = wheel.pop_earliest(now_ms) {
            let at = waiting.iter().position(|(place, ..)| *place == ticket.place);
            waiting.remove(at.expect("each comes back once"));
        }
        prop_assert!(waiting.is_empty());
        prop_assert_eq!(wheel.len(), 0);
    }
}

#[test]
fn what_is_invalid_is_thrown_out_and_its_room_used_again() {
    let mut wheel = Wheel::new();
    for round in 0..100_u32 {
        for place in 0..1_000 {
            wheel.file(
                Ticket { place, number: round },
                START_MS + u64::from(place) * 100,
                START_MS,
            );
        }
        wheel.retain(|ticket| ticket.number == round);
        assert_eq!(wheel.len(), 1_000);
    }
    // 1,000 tickets over 391 lists, twice while they were filed again.
    assert!(wheel.blocks.len() < 2_000, "{} blocks", wheel.blocks.len());
    let (earliest, _) = wheel.pop_earliest(START_MS).expect("1,000 tickets wait");
    assert_eq!(earliest, Ticket { place: 0, number: 99 });
}
