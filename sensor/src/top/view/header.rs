//! Takes the latest picture; gives the lines at the top: what is watched, how much comes, what is
//! lost, how full the tables are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline, Widget as _};

use super::{Theme, time};
use crate::summary::{Summary, grouped};
use crate::top::feed::Picture;
use crate::top::names::{duration, percent, short};
use crate::top::rate::Graph;
use crate::top::state::{State, Subject};

/// Lines of the header.
pub(super) const ROWS: u16 = 5;
/// The graphs go back this far, at least.
const GRAPH_SECONDS: u64 = 120;
/// Columns of a graph's name and number.
const NUMBER_COLUMNS: u16 = 19;
/// The highest cell of a graph is told as a number where the graph has so many columns, and takes
/// so many.
const PEAK_FROM_COLUMNS: u16 = 56;
const PEAK_COLUMNS: u16 = 10;
/// A log this full, thousandths, is near to folding.
const LOG_FILL_NOTICE: u32 = 700;

pub(super) fn render(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let row = |number: u16| Rect { y: area.y + number, height: 1, ..area };
    title(state, theme, row(0), buffer);
    let Some(picture) = &state.picture else {
        let waiting = "  waiting for the first epoch";
        buffer.set_stringn(area.x, area.y + 1, waiting, area.width.into(), Theme::faint());
        return;
    };
    let halves = |row: Rect| {
        let left = Rect { width: area.width / 2, ..row };
        (left, Rect { x: left.right(), width: area.width - left.width, ..row })
    };
    let (left, right) = halves(row(1));
    let flows_and_frames = picture.flows_and_frames;
    graph(picture, theme, ("packets/s", Graph::Packets, picture.rate.packets), left, buffer);
    graph(
        picture,
        theme,
        ("bits/s", Graph::Bits, picture.rate.bytes.saturating_mul(8)),
        right,
        buffer,
    );
    let (left, right) = halves(row(2));
    graph(picture, theme, ("new flows/s", Graph::Flows, flows_and_frames.packets), left, buffer);
    graph(picture, theme, ("frames/s", Graph::Frames, flows_and_frames.bytes), right, buffer);
    let is_live = matches!(state.subject, Subject::Interfaces(_));
    buffer.set_line(area.x, area.y + 3, &lost(&picture.summary, is_live, theme), area.width);
    buffer.set_line(area.x, area.y + 4, &tables(&picture.summary, theme), area.width);
}

fn title(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let picture = state.picture.as_deref();
    let mut right = match &state.subject {
        Subject::Interfaces(_) => picture.map_or_else(String::new, |picture| {
            format!("up {}", duration(picture.tracked.clock.elapsed_ms()))
        }),
        Subject::Files(..) => {
            picture.map_or_else(String::new, |picture| progress(picture, area.width))
        }
    };
    if state.is_paused {
        right = format!("{right}  PAUSED");
    }
    let left = match &state.subject {
        Subject::Interfaces(names) => {
            let mode = picture.and_then(|picture| picture.summary.xdp_mode);
            let mode = mode.map_or_else(String::new, |mode| format!(" ({mode} XDP)"));
            format!("{}{mode}", names.join(", "))
        }
        Subject::Files(names, speed) => {
            let at = picture.and_then(|picture| picture.position.as_ref());
            let place = at.map_or(1, |at| at.file).max(1);
            let name = names.get(place - 1).map_or("", String::as_str);
            let many = if names.len() > 1 {
                format!(" ({place} of {})", names.len())
            } else {
                String::new()
            };
            format!("{name}{many}, speed {speed}")
        }
    };
    let style = if state.is_paused { theme.notice() } else { Style::new() };
    let columns = u16::try_from(right.chars().count() + 1).unwrap_or(area.width).min(area.width);
    let room = usize::from(area.width.saturating_sub(columns + 1));
    let name = Span::styled(" spanwatch top  ", Theme::strong().patch(theme.label()));
    let line = Line::from(vec![name, Span::styled(left, Theme::strong())]);
    buffer.set_line(area.x, area.y, &line, u16::try_from(room).unwrap_or(area.width));
    buffer.set_stringn(area.right() - columns, area.y, right, columns.into(), style);
}

fn progress(picture: &Picture, columns: u16) -> String {
    let Some(position) = &picture.position else { return String::new() };
    let time = time(position.time_ms);
    // On a small screen the day is left out.
    let time =
        time.split_once(' ').filter(|_| columns < 100).map_or(time.as_str(), |(_, time)| time);
    if position.ended {
        return format!("{time} UTC, the end");
    }
    match position.bytes {
        Some(bytes) => format!("{time} UTC, {}", percent(position.bytes_read, bytes)),
        None => format!("{time} UTC"),
    }
}

