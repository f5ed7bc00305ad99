//! The live view, `spanwatch-sensor top`. In: the epochs of a capture, or a capture file that is
//! read as if it came over the wire. Out: a screen with rates, flows, hosts, services, losses, for
//! as long as somebody looks, or one screen as text.
//!
//! ```text
//! pipeline ─ Feed { Tracker, History } ─ latest Picture ─► State ─► render ─► Screen
//!                                                            ▲
//!                                                     keys ──┘
//! ```
//!
//! Tracker, state and rendering are pure. The view never waits in the pipeline, and without it the
//! pipeline does nothing for it.

mod feed;
mod file;
mod filter;
mod messages;
mod names;
mod rate;
mod rows;
#[cfg(test)]
mod samples;
mod screen;
mod state;
mod tracker;
mod view;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use signal_hook::iterator::Handle;
use thiserror::Error;

pub(crate) use feed::{Counted, Feed};
pub use messages::{MessageWriter, Messages};
pub use rows::Tab;
pub use screen::ScreenError;

use crate::config::Config;
use crate::pipeline::{
    Options, Outcome, PipelineError, Source, Speed, Stop, input_name, is_stdin, listen,
    run_watched, stop_on_signals_with,
};
use feed::Picture;
use file::{Control, Reader};
use screen::{Screen, keys};
use state::{Action, State, Subject};
use view::{COLUMNS_MIN, ROWS_MIN, Theme, render};

/// How often the screen is drawn anew when nothing happens; so soon it has a new size.
const DRAW_PERIOD: Duration = Duration::from_millis(250);
/// Messages to the pipeline: one to stop, one to stop waiting.
const STOPS_MAX: usize = 2;
/// A printed screen, where nothing says another size.
const PRINTED: (u16, u16) = (120, 40);

/// What is to be shown, beside the configuration.
#[derive(Clone, Debug)]
pub struct TopOptions {
    /// Capture files; without any, the configured interfaces.
    pub files: Vec<PathBuf>,
    /// How fast the files are read.
    pub speed: Speed,
    /// Print one screen as text after this long, or at the end of the files.
    pub once: Option<Duration>,
    /// What is looked at first.
    pub tab: Tab,
    /// Which flows are meant.
    pub filter: String,
    /// Whether colours may be used.
    pub has_colours: bool,
    /// Columns and rows of a printed screen; `None` where nobody says.
    pub printed: (Option<u16>, Option<u16>),
    /// Where log lines go.
    pub messages: Messages,
    /// File that keeps the books, while interfaces are watched.
    pub summary_file: Option<PathBuf>,
}

/// How the view ended.
#[derive(Clone, Debug)]
pub struct Topped {
    /// How the capture ended.
    pub outcome: Outcome,
    /// The screen, where one was to be printed.
    pub printed: Option<String>,
}

