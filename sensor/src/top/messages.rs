//! Takes what is logged; writes it to standard error, or keeps it as long as the screen shows
//! something else. What was kept is written when the screen is given back.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept; of more, the latest.
const LINES_MAX: usize = 500;

/// Where log lines go. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    is_holding: bool,
    lines: VecDeque<String>,
    /// Lines that made room for later ones.
    lines_left_out: u64,
}

impl Messages {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps lines, and the words of panics, until what this gives is dropped.
    pub(super) fn hold(&self) -> Held {
        self.kept().is_holding = true;
        let (messages, before) = (self.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            if messages.kept().is_holding {
                messages.say(&format!("error: {panic}"));
            } else {
                before(panic);
            }
        }));
        Held(self.clone())
    }

    /// Writes what was kept to standard error, and everything from now on.
    fn release(&self) {
        let mut kept = self.kept();
        kept.is_holding = false;
        let left_out = std::mem::take(&mut kept.lines_left_out);
        let lines: Vec<String> = kept.lines.drain(..).collect();
        drop(kept);
        let mut text = String::new();
        if left_out > 0 {
            text = format!("({left_out} earlier messages are left out)\n");
        }
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        // With standard error gone there is nobody left to tell.
        let _nobody = io::stderr().write_all(text.as_bytes());
    }

    /// The lines that are kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.kept().lines.iter().cloned().collect()
    }

    /// Takes text of one or more lines.
    pub(crate) fn say(&self, text: &str) {
        let mut kept = self.kept();
        if !kept.is_holding {
            drop(kept);
            let _nobody = io::stderr().write_all(text.as_bytes());
            return;
        }
        for line in text.lines() {
            if kept.lines.len() == LINES_MAX {
                kept.lines.pop_front();
                kept.lines_left_out += 1;
            }
            // A control character would move the cursor about.
            kept.lines.push_back(line.replace(char::is_control, " "));
        }
    }
}

/// Lines are kept as long as this is there.
#[must_use]
pub(super) struct Held(Messages);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Writes one event.
#[derive(Debug)]
pub struct MessageWriter(Messages);

impl Write for MessageWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.say(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Messages {
    type Writer = MessageWriter;

    fn make_writer(&self) -> MessageWriter {
        MessageWriter(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_up_to_a_bound_and_cannot_move_the_cursor() {
        let messages = Messages::default();
        messages.kept().is_holding = true;
        let mut writer = messages.make_writer();
        for number in 0..LINES_MAX + 7 {
            let line = format!("line\x1b[2J {number}\n");
            writer.write_all(line.as_bytes()).expect("it is memory");
        }
        let lines = messages.lines();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!(lines[0], "line [2J 7");
        assert_eq!(messages.kept().lines_left_out, 7);
    }
}
