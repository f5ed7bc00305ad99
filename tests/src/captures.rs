//! The shared captures, and the rule for a test that lacks what it needs: it says so, and in CI it fails.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sensor::{CaptureFile, LinkType};

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

/// Every file below a folder that may be a capture, in a stable order.
///
/// # Errors
///
/// When a folder cannot be listed.
pub fn capture_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind != "md" && kind != "csv") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Gives the Ethernet frames of a capture, up to where it breaks off.
///
/// # Errors
///
/// When the file cannot be opened, and whatever `visit` fails with.
pub fn ethernet_frames(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    // Broken captures are the replay's business; here the frames before the fault count.
    let Ok(mut capture) = CaptureFile::open(file) else { return Ok(()) };
    while let Ok(Some(frame)) = capture.next_frame() {
        if frame.link == LinkType::Ethernet {
            visit(frame.bytes)?;
        }
    }
    Ok(())
}

/// Says that a test is skipped, and why; in CI that is a failure.
#[expect(clippy::print_stderr, reason = "the test's own voice")]
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
}
