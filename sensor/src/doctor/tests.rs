//! The report as text, and its parts.

use expect_test::expect;

use super::finding::{counted, number, percent};
use super::render::wrap;
use super::{Finding, Report, Severity, Traffic};
use crate::capture::{InterfaceFacts, MachineFacts};

#[test]
fn numbers_are_made_to_be_read() {
    let read = [0, 999, 1000, 1_234_567].map(number);
    assert_eq!(read, ["0", "999", "1,000", "1,234,567"]);
    assert_eq!(
        (counted(1, "frame"), counted(2000, "frame")),
        ("1 frame".into(), "2,000 frames".into())
    );
    let shares = [(0, 5), (1, 3), (1, 5000), (4999, 5000), (5, 5), (0, 0)];
    let shares = shares.map(|(part, whole)| percent(part, whole));
    assert_eq!(shares, ["0.0 %", "33.3 %", "under 0.1 %", "99.9 %", "100.0 %", "0.0 %"]);
}

#[test]
fn words_are_wrapped_and_never_cut() {
    assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
    assert_eq!(wrap("a-word-that-is-too-long b", 4), ["a-word-that-is-too-long", "b"]);
    assert_eq!(wrap("", 4), [""; 0]);
}

fn report() -> Report {
    let findings = vec![
        Finding::fine("interface_down", "span0 is up."),
        Finding::unknown("ring_size", "The driver does not tell."),
        Finding::new("gro", Severity::Warning, "GRO is on.")
            .evidence("gro on")
            .command("ethtool -K span0 gro off"),
        Finding::new("duplicates", Severity::Fault, "The mirror sends packets twice.")
            .evidence("2,000 of 4,000 packets (50.0 %)")
            .why(
                "Every count is too high, and what is longer than one line is wrapped where a \
                  word ends.",
            )
            .advice("Mirror one direction.")
            .command("show monitor session all"),
    ];
    Report {
        mode: Some("native"),
        interface: Some(InterfaceFacts {
            driver: Some("ice".into()),
            mtu: Some(9000),
            ..InterfaceFacts::default()
        }),
        machine: Some(MachineFacts { kernel: "6.1".into(), ..MachineFacts::default() }),
        traffic: Some(Traffic {
            duration_ms: Some(10_040),
            frames: 1_234_567,
            ..Traffic::default()
        }),
        ..Report::new("span0".into(), findings)
    }
}

#[test]
fn the_worst_comes_first_and_commands_are_whole_lines() {
    let expected = expect![[r"
        span0: 1 fault (duplicates), 1 warning; 1 could not be judged
        driver ice, native XDP, MTU 9,000, kernel 6.1
        1,234,567 frames, 0 bytes in 10.0 s, 0 TCP conversations

        FAULT      The mirror sends packets twice. [duplicates]
                   seen  2,000 of 4,000 packets (50.0 %)
                   why   Every count is too high, and what is longer than one line is wrapped where a
                         word ends.
                   mend  Mirror one direction.
                         show monitor session all

        WARNING    GRO is on. [gro]
                   seen  gro on
                   mend  ethtool -K span0 gro off

        unknown    ring_size        The driver does not tell.
        fine       interface_down   span0 is up.
    "]];
    expected.assert_eq(&report().text(false));
}

#[test]
fn colours_change_no_words() {
    let coloured = report().text(true);
    assert!(coloured.contains("\x1b[1;31mFAULT"), "{coloured:?}");
    let mut plain = String::new();
    for part in coloured.split('\x1b') {
        plain.push_str(
            part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |(_, text)| text),
        );
    }
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&plain), trimmed(&report().text(false)));
}

#[test]
fn the_verdict_counts_what_matters() {
    let verdict = |severities: &[Severity]| {
        let findings = severities.iter().map(|severity| Finding::new("x", *severity, "x"));
        Report::new("x".into(), findings.collect()).verdict
    };
    assert_eq!(verdict(&[Severity::Fine, Severity::Note]), "nothing is wrong");
    assert_eq!(verdict(&[Severity::Warning, Severity::Warning]), "no fault, 2 warnings");
    assert_eq!(
        verdict(&[Severity::Fault, Severity::Unknown]),
        "1 fault (x); 1 could not be judged"
    );
}
