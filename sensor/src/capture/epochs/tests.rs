//! The parts of a drain that need no kernel.

use flow::Slot;
use flow::kernel::Set;

use super::{TAG_AGE_MAX, TableSizes, cursor_of, visit_written};

fn written(generation: u32) -> Slot {
    let bytes_generation = 60 << 16 | u64::from(generation & 0xffff);
    Slot { bytes_generation, packets: 1, ..Slot::default() }
}

#[test]
fn only_slots_of_the_generation_are_given() {
    let mut sets = [Set([written(4), written(6)]), Set([written(6), written(2)])];
    let mut seen = 0;
    visit_written(6, &mut sets, |slot| {
        assert_eq!(slot.generation(), 6);
        seen += 1;
    });
    assert_eq!(seen, 2);
}

#[test]
fn a_slot_is_never_given_again_however_often_the_tags_come_round() {
    for start in [2_u32, 65_534, u32::MAX - 1001] {
        let mut sets = [Set([written(start), Slot::default()])];
        let mut seen = 0;
        // Each half is scanned at every other generation.
        for flip in 0..200_000_u32 {
            let generation = start.wrapping_add(flip * 2);
            visit_written(generation, &mut sets, |slot| seen += u32::from(slot.packets > 0));
        }
        assert_eq!(seen, 1, "written in generation {start}");
    }
    assert!(TAG_AGE_MAX.is_power_of_two());
}

#[test]
fn a_log_counts_only_for_the_generation_that_wrote_it() {
    let cursor = (7_u64 << 32) + 40;
    assert_eq!(cursor_of(cursor, 7, 64), 40);
    assert_eq!(cursor_of(cursor, 9, 64), 0);
    assert_eq!(cursor_of(cursor, 7, 32), 32, "never beyond the table");
    assert_eq!(cursor_of(0, 0, 64), 0);
}

#[test]
fn sizes_that_the_kernel_side_cannot_index_are_refused() {
    TableSizes::default().check().expect("the default is allowed");
    for sets in [0, 3, 1 << 17] {
        let error = TableSizes { sets, log_slots: 64 }.check().expect_err("not allowed");
        assert!(error.to_string().contains(&format!("is {sets}")), "{error}");
    }
    for log_slots in [0, 1_048_577] {
        let error = TableSizes { sets: 64, log_slots }.check().expect_err("not allowed");
        assert!(error.to_string().contains(&format!("is {log_slots}")), "{error}");
    }
}
