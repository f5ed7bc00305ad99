//! `cargo xtask demo`: the whole path on one machine, every part real. In: nothing, or a capture. Out: balanced
//! books, findings, a member's report. Traffic stays inside namespaces that the demo makes and removes.

mod lab;
mod live;
mod police;
mod privacy;
mod processes;
mod replay;
mod stage;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::demo::processes::Interrupted;
use crate::demo::stage::Stage;
use crate::demo::summary::{Found, Summary};
use crate::{setup, shell};

/// What `demo` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Stop after the report instead of serving until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Folder for report.html, summary.json and the demo's data; its `data` folder is replaced.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// Replay this capture (pcap or pcapng) instead of making traffic.
    #[arg(long)]
    pcap: Option<PathBuf>,
    /// Use the programs as they were last built.
    #[arg(long)]
    no_build: bool,
}

/// What all kinds of demo share.
struct Demo<'a> {
    stage: &'a Stage,
    interrupted: Interrupted,
    /// Keys, spool, lake, logs.
    data: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let stage = Stage::new();
    let is_live = options.pcap.is_none() && shell::is_root();
    if is_live {
        setup::ensure(setup::DEMO)?;
    }
    // The capture is named relative to where the person stands, cargo works in the workspace.
    let pcap = options
        .pcap
        .as_ref()
        .map(|path| {
            fs::canonicalize(path).with_context(|| format!("no capture {}", path.display()))
        })
        .transpose()?;
    if !options.no_build {
        stage.say("Building (the first time takes about 15 minutes on two cores)");
        shell::run(shell::cargo().args(["build", "--workspace", "--locked"]))?;
    }

    let out = prepare(&options.out)?;
    let demo = Demo { stage: &stage, interrupted: Interrupted::watch()?, data: out.join("data") };
    let expected;
    let summary = match (&pcap, is_live) {
        (Some(capture), _) => {
            expected = None;
            replay::run(&demo, capture, "capture", &out)?
        }
        (None, true) => {
            expected = Some(live::EXPECTED);
            live::run(&demo, &out, options.once)?
        }
        (None, false) => {
            stage.say(
                "Not root: no namespaces and no XDP here. A generated capture is replayed through \
                 the same parser, aggregator, link and backend; as root the demo is live.",
            );
            expected = Some(replay::EXPECTED);
            let capture = replay::generate(&demo)?;
            replay::run(&demo, &capture, "replay", &out)?
        }
    };
    judge(&stage, &summary, expected)?;
    if pcap.is_some() || !is_live {
        keep_serving(&demo, options.once)?;
    }
    Ok(())
}

/// An empty `data` folder inside the output folder.
fn prepare(out: &Path) -> Result<PathBuf> {
    let data = out.join("data");
    if data.exists() {
        // Only a folder that a demo has made is replaced.
        ensure!(
            data.join(police::MARK).exists(),
            "{} exists and was not made by the demo; name another --out",
            data.display()
        );
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    fs::write(data.join(police::MARK), "made by `cargo xtask demo`; replaced by its next run\n")
        .with_context(|| format!("cannot write to {}", data.display()))?;
    fs::canonicalize(out).with_context(|| format!("no folder {}", out.display()))
}

/// Writes the result for machines, shows it to people.
fn publish(demo: &Demo<'_>, summary: &Summary, out: &Path) -> Result<()> {
    let path = out.join("summary.json");
    let json = serde_json::to_string_pretty(summary).context("a summary is plain data")?;
    fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    demo.stage.say("The books");
    demo.stage.print(&summary.to_text());
    demo.stage.say("Findings");
    if summary.findings.is_empty() {
        demo.stage.print("  none\n");
    }
    for Found { kind, source, target } in &summary.findings {
        let source = source.as_deref().unwrap_or("many sources");
        let target = target.as_deref().unwrap_or("many targets");
        demo.stage.print(&format!("  {kind:<20} {source} → {target}\n"));
    }
    demo.stage.say(&format!("Report:  {}", out.join("report.html").display()));
    demo.stage.say(&format!("Summary: {}", path.display()));
    Ok(())
}

/// The demo fails when its own promises do not hold.
fn judge(stage: &Stage, summary: &Summary, expected: Option<&[ExpectedFinding]>) -> Result<()> {
    ensure!(summary.balanced, "the books do not balance; see the table above");
    let Some(expected) = expected else { return Ok(()) };
    let expected: Vec<_> =
        expected.iter().map(|(kind, source, target)| Found::new(kind, *source, *target)).collect();
    let (missing, surplus) = summary.compare(&expected);
    if missing.is_empty() && surplus.is_empty() {
        stage.say("The findings are exactly the attacks that were made.");
        return Ok(());
    }
    bail!(
        "the findings are not the attacks that were made: missing {missing:?}, surplus {surplus:?}"
    )
}

/// Kind, source, target.
type ExpectedFinding = (&'static str, Option<&'static str>, Option<&'static str>);

/// Leaves the backend up, on loopback, until Ctrl-C.
fn keep_serving(demo: &Demo<'_>, once: bool) -> Result<()> {
    if once {
        return Ok(());
    }
    let mut backend = police::Backend::existing(demo).serve(demo, police::Place::Loopback)?;
    demo.stage.say("The backend keeps serving; Ctrl-C ends the demo.");
    while !demo.interrupted.happened() {
        backend.ensure_running()?;
        thread::sleep(Duration::from_millis(200));
    }
    backend.end()
}
