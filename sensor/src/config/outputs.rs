//! Takes the settings of the outputs, with the flags laid over them; says whether they go together.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{OutputConfig, OutputKind};

/// Why the settings of the outputs cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OutputConfigError {
    /// Give `--out FILE`, or set `output.parquet_file`.
    #[error("output `parquet` has no file: use --out FILE, or set output.parquet_file")]
    NoParquetFile,
    /// Give `--collector URL`, or set `output.ipfix_collector`.
    #[error(
        "output `ipfix` has no collector: use --collector udp://HOST:PORT or tcp://HOST:PORT, or set \
         output.ipfix_collector"
    )]
    NoCollector,
    /// Give one of them a file.
    #[error("outputs `{0}` and `{1}` would both write to standard output: give one of them a file")]
    BothToStdout(&'static str, &'static str),
    /// Give one of them another file.
    #[error("outputs `{first}` and `{second}` would both write {}", file.display())]
    SameFile {
        /// The one.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Where to.
        file: PathBuf,
    },
    /// Name an output that writes a file.
    #[error(
        "--out is the file of --output json, csv or parquet, none of which is among the outputs"
    )]
    NoFileOutput,
    /// Set each file in the configuration.
    #[error(
        "--out names one file, and more than one output writes one: set output.json_file, \
         output.csv_file and output.parquet_file"
    )]
    ManyFileOutputs,
    /// Standard output has no series.
    #[error(
        "output `{0}` goes to standard output, which cannot be rotated: give it a file, or leave \
         output.rotate_bytes and output.rotate_ms out"
    )]
    RotatedStdout(&'static str),
}

impl OutputConfig {
    /// The outputs that write files, in the order in which they are opened, with their names and files.
    fn files(&self) -> impl Iterator<Item = (OutputKind, &'static str, Option<&Path>)> {
        let all = [
            (OutputKind::Json, "json", self.json_file.as_deref()),
            (OutputKind::Csv, "csv", self.csv_file.as_deref()),
            (OutputKind::Parquet, "parquet", self.parquet_file.as_deref()),
        ];
        all.into_iter().filter(|(kind, ..)| self.kinds.contains(kind))
    }

    /// The output that writes to standard output.
    #[must_use]
    pub fn to_stdout(&self) -> Option<&'static str> {
        let mut text = self.files().filter(|(kind, ..)| *kind != OutputKind::Parquet);
        text.find_map(|(_, name, file)| file.is_none().then_some(name))
    }

    /// Sets the file of the one output that writes one.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn set_file(&mut self, file: &Path) -> Result<(), OutputConfigError> {
        let kinds: Vec<OutputKind> = self.files().map(|(kind, ..)| kind).collect();
        let place = match kinds.as_slice() {
            [] => return Err(OutputConfigError::NoFileOutput),
            [OutputKind::Csv] => &mut self.csv_file,
            [OutputKind::Parquet] => &mut self.parquet_file,
            [_json] => &mut self.json_file,
            [..] => return Err(OutputConfigError::ManyFileOutputs),
        };
        *place = Some(file.to_owned());
        Ok(())
    }

    /// Refuses settings that do not go together.
    ///
    /// # Errors
    /// At the first that does not.
    pub fn check(&self) -> Result<(), OutputConfigError> {
        let files: Vec<_> = self.files().collect();
        for (at, (kind, name, file)) in files.iter().enumerate() {
            if *kind == OutputKind::Parquet && file.is_none() {
                return Err(OutputConfigError::NoParquetFile);
            }
            if file.is_none() && (self.rotate_bytes.is_some() || self.rotate_ms.is_some()) {
                return Err(OutputConfigError::RotatedStdout(name));
            }
            for (_, earlier, other) in &files[..at] {
                match (file, other) {
                    (None, None) => return Err(OutputConfigError::BothToStdout(earlier, name)),
                    (Some(file), Some(other)) if file == other => {
                        return Err(OutputConfigError::SameFile {
                            first: earlier,
                            second: name,
                            file: (*file).to_owned(),
                        });
                    }
                    _ => {}
                }
            }
        }
        if self.kinds.contains(&OutputKind::Ipfix) && self.ipfix_collector.is_none() {
            return Err(OutputConfigError::NoCollector);
        }
        Ok(())
    }
}
