//! Takes the terminal while it lasts: the alternate screen, keys without echo, no cursor. Whatever
//! happens, also a panic, the terminal is given back as it was.

use std::fs::File;
use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead as _;
use ratatui::termion::raw::{IntoRawMode as _, RawTerminal};
use ratatui::termion::screen::{AlternateScreen, IntoAlternateScreen as _};
use thiserror::Error;

use super::state::State;
use super::view::{Theme, render};

/// Keys that wait to be handled.
const KEYS_MAX: usize = 64;

/// Why there is no screen.
#[derive(Debug, Error)]
pub enum ScreenError {
    /// Remedy: run it in a terminal, or `--once`, or another command.
    #[error(
        "there is no terminal to show it on: use --once for one screen as text, or `run` and \
         `replay`, which write records"
    )]
    NoTerminal,
    /// The terminal cannot be set up or drawn on.
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    /// The system gives no thread.
    #[error("cannot read keys")]
    Keys(#[source] io::Error),
}

type Backend = TermionBackend<AlternateScreen<RawTerminal<Stdout>>>;

/// The terminal, until it is dropped.
pub(super) struct Screen {
    terminal: Option<Terminal<Backend>>,
}

impl Screen {
    /// Whether there is a terminal at all, and where its keys come from.
    pub(super) fn keyboard() -> Result<File, ScreenError> {
        // Standard input may be a capture; the keys are the terminal's own.
        if !io::stdout().is_terminal() {
            return Err(ScreenError::NoTerminal);
        }
        ratatui::termion::get_tty().map_err(|_none| ScreenError::NoTerminal)
    }

    /// Takes the terminal.
    pub(super) fn open() -> Result<Self, ScreenError> {
        let raw = io::stdout().into_raw_mode().map_err(ScreenError::Terminal)?;
        // Dropped, it gives everything back, however far this comes.
        let mut screen = Self { terminal: None };
        let mut writer = raw.into_alternate_screen().map_err(ScreenError::Terminal)?;
        // `Terminal::clear` would ask where the cursor is, and not every terminal answers.
        write!(writer, "{}", ratatui::termion::clear::All).map_err(ScreenError::Terminal)?;
        let mut terminal =
            Terminal::new(TermionBackend::new(writer)).map_err(ScreenError::Terminal)?;
        terminal.hide_cursor().map_err(ScreenError::Terminal)?;
        screen.terminal = Some(terminal);
        Ok(screen)
    }

    pub(super) fn draw(&mut self, state: &mut State, theme: Theme) -> Result<(), ScreenError> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        terminal
            .draw(|frame| {
                let area = frame.area();
                render(state, theme, area, frame.buffer_mut());
            })
            .map(|_drawn| ())
            .map_err(ScreenError::Terminal)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.terminal.take());
        // What gives the screen back must not wait for the next line.
        let _terminal_gone = io::stdout().flush();
    }
}

/// What is typed. The thread that reads it ends with the process, or the terminal.
pub(super) fn keys(keyboard: File) -> Result<Receiver<Key>, ScreenError> {
    let (typed, keys) = bounded(KEYS_MAX);
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            for key in keyboard.keys() {
                match key {
                    Ok(key) if typed.send(key).is_err() => return,
                    // The terminal is gone.
                    Err(error) if error.raw_os_error().is_some() => return,
                    // What is no key (a mouse, an unknown sequence) is passed over.
                    Ok(_) | Err(_) => {}
                }
            }
        })
        .map(|_reads_on| keys)
        .map_err(ScreenError::Keys)
}
