//! Rules for single files: module documentation, size, constructs that are not wanted, names of places.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Breach;

/// A file longer than this is split by sub-machine.
const LINES_MAX: usize = 800;
const COLUMNS_MAX: usize = 100;
/// Of the files that are not Rust, those longer than this are not read: locks and golden data.
const BYTES_MAX: u64 = 1 << 20;

/// Constructs that stand in no Rust file, each with what to do instead. They are put together from halves so
/// that this table is no breach of itself.
const BANNED: &[(&str, &str, &str)] = &[
    ("#[ign", "ore", "a test that does not run is no test"),
    ("#[al", "low(", "use #[expect(…, reason = \"…\")]"),
    ("#![al", "low(", "use #![expect(…, reason = \"…\")]"),
    ("TO", "DO", "finish it, or write an issue"),
    ("FIX", "ME", "finish it, or write an issue"),
    ("todo", "!(", "finish it"),
    ("unimple", "mented!(", "finish it"),
    ("#[should", "_panic", "return and compare an error"),
    ("thread::sleep(Duration::from_secs(6", "0", "no test may wait for a minute"),
];

/// Places that belong to one machine and stand in no file.
const PLACES: &[(&str, &str)] =
    &[("/work", "/"), ("/ro", "ot/"), ("/tmp/ba", "sh_jobs"), ("/home", "/")];

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<Breach>> {
    let mut breaches = Vec::new();
    for file in files {
        let path = root.join(file);
        let length = fs::metadata(&path).with_context(|| format!("{}", path.display()))?.len();
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        if !is_rust && length > BYTES_MAX {
            continue;
        }
        // What is no text (the eBPF object, golden batches) is proved by its own tests.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        breaches.extend(places(file, &text));
        if is_rust {
            breaches.extend(rust(file, &text));
        }
    }
    Ok(breaches)
}

pub(super) fn places(file: &Path, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for (front, back) in PLACES {
            let place = format!("{front}{back}");
            // A path of this kind starts a word; inside a longer path it is something else.
            let starts_word = line.match_indices(&place).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/}".contains(c))
            });
            if starts_word {
                breaches.push(Breach::new(
                    format!("{}:{number}", file.display()),
                    format!("names a place of one machine: {place}"),
                ));
            }
        }
    }
    breaches
}

pub(super) fn rust(file: &Path, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let name = file.display();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        breaches
            .push(Breach::new(format!("{name}"), format!("{lines} lines, more than {LINES_MAX}")));
    }
    let is_tests = file.file_name().is_some_and(|name| name == "tests.rs" || name == "build.rs");
    if !is_tests && !text.trim_start().starts_with("//!") {
        breaches.push(Breach::new(
            format!("{name}:1"),
            "a module opens with `//!`: what comes in, what goes out, what it never does",
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        for (front, back, instead) in BANNED {
            if line.contains(&format!("{front}{back}")) {
                breaches.push(Breach::new(
                    format!("{name}:{number}"),
                    format!("{front}{back} stands here; {instead}"),
                ));
            }
        }
        let columns = line.chars().count();
        // Literals that cannot be broken (vectors, messages) are rustfmt's business.
        let is_literal = line.contains('"');
        if columns > COLUMNS_MAX + 20 && !is_literal {
            breaches.push(Breach::new(format!("{name}:{number}"), format!("{columns} columns")));
        }
    }
    breaches
}
