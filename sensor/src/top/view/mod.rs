//! Takes the state; gives the cells of a screen. Nothing here needs colour to be understood, and
//! nothing is decided here.

mod details;
mod header;
mod help;
mod losses;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Widget as _};

use super::rows::Tab;
use super::state::{Overlay, State};
use super::tracker::FLOWS_MAX;
use crate::summary::grouped;

/// Smallest screen that everything has a place on.
pub(crate) const COLUMNS_MIN: u16 = 80;
/// The same, rows.
pub(crate) const ROWS_MIN: u16 = 24;

/// How things are set off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// Colours may be used, beside what says the same without.
    pub(crate) has_colours: bool,
    /// The screen is read as text, and nobody can press a key.
    pub(crate) is_printed: bool,
}

impl Theme {
    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.has_colours { style.fg(colour) } else { style }
    }

    /// Words that say what stands beside them.
    fn label(self) -> Style {
        self.coloured(Style::new(), Color::Cyan)
    }

    /// What is to be seen first.
    const fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What can be passed over.
    const fn faint() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// What is not as it should be.
    fn alarm(self) -> Style {
        self.coloured(Self::strong(), Color::Red)
    }

    /// What is to be noted.
    fn notice(self) -> Style {
        self.coloured(Self::strong(), Color::Yellow)
    }

    fn graph(self) -> Style {
        self.coloured(Style::new(), Color::Green)
    }

    const fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// Draws everything.
pub(crate) fn render(state: &mut State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let told = [
            format!("This terminal has {} x {} characters;", area.width, area.height),
            format!("top needs {COLUMNS_MIN} x {ROWS_MIN}. Enlarge it, or q quits."),
        ];
        Paragraph::new(told.map(Line::from).to_vec()).render(area, buffer);
        return;
    }
    let row = |from: u16, height| Rect { y: area.y + from, height, ..area };
    header::render(state, theme, row(0, header::ROWS), buffer);
    tabs(state, theme, row(header::ROWS, 1), buffer);
    let body = row(header::ROWS + 1, area.height - header::ROWS - 2);
    match state.tab {
        Tab::Losses => losses::render(state, theme, body, buffer),
        Tab::Messages => messages(state, body, buffer),
        Tab::Flows | Tab::Hosts | Tab::Services | Tab::Protocols => {
            table::render(state, theme, body, buffer);
        }
    }
    footer(state, theme, row(area.height - 1, 1), buffer);
    match state.overlay {
        Overlay::Nothing => {}
        Overlay::Help => over("help: any key closes it", &help::lines(theme), area, buffer),
        Overlay::Details => {
            let lines = details::lines(state, theme);
            over("flow: Esc closes it", &lines, area, buffer);
        }
    }
}

fn tabs(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let mut line = Line::default();
    for (number, tab) in (1..).zip(Tab::ALL) {
        let unread = state.messages.len().saturating_sub(state.messages_read);
        let count = if tab == Tab::Messages && unread > 0 {
            Cow::Owned(format!(" ({unread} new)"))
        } else {
            Cow::Borrowed("")
        };
        let text = format!(" {number} {}{count} ", tab.name());
        let style = if tab == state.tab {
            Theme::selected().add_modifier(Modifier::BOLD)
        } else if !count.is_empty() && is_alarming(state) {
            theme.notice()
        } else {
            theme.label()
        };
        line.push_span(Span::styled(
            if theme.is_printed { named(tab, state) } else { text },
            style,
        ));
    }
    buffer.set_line(area.x, area.y, &line, area.width);
}

/// Whether something that was said since somebody looked is more than information.
fn is_alarming(state: &State) -> bool {
    let mut unread = state.messages.iter().skip(state.messages_read);
    unread.any(|line| line.contains("WARN") || line.contains("ERROR"))
}

/// On paper nothing is reversed: the tab that is shown is the one that is named.
fn named(tab: Tab, state: &State) -> String {
    if tab == state.tab { format!(" {}", tab.name().to_uppercase()) } else { String::new() }
}

