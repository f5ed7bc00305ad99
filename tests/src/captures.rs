//! The shared captures, and the rule for a test that lacks what it needs: it says so, and in CI it fails.

use std::path::{Path, PathBuf};

/// The folder of shared captures: `SPANWATCH_PCAPS`, or `../shared/pcaps` beside the workspace.
///
/// `None`, after [`skip`], where there is none.
#[must_use]
pub fn capture_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SPANWATCH_PCAPS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    skip(&format!("no captures in {} (set SPANWATCH_PCAPS)", folder.display()));
    None
}

/// Says that a test is skipped, and why; in CI that is a failure.
#[expect(clippy::print_stderr, reason = "the test's own voice")]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
}
