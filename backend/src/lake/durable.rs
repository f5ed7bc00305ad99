//! Takes objects to put; gives files that survive a power cut. Never returns from a put before the file, its
//! name and the folders it made are on the disk.
//!
//! `object_store`'s local file system leaves that to the kernel's write-back, which is right for a cache and
//! wrong for a store whose acknowledgement makes a sensor delete its copy. Reading, listing and deleting are
//! that store's own.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};
use futures::stream::BoxStream;

/// How many names a staged file may try before the put fails: leftovers of as many crashes at one place.
const STAGING_NAMES_MAX: u32 = 64;

/// Data files that the library has encoded and nobody has written yet.
///
/// Between [`Staging::begin`] and [`Staging::take`] a data file that is put stays in memory. So the one who commits
/// writes it, and learns first-hand when the disk is full: the library answers a failed put by aborting an upload
/// that is none any more, which is a panic in `object_store`. Bounded by what one commit may hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Staging(Arc<Mutex<Option<Vec<Staged>>>>);

/// One encoded data file.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    payload: PutPayload,
}

impl Staging {
    /// Keeps data files in memory from now on; what was kept before is dropped.
    pub(super) fn begin(&self) {
        *self.files() = Some(Vec::new());
    }

    /// Gives what was put since [`Staging::begin`], and keeps nothing more.
    pub(super) fn take(&self) -> Vec<Staged> {
        self.files().take().unwrap_or_default()
    }

    fn files(&self) -> MutexGuard<'_, Option<Vec<Staged>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file of this name is kept in memory now.
    fn keeps(&self, path: &FilePath) -> bool {
        let is_data = path.extension().is_some_and(|extension| extension == "parquet")
            && !path.components().any(|part| part.as_os_str() == "_delta_log");
        is_data && self.files().is_some()
    }

    fn keep(&self, path: PathBuf, payload: PutPayload) {
        if let Some(files) = self.files().as_mut() {
            files.push(Staged { path, payload });
        }
    }
}

/// Why data files could not be written.
#[derive(Debug)]
pub(super) struct WriteError {
    /// Which file.
    pub(super) path: PathBuf,
    /// What the system said.
    pub(super) source: io::Error,
}

/// Writes all files durably, or none: on a full disk each attempt would leave more behind.
pub(super) fn write_all(files: &[Staged]) -> std::result::Result<(), WriteError> {
    for (number, Staged { path, payload }) in files.iter().enumerate() {
        if let Err(source) = put(path, payload, false) {
            for written in &files[..=number] {
                remove_unused(&written.path);
            }
            return Err(WriteError { path: path.clone(), source });
        }
    }
    Ok(())
}

fn remove_unused(path: &FilePath) {
    if let Err(source) = fs::remove_file(path)
        && source.kind() != io::ErrorKind::NotFound
    {
        let path = path.display();
        tracing::warn!(%source, %path, "a data file without a commit stays behind");
    }
}

/// The local file system with durable writes; paths are absolute ones without the leading `/`.
#[derive(Debug)]
pub(super) struct DurableFileSystem {
    inner: LocalFileSystem,
    staging: Staging,
}

impl DurableFileSystem {
    pub(super) fn new(staging: Staging) -> Self {
        Self { inner: LocalFileSystem::new(), staging }
    }
}

impl fmt::Display for DurableFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableFileSystem")
    }
}

#[async_trait]
impl ObjectStore for DurableFileSystem {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put with PutMode::Update".to_owned(),
                    implementer: self.to_string(),
                });
            }
        };
        let path = self.inner.path_to_filesystem(location)?;
        if self.staging.keeps(&path) {
            self.staging.keep(path, payload);
            return Ok(PutResult { e_tag: None, version: None });
        }
        let name = path.display().to_string();
        let done = tokio::task::spawn_blocking(move || put(&path, &payload, create)).await?;
        match done {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(source) if create && source.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: name, source: Box::new(source) })
            }
            Err(source) => Err(failed(&name, &source)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        if self.staging.keeps(&path) {
            let (staging, parts) = (self.staging.clone(), Vec::new());
            return Ok(Box::new(StagedUpload { staging, path, parts }));
        }
        let folder = path.clone();
        // The inner store makes missing folders without syncing their parents.
        tokio::task::spawn_blocking(move || make_folders(folder.parent()))
            .await?
            .map_err(|source| failed(&path.display().to_string(), &source))?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

impl DurableFileSystem {
    async fn sync(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let name = path.display().to_string();
        tokio::task::spawn_blocking(move || sync_file_and_folder(&path))
            .await?
            .map_err(|source| failed(&name, &source))
    }
}

/// An upload in parts: the checkpoint, when it is large.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        // The name is visible before the bytes are durable, but nothing refers to it yet: the commit that
        // does, or the pointer to the checkpoint, is put after this returns.
        tokio::task::spawn_blocking(move || sync_file_and_folder(&path))
            .await?
            .map_err(|source| failed(&self.path.display().to_string(), &source))?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// A data file that came in parts, because it is large, and stays in memory.
#[derive(Debug)]
struct StagedUpload {
    staging: Staging,
    path: PathBuf,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for StagedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        // In the order of the calls, which is the order of the file.
        self.parts.push(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = std::mem::take(&mut self.parts);
        self.staging.keep(self.path.clone(), parts.into_iter().flatten().collect());
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

fn failed(path: &str, source: &io::Error) -> Error {
    let source = io::Error::new(source.kind(), format!("{path}: {source}"));
    Error::Generic { store: "DurableFileSystem", source: Box::new(source) }
}

/// Writes beside the final name, syncs, then gives the name, then syncs the folder: whoever sees the name sees
/// the whole content, before and after a crash.
fn put(path: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let folder = path.parent();
    make_folders(folder)?;
    let (mut file, staged) = stage(path)?;
    let named = payload.iter().try_for_each(|part| file.write_all(part)).and_then(|()| {
        file.sync_all()?;
        if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) }
    });
    // A staged file that stays behind is ignored by every reader, so failing to remove it loses nothing.
    if create || named.is_err() {
        drop(fs::remove_file(&staged));
    }
    named?;
    sync_folder(folder)
}

/// A new file whose name the inner store's listings hide (`name#1`).
fn stage(path: &FilePath) -> io::Result<(File, PathBuf)> {
    for number in 1..=STAGING_NAMES_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(source),
        }
    }
    Err(io::Error::other(format!("{STAGING_NAMES_MAX} staged files of earlier crashes in the way")))
}

/// Makes what is missing of a folder's path, each new one durable in its parent.
fn make_folders(folder: Option<&FilePath>) -> io::Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    make_folders(folder.parent())?;
    match fs::create_dir(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(source),
        _ => {}
    }
    sync_folder(folder.parent())
}

fn sync_file_and_folder(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_folder(path.parent())
}

fn sync_folder(folder: Option<&FilePath>) -> io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
