//! Takes the path of a data folder; gives the paths in it, and the lock that only one `serve` holds.
//!
//! ```text
//! backend.toml     settings
//! backend.sqlite   members, codes, sensors, batch summaries, findings
//! ca/              the authority's and the backend's keys
//! evidence/        sealed batches as they were received, a folder a day
//! lake/flows/      the Delta Lake table of flow records
//! spill/           what large queries put aside; may be emptied while nothing runs
//! serve.lock       held by the process that stores
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use uplink::{AuthorityError, CertificateAuthority, FileError};

use crate::config::{self, Config, ConfigError};
use crate::database::{Database, DatabaseError, Forgotten};
use crate::evidence::Evidence;
use crate::lake::{Lake, LakeError, SessionLimits};

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// There is something already. Remedy: another folder; this one is not overwritten.
    #[error("{0} exists already; nothing was changed")]
    Exists(PathBuf),
    /// The settings come last, so an `init` was cut short. Remedy: remove what is there, nothing uses it.
    #[error(
        "{0} is there without a backend.toml, as an `init` leaves it that did not finish; nothing was changed, \
         remove it to start again"
    )]
    Unfinished(PathBuf),
    /// Not made by `init`. Remedy: `spanwatch-backend init`, or another path.
    #[error("{0} is no data folder: it has no backend.toml; `spanwatch-backend init` makes one")]
    NotInitialised(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
    /// Another process serves this folder. Remedy: stop that one; two would store every row twice.
    #[error("another process serves {0}")]
    Busy(PathBuf),
    /// The address cannot be given to sensors. Remedy: write it as host:port.
    #[error("address {0:?} is not a host and a port, as police.example:7443")]
    Address(String),
    /// Another user's, or others may write it. Remedy: the message says it.
    #[error(transparent)]
    Rights(#[from] FileError),
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Keys.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lake is older than the database, as after a restore of one without the other: acknowledged rows are
    /// missing. Remedy: the message says it.
    #[error(
        "the lake {lake} is at version {lake_version}, the database has copied its log up to version \
         {database_version}: the lake is older, as after a restore of an old copy of it, and what the database \
         says of batches is wrong. Restore the lake that belongs to the database; if there is none, \
         `spanwatch-backend accept-lake` makes the database forget what the lake does not have"
    )]
    LakeOlder {
        /// The table's folder.
        lake: PathBuf,
        /// The newest version there.
        lake_version: u64,
        /// The version that the database knows.
        database_version: u64,
    },
}

/// What was forgotten so that database and lake agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The lake's version, and now the database's.
    pub lake_version: u64,
    /// The version that the database knew.
    pub database_version: u64,
    /// Batches that the lake does not have.
    pub forgotten: Forgotten,
}

