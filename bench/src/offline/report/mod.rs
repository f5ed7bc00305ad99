//! In: what a program has written or said. Out: how many packets it counted, and in how many flows.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What a program says that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) packets: u64,
    /// In its own sense, which for some is flows of one direction; `None` where it knows no flows.
    pub(super) flows: Option<u64>,
}

pub(super) fn capinfos(log: &Path) -> Result<Counted> {
    let packets = number_after(&fs::read_to_string(log)?, "Number of packets:")?;
    Ok(Counted { packets, flows: None })
}

/// The sensor's summary: packets in its records, and the records.
pub(super) fn summary(file: &Path) -> Result<Counted> {
    let summary: Value = serde_json::from_slice(&fs::read(file)?).context("the summary")?;
    let number = |name: &str| {
        summary[name].as_u64().with_context(|| format!("the summary has no number `{name}`"))
    };
    Ok(Counted { packets: number("packets_in_records")?, flows: Some(number("records_out")?) })
}

pub(super) fn softflowd(log: &Path) -> Result<Counted> {
    let text = fs::read_to_string(log)?;
    let packets = number_after(&text, "Packets processed:")?;
    Ok(Counted { packets, flows: Some(number_after(&text, "Flows expired:")?) })
}

/// What nfdump finds in the files that nfpcapd has written.
pub(super) fn nfdump(folder: &Path) -> Result<Counted> {
    let text = read(Command::new("nfdump").arg("-I").arg("-R").arg(folder))?;
    Ok(Counted {
        packets: number_after(&text, "\nPackets:")?,
        flows: Some(number_after(&text, "\nFlows:")?),
    })
}

/// What racount finds in argus' file.
pub(super) fn racount(file: &Path) -> Result<Counted> {
    let text = read(Command::new("racount").arg("-r").arg(file))?;
    let sums = text.lines().find_map(|line| line.trim_start().strip_prefix("sum"));
    let sums: Vec<&str> = sums.context("racount gives no sum")?.split_whitespace().collect();
    let number = |at: usize| {
        let text = sums.get(at).context("racount gives too few numbers")?;
        text.parse().with_context(|| format!("racount gives `{text}`"))
    };
    Ok(Counted { packets: number(1)?, flows: Some(number(0)?) })
}

/// Lines of flows, packets in the last column but one.
pub(super) fn pmacctd(file: &Path) -> Result<Counted> {
    let mut counted = Counted { packets: 0, flows: None };
    let mut flows = 0;
    let lines = BufReader::new(fs::File::open(file).context("pmacctd wrote nothing")?).lines();
    for line in lines {
        let line = line?;
        // The names of the columns come again whenever the file is written on.
        if line.is_empty() || line.starts_with("SRC_IP") {
            continue;
        }
        let packets = line.rsplit(',').nth(1).and_then(|text| text.parse::<u64>().ok());
        counted.packets += packets.with_context(|| format!("pmacctd wrote `{line}`"))?;
        flows += 1;
    }
    counted.flows = Some(flows);
    Ok(counted)
}

fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} writes no text"))
}

/// The number that follows these words; thousands may be set apart by commas.
fn number_after(text: &str, words: &str) -> Result<u64> {
    let (_, rest) = text.split_once(words).with_context(|| format!("no `{words}` in\n{text}"))?;
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit() && c != ',').next();
    let digits: String = digits.unwrap_or_default().split(',').collect();
    digits.parse().with_context(|| format!("no number behind `{words}`"))
}

#[cfg(test)]
mod tests;
