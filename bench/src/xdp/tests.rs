//! The arithmetic, and what is printed of it.

use std::time::Duration;

use sensor::{Calls, TableSizes};

use super::cpus::Cpus;
use super::rows::ROWS;
use super::table::{json, text};
use super::{Sample, Setting, chosen, figure, median, middle};

fn sample(nanoseconds: f64, ratio: f64, found: u64) -> Sample {
    Sample { nanoseconds, ratio, fed: 1_000_000, found, folded: 7, epochs: 3 }
}

#[test]
fn figures_are_medians_and_accounts_are_sums() {
    let row = &ROWS[3];
    let runs =
        [sample(50.0, 1.7, 1_000_000), sample(39.0, 1.3, 999_998), sample(40.0, 1.35, 1_000_001)];
    let figure = figure(row, &runs);
    assert!((figure.nanoseconds - 40.0).abs() < 1e-9 && (figure.ratio - 1.35).abs() < 1e-9);
    assert_eq!((figure.packets, figure.unaccounted, figure.folded), (3_000_000, 1, 21));
    assert!((median([1.0, 2.0].into_iter()) - 1.5).abs() < 1e-9);
    // A quarter at each end does not count.
    assert!((middle(vec![900, 30, 31, 1, 30, 31, 30, 30]) - 30.25).abs() < 1e-9);
}

#[test]
fn json_has_the_rows_and_nothing_else() {
    let runs = [sample(40.123, 1.3456, 999_999)];
    let text = json(&[figure(&ROWS[3], &runs)]).expect("plain data");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let expected = serde_json::json!({"rows": [{
        "name": "hit 1", "ns": 40.12, "ratio": 1.346, "packets": 1_000_000, "unaccounted": 1
    }]});
    assert_eq!(value, expected);
}

#[test]
fn the_table_says_what_was_met_and_what_was_not() {
    let figures = [
        figure(&ROWS[3], &[sample(40.0, 1.35, 1_000_000)]),
        figure(&ROWS[4], &[sample(45.0, 1.5, 1_000_000)]),
    ];
    let calls = [
        ("count_drop", Calls { helpers: vec!["bpf_ktime_get_ns".to_owned()], local: 1 }),
        ("count_drop_frags", Calls { helpers: vec!["bpf_xdp_get_buff_len".to_owned()], local: 0 }),
    ];
    let setting = Setting {
        cpus: Cpus { feeder: 0, reader: 0 },
        packets: 1_000_000,
        epoch: Duration::from_millis(50),
        sizes: TableSizes { sets: 8192, log_slots: 65_536 },
    };
    let text = text(setting, 1, &figures, &calls);
    assert!(text.starts_with("One CPU only (0)"), "{text}");
    let of =
        |name: &str| text.lines().find(|line| line.starts_with(name)).expect("a row").to_owned();
    assert!(of("hit 1 ").contains("<= 1.4 met"), "{text}");
    assert!(of("hit 1k").contains("<= 1.4 missed"), "{text}");
    assert!(text.contains("16,384 slots in the cache, 65,536 in the log"), "{text}");
    assert!(of("hit 1 ").contains("1,000,000"), "{text}");
    assert!(text.contains("bpf_xdp_get_buff_len"), "{text}");
    assert!(text.contains("plain hit path: 0 (target 0 met)"), "{text}");
}

#[test]
fn rows_are_chosen_by_name_and_an_unknown_one_is_told() {
    assert_eq!(chosen(&[]).expect("all").len(), ROWS.len());
    let one = chosen(&["new every packet".to_owned()]).expect("there is one");
    assert_eq!(one.len(), 1);
    let error = chosen(&["hit 2".to_owned()]).expect_err("there is none");
    assert!(
        error.to_string().contains("`hit 2`") && error.to_string().contains("hit 1k"),
        "{error}"
    );
    for (at, row) in ROWS.iter().enumerate() {
        assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{}", row.name);
    }
}