fn footer(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let line = match &state.typed {
        Some(typed) => Line::from(vec![
            Span::styled(" filter ", theme.notice()),
            Span::raw(typed.clone()),
            Span::styled(" ", Theme::selected()),
            Span::styled("  Enter keeps, Esc clears; as: 443 tcp 10.0.0.0/8 !dns", Theme::faint()),
        ]),
        None if !state.filter.is_empty() => {
            let text = state.filter.text().to_owned();
            let mut spans = vec![Span::styled(" filter ", theme.notice()), Span::raw(text)];
            if !theme.is_printed {
                spans.push(Span::styled("   / changes, Esc clears it", Theme::faint()));
            }
            Line::from(spans)
        }
        None if theme.is_printed => Line::default(),
        None => keys(theme),
    };
    buffer.set_line(area.x, area.y, &line, area.width);
    if state.typed.is_none() && !state.tab.orders().is_empty() {
        let text = format!(" {} ", shown(state, area.width));
        let columns = u16::try_from(text.chars().count()).unwrap_or(area.width).min(area.width);
        buffer.set_stringn(area.right() - columns, area.y, text, columns.into(), Theme::faint());
    }
}

fn keys(theme: Theme) -> Line<'static> {
    let keys = [
        ("?", "help"),
        ("/", "filter"),
        ("s", "sort"),
        ("i", "idle"),
        ("p", "pause"),
        ("q", "quit"),
    ];
    let mut line = Line::default();
    for (key, does) in keys {
        line.push_span(Span::styled(format!(" {key}"), theme.label().add_modifier(Modifier::BOLD)));
        line.push_span(Span::raw(format!(" {does} ")));
    }
    line
}

/// Which rows of how many are there to see.
fn shown(state: &State, columns: u16) -> String {
    let all = state.rows.len();
    let last = (state.offset + state.page).min(all);
    let places = [(state.offset + 1).min(all), last, all];
    let [first, last, all] = places.map(|place| grouped(place as u64));
    let order = state.order().map_or("", |(order, _)| order.name());
    let idle = if state.hides_idle { ", not idle" } else { "" };
    let evicted = state.picture.as_ref().map_or(0, |picture| picture.tracked.gone.flows_evicted);
    let approximate = match evicted {
        0 => String::new(),
        _ if columns < 100 => " ≈".to_owned(),
        _ => format!(", approximate beyond {} flows", grouped(FLOWS_MAX as u64)),
    };
    format!("{first}-{last} of {all} by {order}{idle}{approximate}")
}

/// The latest last, as long as nobody goes back.
fn messages(state: &mut State, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width.saturating_sub(1)).max(1);
    let mut lines: Vec<String> = Vec::new();
    for message in &state.messages {
        let characters: Vec<char> = message.chars().collect();
        lines.extend(characters.chunks(width).map(|line| line.iter().collect::<String>()));
    }
    if lines.is_empty() {
        lines.push("The sensor has said nothing.".to_owned());
    }
    let height = usize::from(area.height);
    // Counted from the end: what is new moves the text, not the reader.
    state.offset = state.offset.min(lines.len().saturating_sub(height));
    let end = lines.len() - state.offset;
    for (row, line) in (area.y..area.bottom()).zip(&lines[end.saturating_sub(height)..end]) {
        buffer.set_stringn(area.x + 1, row, line, width, Style::new());
    }
}

/// A box with these lines over the middle of `area`.
fn over(title: &str, lines: &[Line<'_>], area: Rect, buffer: &mut Buffer) {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len() + 2);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let area = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(area, buffer);
    let block = Block::bordered().border_type(BorderType::Rounded).title(format!(" {title} "));
    let inner = block.inner(area);
    block.render(area, buffer);
    for (row, line) in (inner.y..inner.bottom()).zip(lines) {
        buffer.set_line(inner.x + 1, row, line, inner.width.saturating_sub(2));
    }
}

/// A moment as people write it, in UTC.
fn time(ms: u64) -> String {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(
        || format!("{ms} ms"),
        |time| format!("{:.10} {:.8}", time.strftime("%F"), time.strftime("%T")),
    )
}