/// A number and how it was of late.
fn graph(
    picture: &Picture,
    theme: Theme,
    (name, graph, rate): (&str, Graph, u64),
    area: Rect,
    buffer: &mut Buffer,
) {
    let line = Line::from(vec![
        Span::styled(format!(" {name:<11} "), theme.label()),
        Span::styled(format!("{:>5} ", short(rate)), Theme::strong()),
    ]);
    buffer.set_line(area.x, area.y, &line, NUMBER_COLUMNS);
    let with_peak = area.width >= PEAK_FROM_COLUMNS;
    let peak_columns = if with_peak { PEAK_COLUMNS } else { 0 };
    let room = area.width.saturating_sub(NUMBER_COLUMNS + 1 + peak_columns);
    // Whole seconds in each cell, and at least so many minutes in all.
    let seconds = GRAPH_SECONDS.div_ceil(u64::from(room.max(1)));
    let cells = picture.history.cells(graph, room.into(), seconds);
    if let Some(peak) = cells.iter().flatten().max().filter(|_| with_peak) {
        let text = format!(" max {:<5}", short(*peak));
        let x = area.x + NUMBER_COLUMNS + room;
        buffer.set_stringn(x, area.y, text, PEAK_COLUMNS.into(), Theme::faint());
    }
    let spark = Rect { x: area.x + NUMBER_COLUMNS, width: room, ..area };
    Sparkline::default()
        .data(cells)
        .direction(RenderDirection::LeftToRight)
        .absent_value_symbol(" ")
        .style(theme.graph())
        .render(spark, buffer);
}

/// A line of numbers, each with its word; a style where one is not as it should be.
struct Told<'a> {
    theme: Theme,
    line: Line<'a>,
    is_first: bool,
}

impl Told<'_> {
    fn new(name: &str, theme: Theme) -> Self {
        let line = Line::from(Span::styled(format!(" {name:<7} "), theme.label()));
        Self { theme, line, is_first: true }
    }

    fn add(&mut self, text: String, style: Style) {
        if !self.is_first {
            self.line.push_span(Span::styled(" · ", Theme::faint()));
        }
        self.is_first = false;
        self.line.push_span(Span::styled(text, style));
    }

    /// A count that is 0 where all is well.
    fn count(&mut self, what: &str, count: u64) {
        let style = if count == 0 { Style::new() } else { self.theme.alarm() };
        self.add(format!("{what} {}", grouped(count)), style);
    }
}

fn lost(summary: &Summary, is_live: bool, theme: Theme) -> Line<'static> {
    let mut told = Told::new("lost", theme);
    if is_live {
        match summary.nic_missed {
            Some(missed) => told.count("missed", missed),
            // The driver does not tell.
            None => told.add("missed unknown".to_owned(), theme.notice()),
        }
        told.count("folded", summary.packets_folded);
    }
    told.count("evicted", summary.flows_evicted);
    if summary.files.iter().any(|file| file.error.is_some()) {
        told.add("a damaged file".to_owned(), theme.alarm());
    }
    let style = if summary.packets_malformed == 0 { Style::new() } else { theme.notice() };
    told.add(format!("malformed {}", grouped(summary.packets_malformed)), style);
    told.add(format!("not IP {}", grouped(summary.packets_not_ip)), Style::new());
    if summary.interfaces_down.unwrap_or(0) + summary.interfaces_gone.unwrap_or(0) > 0 {
        told.add("interface down".to_owned(), theme.alarm());
    }
    told.line
}

fn tables(summary: &Summary, theme: Theme) -> Line<'static> {
    let mut told = Told::new("tables", theme);
    let Summary { flows_open, flows_open_max, .. } = *summary;
    let is_full = flows_open.saturating_mul(10) >= flows_open_max.saturating_mul(9);
    let style = if is_full { theme.alarm() } else { Style::new() };
    let (open, most) = (grouped(flows_open), short(flows_open_max));
    told.add(format!("flows {open} of {most} ({})", percent(flows_open, flows_open_max)), style);
    if let Some(epoch_ms) = summary.epoch_ms {
        let fill = summary.log_fill_permille.unwrap_or(0);
        let most = summary.log_fill_permille_max.unwrap_or(0);
        let style = if most >= LOG_FILL_NOTICE { theme.notice() } else { Style::new() };
        let (fill, most) = (percent(fill.into(), 1_000), percent(most.into(), 1_000));
        told.add(format!("log {fill}, most {most}"), style);
        told.add(format!("epoch {epoch_ms} ms"), Style::new());
    }
    told.line
}
