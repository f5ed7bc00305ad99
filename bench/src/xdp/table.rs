//! In: the figures of every row. Out: a table for people, or JSON for programs.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use sensor::Calls;
use serde::Serialize;

use super::Setting;

/// What a row came to.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) nanoseconds: f64,
    pub(super) ratio: f64,
    pub(super) target: Option<f64>,
    /// Packets that were fed, all runs together.
    pub(super) packets: u64,
    /// Those of them that were not found again; negative if more were found.
    pub(super) unaccounted: i64,
    /// Those that were found in coarse totals only.
    pub(super) folded: u64,
    pub(super) epochs: u64,
}

#[derive(Serialize)]
struct Document {
    rows: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    ns: f64,
    ratio: f64,
    packets: u64,
    unaccounted: i64,
}

pub(super) fn json(figures: &[Figure]) -> Result<String> {
    let rounded = |value: f64, parts: f64| (value * parts).round() / parts;
    let rows = figures
        .iter()
        .map(|figure| Line {
            name: figure.name,
            ns: rounded(figure.nanoseconds, 100.0),
            ratio: rounded(figure.ratio, 1000.0),
            packets: figure.packets,
            unaccounted: figure.unaccounted,
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&Document { rows })
        .context("cannot write the figures as JSON")?;
    text.push('\n');
    Ok(text)
}

pub(super) fn text(
    setting: Setting,
    runs: u32,
    figures: &[Figure],
    calls: &[(&str, Calls)],
) -> String {
    let mut text = String::new();
    head(&mut text, setting, runs);
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0).max(3);
    line(
        &mut text,
        format_args!(
            "{:<width$}  {:>7}  {:>6}  {:>14}  {:>13}  {:>11}  {:>12}  {:>6}",
            "row", "ns", "ratio", "target", "packets", "unaccounted", "folded", "epochs",
        ),
    );
    for figure in figures {
        line(
            &mut text,
            format_args!(
                "{:<width$}  {:>7.1}  {:>6.2}  {:>14}  {:>13}  {:>11}  {:>12}  {:>6}",
                figure.name,
                figure.nanoseconds,
                figure.ratio,
                target(figure.target, figure.ratio),
                grouped(figure.packets),
                figure.unaccounted,
                grouped(figure.folded),
                figure.epochs,
            ),
        );
    }
    line(
        &mut text,
        format_args!("\nPlaces where a helper call is left in the translated programs:"),
    );
    for (program, Calls { helpers, local }) in calls {
        let mut names: Vec<_> = helpers.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let names = if names.is_empty() { "on no path".to_owned() } else { names.join(", ") };
        let local = match local {
            0 => String::new(),
            more => format!("; calls of its own functions: {more}"),
        };
        line(&mut text, format_args!("  {program:<17} {}, {names}{local}", helpers.len()));
    }
    // All of a program's paths together: none there is none on the plain one. The precise clock is read in a function
    // apart, for a SYN that begins a slot.
    if let Some((_, Calls { helpers, .. })) = calls.iter().find(|(name, _)| *name == "count_drop") {
        let count = helpers.iter().filter(|helper| *helper != "bpf_ktime_get_ns").count();
        let verdict = if count == 0 { "met" } else { "missed" };
        line(&mut text, format_args!("On the plain hit path: {count} (target 0 {verdict})"));
    }
    text
}

fn head(text: &mut String, setting: Setting, runs: u32) {
    let Setting { cpus, packets, epoch, sizes } = setting;
    if cpus.shared() {
        line(
            text,
            format_args!(
                "One CPU only ({}): the reader takes turns with the frames, so times hold both.",
                cpus.feeder
            ),
        );
    } else {
        line(
            text,
            format_args!("Frames on CPU {}, the reader on CPU {}.", cpus.feeder, cpus.reader),
        );
    }
    line(
        text,
        format_args!(
            "{runs} runs of {} packets a row, medians; ratios to XDP_DROP within the same run.",
            grouped(u64::from(packets)),
        ),
    );
    line(
        text,
        format_args!(
            "Epochs of {} ms, less when the log fills; {} slots in the cache, {} in the log.\n",
            epoch.as_millis(),
            grouped(u64::from(sizes.sets) * 2),
            grouped(u64::from(sizes.log_slots)),
        ),
    );
}

fn target(target: Option<f64>, ratio: f64) -> String {
    match target {
        Some(most) if ratio <= most => format!("<= {most:.1} met"),
        Some(most) => format!("<= {most:.1} missed"),
        None => String::new(),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
    text.push('\n');
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
