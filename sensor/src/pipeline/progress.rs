//! Takes how far a replay is; draws it in one line of the terminal: a bar where the size of the input
//! is known, else a spinner. What it shows is nowhere else used.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::input;
use crate::summary::short;

/// How long a rate is looked at.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// One line of the terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Bytes of the files before this one.
    bytes_before: u64,
    /// When the rate was worked out, and the frames then.
    looked: (Instant, u64),
    frames_per_s: Option<u64>,
    name: String,
}

impl Progress {
    pub(super) fn new(files: &[PathBuf]) -> Self {
        let sizes: Option<u64> = files.iter().map(|file| input::size(file)).sum();
        let bar = ProgressBar::no_length();
        if let Some(bytes) = sizes {
            bar.set_length(bytes);
        }
        let template = match sizes {
            Some(_) => "{bar:20.cyan/dim} {percent:>3} %  {wide_msg} {eta:>4} left",
            None => "{spinner} {elapsed}  {bytes}  {wide_msg}",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_invalid| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("━╸─"));
        Self {
            bar,
            bytes_before: 0,
            looked: (Instant::now(), 0),
            frames_per_s: None,
            name: String::new(),
        }
    }

    /// A file begins.
    pub(super) fn handle_file(&mut self, name: &str) {
        let name = name.rsplit('/').next().unwrap_or(name);
        self.name = name.chars().take(NAME_CHARS_MAX).collect();
        self.bytes_before = self.bar.position();
    }

    /// So much of the file was read, so many frames in all.
    pub(super) fn update(&mut self, file_bytes: u64, frames: u64) {
        let (at, before) = self.looked;
        let elapsed = at.elapsed();
        if elapsed >= RATE_PERIOD {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            self.frames_per_s = Some((frames - before).saturating_mul(1_000) / ms);
            self.looked = (Instant::now(), frames);
        }
        let rate =
            self.frames_per_s.map_or_else(String::new, |rate| format!(", {}/s", short(rate)));
        self.bar.set_message(format!("{}  {} frames{rate}", self.name, short(frames)));
        self.bar.set_position(self.bytes_before + file_bytes);
        self.bar.tick();
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Characters of a file's name that are shown.
const NAME_CHARS_MAX: usize = 24;