/// Why there is no view.
#[derive(Debug, Error)]
pub enum TopError {
    /// There is no terminal, or it cannot be used.
    #[error(transparent)]
    Screen(#[from] ScreenError),
    /// The capture cannot begin.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// There is no such file, or it may not be read.
    #[error("cannot open {}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Watches interfaces, or reads files, until somebody quits.
///
/// # Errors
/// When there is no terminal to show it on, or the capture cannot begin.
pub fn top(config: &Config, options: &TopOptions) -> Result<Topped, TopError> {
    // Before anything is attached: without a terminal nothing has happened.
    let keyboard = match options.once {
        Some(_) => None,
        None => Some(Screen::keyboard()?),
    };
    // Told when this is dropped, after the screen.
    let _held = options.messages.hold();
    let mut watched = Watched::start(config, options)?;
    let theme = Theme {
        has_colours: options.has_colours && options.once.is_none(),
        is_printed: options.once.is_some(),
    };
    let mut state = State::new(watched.subject.clone(), options.tab, &options.filter);
    let shown = match (keyboard, options.once) {
        // The screen is dropped here, whatever happens.
        (Some(keyboard), _) => Screen::open().and_then(|mut screen| {
            let keys = keys(keyboard)?;
            look(&mut watched, &mut state, (&mut screen, &keys), theme, &options.messages)
        }),
        (None, once) => {
            wait(&mut watched, &mut state, once.unwrap_or_default());
            Ok(())
        }
    };
    let outcome = watched.finish(&mut state);
    let printed = options.once.map(|_| {
        state.handle_messages(options.messages.lines());
        let (columns, rows) = options.printed;
        let columns = columns.unwrap_or(PRINTED.0).max(COLUMNS_MIN);
        text(&mut state, theme, columns, rows.unwrap_or(PRINTED.1).max(ROWS_MIN))
    });
    shown?;
    Ok(Topped { outcome: outcome?, printed })
}

/// A capture that is watched.
struct Watched {
    subject: Subject,
    pictures: Receiver<Box<Picture>>,
    stop: Sender<()>,
    /// Reading is to wait.
    holds: Arc<AtomicBool>,
    ended: Receiver<Result<Outcome, PipelineError>>,
    /// How it ended, once it has.
    outcome: Option<Result<Outcome, PipelineError>>,
    signals: Handle,
}

impl Watched {
    fn start(config: &Config, options: &TopOptions) -> Result<Self, TopError> {
        let (feed, pictures) = Feed::new(config);
        let (stop, stopped) = bounded(STOPS_MAX);
        let holds = Arc::new(AtomicBool::new(false));
        let start = |what| move |source| PipelineError::Start { what, source };
        let (subject, run): (_, Box<dyn FnOnce() -> Result<Outcome, PipelineError> + Send>) =
            if options.files.is_empty() {
                let source: Box<dyn Source> = listen(config)?;
                let mut config = config.clone();
                // Somebody looks: the screen does not stand still while hardly anything comes.
                config.capture.epoch_ms_max = config.capture.epoch_ms;
                let subject = Subject::Interfaces(config.capture.interfaces.clone());
                let summary_file = options.summary_file.clone();
                let options = Options { summary_file, ..Options::default() };
                let run = move || run_watched(&config, &options, source, &stopped, Some(feed));
                (subject, Box::new(run))
            } else {
                for file in options.files.iter().filter(|file| !is_stdin(file)) {
                    // A name that was mistyped is told before there is a screen.
                    file.metadata()
                        .map_err(|source| TopError::File { file: file.clone(), source })?;
                }
                let name = |file: &PathBuf| {
                    let last = file.file_name().filter(|_| !is_stdin(file)).map(Path::new);
                    last.map_or_else(|| input_name(file), input_name).replace(char::is_control, " ")
                };
                let names = options.files.iter().map(name).collect();
                let control =
                    Control { stop: Arc::new(Stop::new(stopped)), holds: Arc::clone(&holds) };
                let reader = Reader::new(config, options.speed, control, feed);
                let files = options.files.clone();
                (Subject::Files(names, options.speed), Box::new(move || Ok(reader.run(&files))))
            };
        let signals = stop_on_signals_with(stop.clone()).map_err(start("the signal handler"))?;
        let (tell, ended) = bounded(1);
        thread::Builder::new()
            .name("watched".to_owned())
            .spawn(move || {
                // If nobody waits any more, the process is ending.
                let _nobody = tell.send(run());
            })
            .map_err(start("the capture"))?;
        Ok(Self { subject, pictures, stop, holds, ended, outcome: None, signals })
    }

    /// Whether there is nothing more to come and nothing to look at: an interface is gone, or a
    /// signal came. The end of a file is no reason to take the picture away.
    fn is_over(&self, state: &State) -> bool {
        let at_its_end = state
            .picture
            .as_ref()
            .and_then(|picture| picture.position.as_ref())
            .is_some_and(|position| position.ended);
        self.outcome.is_some() && !(at_its_end && matches!(self.subject, Subject::Files(..)))
    }

    /// Stops the capture, and takes over its last picture.
    fn finish(mut self, state: &mut State) -> Result<Outcome, PipelineError> {
        let _has_ended = self.stop.try_send(());
        let outcome = self.outcome.take().unwrap_or_else(|| {
            self.ended.recv().unwrap_or_else(|_panicked| {
                let source = io::Error::other("it stopped by a fault of its own");
                Err(PipelineError::Start { what: "the capture", source })
            })
        });
        while let Ok(picture) = self.pictures.try_recv() {
            state.handle_picture(picture);
        }
        self.signals.close();
        outcome
    }
}

/// Shows it until somebody quits, or nothing is left to look at.
fn look(
    watched: &mut Watched,
    state: &mut State,
    (screen, keys): (&mut Screen, &Receiver<ratatui::termion::event::Key>),
    theme: Theme,
    messages: &Messages,
) -> Result<(), ScreenError> {
    let (nothing, no_picture) = (never(), never());
    loop {
        state.handle_messages(messages.lines());
        screen.draw(state, theme)?;
        // Of a capture that has ended the channels are closed, which would be told again and again.
        let (ended, pictures) = match watched.outcome {
            Some(_) => (&nothing, &no_picture),
            None => (&watched.ended, &watched.pictures),
        };
        select! {
            recv(keys) -> key => {
                // Several keys at once (held down, or pasted) are drawn once.
                for key in key.into_iter().chain(keys.try_iter()) {
                    match state.handle_key(key) {
                        Action::Nothing => {}
                        Action::Quit => return Ok(()),
                        Action::Hold(holds) => watched.holds.store(holds, Ordering::Relaxed),
                    }
                }
                if key.is_err() {
                    return Ok(());
                }
            }
            recv(pictures) -> picture => {
                if let Ok(picture) = picture {
                    state.handle_picture(picture);
                }
            }
            recv(ended) -> outcome => {
                if let Ok(outcome) = outcome {
                    watched.outcome = Some(outcome);
                } else {
                    return Ok(());
                }
                while let Ok(picture) = watched.pictures.try_recv() {
                    state.handle_picture(picture);
                }
                if watched.is_over(state) {
                    return Ok(());
                }
            }
            default(DRAW_PERIOD) => {}
        }
    }
}

/// Waits so long, or until it ends.
fn wait(watched: &mut Watched, state: &mut State, within: Duration) {
    let over = at(Instant::now() + within);
    loop {
        select! {
            recv(over) -> _ => return,
            recv(watched.pictures) -> picture => {
                let Ok(picture) = picture else { return };
                state.handle_picture(picture);
            }
            recv(watched.ended) -> outcome => {
                watched.outcome = outcome.ok();
                return;
            }
        }
    }
}

/// One screen as lines of text.
fn text(state: &mut State, theme: Theme, columns: u16, rows: u16) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    render(state, theme, buffer.area, &mut buffer);
    let mut text = String::new();
    for y in 0..rows {
        let line: String = (0..columns)
            .filter_map(|x| buffer.cell((x, y)))
            .map(ratatui::buffer::Cell::symbol)
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let end = text.trim_end().len();
    text.truncate(end);
    text.push('\n');
    text
}
