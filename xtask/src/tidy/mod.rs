//! Rules of the house that no compiler checks. In: the tracked files. Out: every breach, with file and line.

mod dependencies;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// One breach of a rule.
struct Breach {
    place: String,
    what: String,
}

impl Breach {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// Checks every rule and reports all breaches at once.
pub(crate) fn run() -> Result<()> {
    let root = shell::workspace();
    let files = tracked_files(&root)?;
    let mut breaches = sources::check(&root, &files)?;
    breaches.extend(dependencies::check(&root)?);
    for Breach { place, what } in &breaches {
        crate::say(format_args!("{place}: {what}"));
    }
    if !breaches.is_empty() {
        bail!("{} breaches of the house rules (docs/style.md)", breaches.len());
    }
    Ok(())
}

/// Files that git tracks or would track, relative to the root.
fn tracked_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut list = Command::new("git");
    list.current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let names = shell::read(&mut list).context("the list of files comes from git")?;
    Ok(names.lines().map(PathBuf::from).filter(|file| root.join(file).is_file()).collect())
}

#[cfg(test)]
mod tests;
