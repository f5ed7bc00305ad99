//! The Python environment that `cargo xtask test` fills, for another opinion on files.

use std::path::PathBuf;

use crate::skip;

/// Its interpreter; `None`, after [`skip`], where it was not made.
#[must_use]
pub fn python() -> Option<PathBuf> {
    // Tests lie in `<target>/<profile>/deps/`.
    let target = std::env::current_exe().ok()?.ancestors().nth(3)?.to_owned();
    let interpreter = target.join("tools/python/bin/python");
    if interpreter.is_file() {
        return Some(interpreter);
    }
    skip(&format!("{} is not there: run `cargo xtask test`", interpreter.display()));
    None
}
