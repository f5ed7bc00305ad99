//! The member's side of the demo's privacy: what the sensor keeps at home and hides, and the way back that only the
//! sensor's own machine has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Demo;
use super::summary::{Found, Scoped};
use crate::shell;

/// The member's networks. Its page server is public; the office behind it is nobody's business.
pub(super) const MEMBER: &str = r#"# Made by the demo.
[privacy]
own_prefixes = ["10.20.0.0/24", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7",
    "fe80::/10"]
public_servers = ["10.20.0.10"]
"#;

/// A capture of somebody's: whose networks are in it is not known, and all of it is to be looked at.
pub(super) const CAPTURE: &str = "# Made by the demo.\n[privacy]\ninternal_traffic = \"send\"\n";

/// The sensor's configuration in the demo's folder.
pub(super) const CONFIG_NAME: &str = "sensor.toml";

/// What `reveal --json` prints of an address.
#[derive(Deserialize)]
struct Revealed {
    address: Option<String>,
}

/// Writes the sensor's configuration.
pub(super) fn configure(demo: &Demo<'_>, config: &str) -> Result<PathBuf> {
    let path = demo.data.join(CONFIG_NAME);
    std::fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The findings as the member sees them, with the keys in its sensor's state folder.
pub(super) fn reveal(state: &Path, findings: Vec<Scoped>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for Scoped { finding, key_epoch } in findings {
        let Some(epoch) = key_epoch else {
            found.push(finding);
            continue;
        };
        let whose = |address: Option<String>| -> Result<Option<String>> {
            let Some(address) = address else { return Ok(None) };
            Ok(Some(address_of(state, epoch, &address)?.unwrap_or(address)))
        };
        let (source, target) = (whose(finding.source)?, whose(finding.target)?);
        found.push(Found { source, target, ..finding });
    }
    found.sort();
    Ok(found)
}

/// What a pseudonym stands for; `None` for an address that is none.
fn address_of(state: &Path, epoch: u32, address: &str) -> Result<Option<String>> {
    let mut reveal = Command::new(shell::binary("spanwatch-sensor"));
    reveal.args(["reveal", address, "--json", "--epoch", &epoch.to_string(), "--state-dir"]);
    // It exits with 1 where there is nothing to reveal, and says so in what it prints.
    let printed = reveal.arg(state).output().context("cannot run `reveal`")?;
    let revealed: Revealed = serde_json::from_slice(&printed.stdout).with_context(|| {
        let told = String::from_utf8_lossy(&printed.stderr);
        format!("`reveal {address}` printed something else: {}", told.trim())
    })?;
    Ok(revealed.address)
}
