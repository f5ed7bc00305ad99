//! The running backend, wired in the order in which a batch meets its stages: link, queue, lake, detection,
//! acknowledgement. Never starts to listen before it knows what it has stored and found.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;
use uplink::ServeOptions;

use crate::detection::Detector;
use crate::folder::Folder;
use crate::ingest::{Ingest, Writer};

/// Groups that are stored and wait for detection.
const STORED_GROUPS_MAX: usize = 2;

/// Serves until `shutdown` resolves; then what was taken is stored, and what is not is left to be sent again.
///
/// # Errors
///
/// When it cannot start, or a stage of it failed.
pub async fn serve(
    folder: &Folder,
    out: &mut (impl Write + Send),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let config = folder.config()?;
    let lock = folder.lock()?;
    let authority = Arc::new(folder.authority()?);
    let (database, lake) = folder.stores().await?;

    let session = lake.session(&folder.limits(&config)).await?;
    let detector = Detector::rebuild(database.clone(), &session).await?;
    drop(session);

    let (stored, to_judge) = mpsc::channel(STORED_GROUPS_MAX);
    let (ingest, requests) = Ingest::new(database.clone());
    let writer = Writer::new(lake, database.clone(), config.ingest, stored).await?;
    let writer = writer.keeping(folder.evidence());
    let writing = tokio::spawn(writer.run(requests));
    let judging = tokio::spawn(detector.run(to_judge));

    let options = ServeOptions {
        certificate_lifetime: config.certificate_lifetime,
        renewal_grace: config.renewal_grace,
        ..ServeOptions::new(config.listen, authority)
    };
    let mut told = Ok(());
    let ready = |address| {
        told = writeln!(out, "listening on {address}").and_then(|()| out.flush());
    };
    let served = uplink::serve(options, Arc::new(ingest), ready, shutdown).await;
    // The link is gone and with it every `Ingest`: the writer empties its queue and ends, then detection does.
    writing.await.context("the writer of the lake failed")?;
    judging.await.context("detection failed")?;
    database.close().await;
    drop(lock);
    told.context("the output is closed")?;
    let totals = served?;
    tracing::info!(?totals, "stopped");
    Ok(())
}
