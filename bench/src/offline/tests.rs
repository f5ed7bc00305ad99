use std::time::Duration;

use super::captures::Shape;
use super::measure::Usage;
use super::programs::Program;
use super::report::Counted;
use super::table::{Row, json};
use super::targets::judged;
use super::{Contest, median};

fn usage(seconds: u64) -> Usage {
    let elapsed = Duration::from_secs(seconds);
    Usage { elapsed, cpu: elapsed / 2, rss_bytes: 1_000_000 * seconds }
}

fn row(shape: Shape, program: Program, elapsed_s: f64) -> Row {
    Row {
        name: format!("{} {}", shape.name(), program.name()),
        shape,
        program,
        command: "typed".to_owned(),
        packets: 5_000_000,
        flows: 1_000_000,
        runs: 5,
        elapsed_s,
        cpu_s: elapsed_s / 2.0,
        rss_bytes: 240e6,
        ratio_to_cat: Some(elapsed_s / 0.1),
        counted: Some(Counted { packets: 5_000_000, flows: Some(1_000_000) }),
    }
}

#[test]
fn figures_are_medians() {
    let usages = [usage(9), usage(1), usage(4)];
    assert!((median(&usages, |usage| usage.elapsed.as_secs_f64()) - 4.0).abs() < 1e-9);
    assert!(median(&[], |_none| 0.0).is_nan());
}

#[test]
fn the_slow_run_less_often() {
    let contest = |usages: &[u64]| Contest {
        program: Program::Pmacctd,
        usages: usages.iter().copied().map(usage).collect(),
        counted: None,
    };
    for (usages, is_enough) in [
        (&[][..], false),
        (&[1, 1, 1], false),
        (&[12, 9], false),
        (&[9, 8, 8], true),
        (&[70], true),
    ] {
        assert_eq!(contest(usages).is_enough(), is_enough, "{usages:?}");
    }
}

#[test]
fn rates_of_a_program_that_sleeps_are_by_its_cpu_time() {
    let rates = [Program::Pmacctd, Program::Softflowd]
        .map(|program| row(Shape::Mix, program, 10.0).packets_per_s());
    assert!((rates[0] - 1e6).abs() < 1.0 && (rates[1] - 5e5).abs() < 1.0, "{rates:?}");
}

#[test]
fn targets_are_judged_where_there_are_rows() {
    let mut lone = row(Shape::Lone, Program::Null, 0.1);
    (lone.rss_bytes, lone.flows) = (19e6, 1);
    let rows = [
        row(Shape::Mix, Program::Null, 0.4),
        row(Shape::Mix, Program::Softflowd, 4.0),
        row(Shape::Mix, Program::Argus, 40.0),
        Row {
            counted: Some(Counted { packets: 4_000_000, flows: None }),
            ..row(Shape::Mix, Program::Pmacctd, 1.0)
        },
        row(Shape::Few, Program::Null, 0.3),
        row(Shape::Open, Program::Null, 0.3),
        row(Shape::Open, Program::Json, 0.5),
        lone,
    ];
    let text: Vec<_> = judged(&rows).iter().map(ToString::to_string).collect();
    let text: Vec<_> =
        text.iter().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let text: Vec<_> = text.iter().map(|words| words.join(" ")).collect();
    assert_eq!(
        text,
        [
            "mix replay, million packets/s >= 12 12.50 met",
            "few replay, million packets/s >= 20 16.67 MISSED",
            "mix replay, times the fastest peer (softflowd) >= 8 10.00 met",
            "few replay, times the time of cat <= 2 3.00 MISSED",
            "open replay, JSON, million flows/s >= 1 2.00 met",
            "resident memory of an open flow, bytes <= 220 221 MISSED",
        ]
    );
    assert!(judged(&rows[1..2]).is_empty());
}

#[test]
fn json_has_rows_and_targets() {
    let rows = [row(Shape::Mix, Program::Cat, 0.1)];
    let document: serde_json::Value =
        serde_json::from_str(&json(&rows, &[]).expect("rows are JSON")).expect("JSON");
    assert_eq!(document["rows"][0]["packets_per_s"], 50_000_000.0);
    assert_eq!(document["rows"][0]["packets_counted"], 5_000_000);
    assert_eq!(document["targets"].as_array().map(Vec::len), Some(0));
}
