//! What the page says, and what it must never say.

mod samples;

use detect::{Finding, Kind, Severity, TrafficDirection};

use super::{Coverage, Interval, Period, RenderError, ReportInput, render};
use samples::{DAY_MS, HOUR_MS, MONDAY_MS, busy, down, finding, quiet};

fn page(input: &ReportInput) -> String {
    render(input).expect("the sample's period is valid")
}

/// The page's text without its markup, as a reader gets it.
fn text(page: &str) -> String {
    let body = page.split_once("</style>").map_or(page, |(_, body)| body);
    let mut text = String::new();
    let mut is_markup = false;
    for letter in body.chars() {
        match letter {
            '<' => is_markup = true,
            '>' => {
                is_markup = false;
                text.push(' ');
            }
            _ if !is_markup => text.push(letter),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_busy_week_says_what_to_do() {
    let text = text(&page(&busy()));
    for expected in [
        "Weekly report Harbourside Joinery &#38; Sons 16 November 2026 to 22 November 2026",
        "In the 162 hours that were observed, we saw 5 attacks and suspicious events; 3 need your attention: one \
         case of SYN flood, one case of password guessing and one case of regular calls to the outside.",
        "One of these began inside your own network. The rest is of the kind that every address on the Internet gets.",
        "Check the login records of the targets of password guessing",
        "162 of 168 hours were observed (96 %), by 1 sensor.",
        "18 Nov 2026, 22:00 – 19 Nov 2026, 04:00 (6 h)",
        "1,204 (&#60; 0.1 %)",
        "flood.syn v1 · ATT&amp;CK T1498.001",
        "3,687 half-open connections/s Threshold 200 (window: 10 s)",
        "203.0.113.77 may be forged",
        "3 fewer",
        "443 TCP Web (HTTPS) 37,841 37,650 answered 120 times",
        "902,114 flow records in 1,007 signed batches, 14 MB in all",
        "198.51.100.5 own client, pseudonym of key epoch 20261101 of harbourside-joinery-01 41 19 0",
        "12,345 records of traffic within your own network and 1 record of traffic with networks that you trust were \
         kept at your site.",
        "as pseudonyms, of key epoch 20261101 of sensor harbourside-joinery-01.",
        "Cyber Protect officer",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}

#[test]
fn a_quiet_month_says_that_it_was_observed() {
    let text = text(&page(&quiet()));
    for expected in [
        "In the 720 hours that were observed, no sign of an attack was found.",
        "Nothing is pressing.",
        "No rule was met in the observed time.",
        "100 % of the period observed",
        "Packets lost by the network card not known",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}

#[test]
fn a_sensor_that_was_down_never_means_no_attacks() {
    let text = text(&page(&down()));
    for expected in [
        "Nothing was observed in this period",
        "this is not the same as “no attacks”",
        "– need your attention not observed, so not known",
        "0 % of the period observed",
        "Check that the sensor is switched on",
        "Nothing came from the sensor in this period.",
        "Not observed.",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    for false_comfort in [
        "0 need",
        "0 attacks",
        "No rule was met",
        "No source stands out",
        "no sign of an attack",
        "None",
    ] {
        assert!(!text.contains(false_comfort), "{false_comfort:?} is in {text}");
    }
}

#[test]
fn a_sensor_that_was_never_enrolled_is_named() {
    let coverage = Coverage::default();
    let text = text(&page(&ReportInput { coverage, ..down() }));
    assert!(text.contains("No sensor is enrolled for this site"), "{text}");
    assert!(text.contains("No sensor is enrolled for your site yet."), "{text}");
}

#[test]
fn half_a_week_says_so_on_the_first_page() {
    let mut input = quiet();
    input.coverage.observed = vec![
        Interval { from_ms: 0, to_ms: MONDAY_MS },
        Interval { from_ms: MONDAY_MS + 15 * DAY_MS, to_ms: u64::MAX },
    ];
    let text = text(&page(&input));
    assert!(text.contains("The other 15 days of the period were not observed"), "{text}");
    assert!(text.contains("15 days of the period were not observed. "), "{text}");
}

#[test]
fn a_few_minutes_are_told_as_minutes() {
    let mut input = quiet();
    let from_ms = input.period.from_ms + HOUR_MS;
    input.coverage.observed = vec![Interval { from_ms, to_ms: from_ms + 476_024 }];
    let text = text(&page(&input));
    for expected in [
        "In the 7 min 56 s that were observed, no sign of an attack was found.",
        "&#60; 0.1 % of the period observed 7 min 56 s of 720 hours",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}

#[test]
fn everything_is_escaped() {
    let mut input = busy();
    let hostile = r#"<script>alert("x")</script>"#;
    input.member_name = hostile.to_owned();
    input.force = Some(hostile.to_owned());
    input.report_id = hostile.to_owned();
    input.version = hostile.to_owned();
    input.coverage.own_prefixes = vec![hostile.to_owned()];
    for finding in &mut input.findings {
        finding.summary = hostile.to_owned();
        finding.rule = hostile.to_owned().into();
        finding.technique = hostile.to_owned().into();
        finding.measured_unit = hostile.to_owned().into();
        finding.measured = f64::NAN;
    }
    let page = page(&input);
    assert!(!page.contains("<script") && !page.contains("alert(\"x"));
    assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    for input in [busy(), quiet(), down()] {
        let page = page(&input);
        for outside in
            ["http:", "https:", "//", "src=", "href=", "@import", "<script", "<img", "<link"]
        {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

#[test]
fn a_flood_of_findings_stays_short() {
    let mut input = busy();
    input.findings = (0..=255)
        .map(|number| finding(number, Kind::VerticalScan, Severity::Low, "a scan"))
        .chain([finding(3, Kind::Beacon, Severity::Medium, "a caller")])
        .collect();
    let page = page(&input);
    assert_eq!(page.matches("<article").count(), 20);
    assert!(page.len() < 80_000, "{}", page.len());
    let text = text(&page);
    assert!(text.contains("237 more, none of them more severe"), "{text}");
    // The worst is first, whatever the order of the input.
    let caller = text.find("A caller.");
    assert!(caller.is_some() && caller < text.find("A scan."), "{text}");
}

#[test]
fn severities_of_scans_from_inside_reach_the_front_page() {
    let inside = Finding {
        direction: TrafficDirection::Internal,
        ..finding(4, Kind::HorizontalScan, Severity::High, "10.0.0.9 tried port 445 of 300 hosts")
    };
    let text = text(&page(&ReportInput { findings: vec![inside], ..busy() }));
    assert!(
        text.contains("we saw 1 attack or suspicious event; it needs your attention"),
        "{text}"
    );
    assert!(
        text.contains("Treat the machine that swept the network from inside as infected"),
        "{text}"
    );
    assert!(text.contains("within your network"), "{text}");
}

#[test]
fn a_period_that_ends_before_it_begins_is_an_error() {
    for (from_ms, to_ms) in [(MONDAY_MS, MONDAY_MS), (MONDAY_MS + 1, MONDAY_MS)] {
        let period = Period { from_ms, to_ms, ..busy().period };
        let error = render(&ReportInput { period, ..busy() }).expect_err("no time at all");
        assert!(matches!(error, RenderError::Period { .. }), "{error}");
    }
}

#[test]
fn short_and_long_periods_have_a_readable_number_of_bars() {
    for hours in [1, 7, 24, 24 * 7, 24 * 31, 24 * 365] {
        let mut input = busy();
        input.period.to_ms = MONDAY_MS + hours * HOUR_MS;
        input.findings = vec![finding(0, Kind::VerticalScan, Severity::Low, "a scan")];
        let page = page(&input);
        let spark =
            page.split_once("class=\"spark\"").and_then(|(_, rest)| rest.split_once("</svg>"));
        let bars = spark.map_or(0, |(spark, _)| spark.matches("<rect").count());
        assert!((7..=72).contains(&bars), "{hours} h: {bars}");
    }
}
