//! What `tshark -z conv` says of a capture: its own sums, tunnels, streams and all.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::PREFERENCES;

/// A number of bytes as tshark prints it: all of it, or what is left after thousands were cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    from: u64,
    unit: u64,
}

impl Size {
    /// The smallest number that is printed so.
    #[must_use]
    pub const fn least(self) -> u64 {
        self.from
    }

    /// The largest.
    #[must_use]
    pub const fn most(self) -> u64 {
        self.from + self.unit - 1
    }

    fn parse(number: &str, unit: &str) -> Result<Self> {
        let unit = match unit {
            "bytes" | "byte" => 1,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            other => anyhow::bail!("tshark prints bytes in `{other}`"),
        };
        let number: String = number.split(',').collect();
        Ok(Self { from: number.parse::<u64>()? * unit, unit })
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Address and port of the one that tshark puts first.
    pub near: (IpAddr, u16),
    /// And of the other.
    pub far: (IpAddr, u16),
    /// Packets and bytes to the first.
    pub to_near: (u64, Size),
    /// Packets and bytes to the other.
    pub to_far: (u64, Size),
}

/// Conversations of a capture by transport protocol, as in `tcp` and `udp`.
///
/// # Errors
///
/// When tshark does not run, or prints them otherwise than in version 4.
pub fn conversations<const N: usize>(
    path: &Path,
    protocols: [&str; N],
) -> Result<[Vec<Conversation>; N]> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-q", "-r"]).arg(path);
    // Each packet for itself, as above.
    for preference in PREFERENCES {
        command.args(["-o", preference]);
    }
    for protocol in protocols {
        command.args(["-z", &format!("conv,{protocol}")]);
    }
    // A file that breaks off is an error to tshark, and what it has seen is printed.
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8(output.stdout).context("tshark writes text")?;
    let mut tables = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_suffix(" Conversations") {
            tables.push((title, Vec::new()));
        } else if line.contains(" <-> ") {
            let (_, table) = tables.last_mut().context("a table has a title")?;
            table.push(parse(line).with_context(|| format!("tshark prints `{line}`"))?);
        }
    }
    let mut sorted = protocols.map(|_| Vec::new());
    for (title, table) in tables {
        let wanted = protocols.iter().position(|name| title.eq_ignore_ascii_case(name));
        let at = wanted.with_context(|| format!("a table of {title} that nobody asked for"))?;
        sorted[at] = table;
    }
    Ok(sorted)
}

fn parse(line: &str) -> Result<Conversation> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().context("a word is missing");
    Ok(Conversation {
        near: end(word(0)?)?,
        far: end(word(2)?)?,
        to_near: (word(3)?.parse()?, Size::parse(word(4)?, word(5)?)?),
        to_far: (word(6)?.parse()?, Size::parse(word(7)?, word(8)?)?),
    })
}

fn end(text: &str) -> Result<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':').context("no port")?;
    Ok((address.parse()?, port.parse()?))
}
