//! The walls between the rooms: compares the dependency table in `ARCHITECTURE.md` with what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Breach;

const DOCUMENT: &str = "ARCHITECTURE.md";
/// The table's first cell.
const TABLE: &str = "| room |";
/// Crates that only one room may know, each with that room.
const ONE_ROOM: &[(&str, &str)] = &[
    ("aya", "sensor"),
    ("quinn", "uplink"),
    ("datafusion", "backend"),
    ("deltalake", "backend"),
    ("sqlx", "backend"),
];
/// Rooms that may import any other and are imported by none.
const OUTSIDE: &[&str] = &["bench", "tests", "xtask"];

/// Which of our rooms each room imports when it runs.
type Imports = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check(root: &Path) -> Result<Vec<Breach>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("asking cargo for the workspace's packages")?;
    let ours: BTreeSet<_> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let mut imports = Imports::new();
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let normal: BTreeSet<_> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
            .map(|dependency| dependency.name.clone())
            .collect();
        for (outside, room) in ONE_ROOM {
            if normal.contains(*outside) && name != *room && !OUTSIDE.contains(&name.as_str()) {
                breaches.push(Breach::new(
                    format!("{name}/Cargo.toml"),
                    format!("imports {outside}, which only {room} knows"),
                ));
            }
        }
        imports.insert(name, normal.intersection(&ours).cloned().collect());
    }
    let document = std::fs::read_to_string(root.join(DOCUMENT))
        .with_context(|| format!("{DOCUMENT} holds the dependency table"))?;
    breaches.extend(compare(&table(&document), &imports));
    Ok(breaches)
}

/// The table as written: room → the rooms it may import, from its first and third cell.
pub(super) fn table(document: &str) -> Imports {
    let rows = document.lines().skip_while(|line| !line.starts_with(TABLE)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.split('|').skip(1);
            let room = quoted(cells.next()?).into_iter().next()?;
            Some((room, quoted(cells.nth(1)?).into_iter().collect()))
        })
        .collect()
}

/// The words between back-ticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

pub(super) fn compare(written: &Imports, real: &Imports) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (room, imports) in real {
        if OUTSIDE.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = written.get(room) else {
            breaches.push(Breach::new(DOCUMENT, format!("the dependency table lacks `{room}`")));
            continue;
        };
        for import in imports.difference(allowed) {
            breaches.push(Breach::new(
                format!("{room}/Cargo.toml"),
                format!("imports `{import}`, which the table in {DOCUMENT} does not allow"),
            ));
        }
        for import in imports.iter().filter(|import| OUTSIDE.contains(&import.as_str())) {
            breaches.push(Breach::new(
                format!("{room}/Cargo.toml"),
                format!("imports `{import}`, which nothing may import"),
            ));
        }
    }
    for room in written.keys().filter(|room| !real.contains_key(*room)) {
        breaches.push(Breach::new(DOCUMENT, format!("the table has `{room}`, the workspace not")));
    }
    breaches
}
