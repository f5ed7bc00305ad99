//! What the person at the terminal sees: one line a step, with a spinner while it lasts.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The terminal.
pub(super) struct Stage {
    style: ProgressStyle,
}

impl Stage {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self { style }
    }

    /// A step that has no duration worth showing.
    #[expect(clippy::unused_self, reason = "the terminal is one thing, however it is written to")]
    pub(super) fn say(&self, text: &str) {
        crate::say(format_args!("• {text}"));
    }

    /// Text as it is.
    #[expect(clippy::unused_self, reason = "the terminal is one thing, however it is written to")]
    pub(super) fn print(&self, text: &str) {
        crate::say(text.trim_end_matches('\n'));
    }

    /// Runs a step with a spinner; `work` may change the words beside it.
    pub(super) fn step<T, E>(
        &self,
        text: &str,
        work: impl FnOnce(&ProgressBar) -> Result<T, E>,
    ) -> Result<T, E> {
        let spinner = ProgressBar::new_spinner().with_style(self.style.clone());
        spinner.set_message(text.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(120));
        let outcome = work(&spinner);
        spinner.finish_and_clear();
        crate::say(format_args!("{} {text}", if outcome.is_ok() { "✓" } else { "✗" }));
        outcome
    }
}