/// A folder that `init` made.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes a data folder: settings, keys, database and an empty lake. The settings come last, so that a folder
    /// that has them is whole.
    ///
    /// # Errors
    ///
    /// When there is anything in the way, or the disk refuses.
    pub async fn create(
        root: &Path,
        listen: SocketAddr,
        address: &str,
    ) -> Result<Self, FolderError> {
        if !config::is_host_and_port(address) {
            return Err(FolderError::Address(address.to_owned()));
        }
        let folder = Self { root: root.to_owned() };
        for path in [
            folder.config_path(),
            folder.database_path(),
            folder.authority_path(),
            folder.lake_path(),
        ] {
            if path.exists() && folder.config_path().exists() {
                return Err(FolderError::Exists(path));
            }
            if path.exists() {
                return Err(FolderError::Unfinished(path));
            }
        }
        std::fs::create_dir_all(root).map_err(io_error(root))?;
        CertificateAuthority::create(&folder.authority_path())?;
        Database::create(&folder.database_path()).await?.close().await;
        let lake = folder.lake_path();
        std::fs::create_dir_all(&lake).map_err(io_error(&lake))?;
        Lake::create(&lake).await?;
        let path = folder.config_path();
        std::fs::write(&path, config::default_file(listen, address)).map_err(io_error(&path))?;
        Ok(folder)
    }

    /// A folder that is there.
    ///
    /// # Errors
    ///
    /// When it was not made by `init`, is another user's, or others may write what decides who is admitted.
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        let folder = Self { root: root.to_owned() };
        let path = folder.config_path();
        match std::fs::metadata(&path) {
            Ok(about) if about.is_file() => {
                // Who may write one of these decides who is admitted.
                for own in [root, &path, &folder.database_path(), &folder.authority_path()] {
                    if own.exists() {
                        uplink::check_own(own)?;
                    }
                }
                Ok(folder)
            }
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(FolderError::Io { path, source })
            }
            _ => Err(FolderError::NotInitialised(root.to_owned())),
        }
    }

    /// Its settings.
    ///
    /// # Errors
    ///
    /// Names the first mistake in the file.
    pub fn config(&self) -> Result<Config, FolderError> {
        Ok(Config::read(&self.config_path())?)
    }

    /// Its database.
    ///
    /// # Errors
    ///
    /// When it is missing or of a newer version.
    pub async fn database(&self) -> Result<Database, FolderError> {
        Ok(Database::open(&self.database_path()).await?)
    }

    /// Its lake, at the newest version.
    ///
    /// # Errors
    ///
    /// When it is missing or its log cannot be read.
    pub async fn lake(&self) -> Result<Lake, FolderError> {
        Ok(Lake::open(&self.lake_path()).await?)
    }

    /// Database and lake, which belong together: the database is a copy of the lake's log, never ahead of it.
    ///
    /// # Errors
    ///
    /// When one cannot be opened, or the lake is older than the database.
    pub async fn stores(&self) -> Result<(Database, Lake), FolderError> {
        let database = self.database().await?;
        // Before the lake is opened: a `serve` beside this process commits to the lake first, then copies.
        let database_version = database.applied_version().await?;
        let lake = self.lake().await?;
        let lake_version = lake.version();
        if database_version > lake_version {
            return Err(FolderError::LakeOlder {
                lake: self.lake_path(),
                lake_version,
                database_version,
            });
        }
        Ok((database, lake))
    }

    /// Makes the database agree with a lake that is older: it forgets the batches that the lake does not have.
    /// `None` when the two agree.
    ///
    /// # Errors
    ///
    /// When one cannot be opened, or this folder is being served.
    pub async fn accept_lake(&self) -> Result<Option<Accepted>, FolderError> {
        let lock = self.lock()?;
        let (database, lake) = (self.database().await?, self.lake().await?);
        let (lake_version, database_version) = (lake.version(), database.applied_version().await?);
        if database_version <= lake_version {
            return Ok(None);
        }
        let mut held = Vec::new();
        for (sensor, boot_epoch) in database.sessions().await? {
            let watermark = lake.watermark(&sensor, boot_epoch).await?;
            held.push((sensor, boot_epoch, watermark.unwrap_or(0)));
        }
        let forgotten = database.forget_after(&held, lake_version).await?;
        drop(lock);
        Ok(Some(Accepted { lake_version, database_version, forgotten }))
    }

    /// Its keys.
    ///
    /// # Errors
    ///
    /// When one is missing, damaged or readable by others.
    pub fn authority(&self) -> Result<CertificateAuthority, FolderError> {
        Ok(CertificateAuthority::load(&self.authority_path())?)
    }

    /// What a query on it may take.
    #[must_use]
    pub fn limits(&self, config: &Config) -> SessionLimits {
        SessionLimits {
            memory_bytes_max: config.query_memory_bytes_max,
            spill_folder: self.root.join("spill"),
        }
    }

    /// Its sealed batches.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence::new(self.root.join("evidence"))
    }

    /// The right to store; given back when the file is dropped, or the process ends in any way.
    ///
    /// # Errors
    ///
    /// When another process has it.
    pub fn lock(&self) -> Result<File, FolderError> {
        let path = self.root.join("serve.lock");
        let file = File::create(&path).map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(FolderError::Busy(self.root.clone())),
            Err(TryLockError::Error(source)) => Err(io_error(&path)(source)),
        }
    }

    fn config_path(&self) -> PathBuf {
        self.root.join("backend.toml")
    }

    fn database_path(&self) -> PathBuf {
        self.root.join("backend.sqlite")
    }

    fn authority_path(&self) -> PathBuf {
        self.root.join("ca")
    }

    fn lake_path(&self) -> PathBuf {
        self.root.join("lake").join("flows")
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}
