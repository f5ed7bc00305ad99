//! Every file of the fuzz corpora through the target it belongs to, on stable Rust: what fuzzing has found
//! once stays found.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

#[expect(unreachable_pub, reason = "the same source is a library in fuzz/")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// A target: takes bytes, panics at a finding.
type Target = fn(&[u8]);

/// All corpora together, bytes: they are committed, so they stay small.
const CORPORA_BYTES_MAX: u64 = 400 << 10;
const FILE_BYTES_MAX: u64 = 64 << 10;

#[test]
fn every_corpus_passes_its_target() -> Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let targets: [(&str, Target); 8] = [
        ("aggregator", targets::aggregator),
        ("batch", targets::batch),
        ("compressed", targets::compressed),
        ("enrolment", targets::enrolment),
        ("frame", targets::frame),
        ("pcap", targets::pcap),
        ("pcapng", targets::pcapng),
        ("session_messages", targets::session_messages),
    ];
    let mut bytes = 0;
    for (name, target) in targets {
        let folder = corpora.join(name);
        let mut files = 0;
        for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let data = fs::read(&path).with_context(|| path.display().to_string())?;
            ensure!(data.len() as u64 <= FILE_BYTES_MAX, "{} is too large", path.display());
            bytes += data.len() as u64;
            // The name of the file stands in the output of a test that fails.
            eprintln!("{}", path.display());
            target(&data);
            files += 1;
        }
        ensure!(files >= 10, "{name} has a corpus: {files} files");
    }
    ensure!(bytes <= CORPORA_BYTES_MAX, "the corpora have {bytes} bytes");
    Ok(())
}
