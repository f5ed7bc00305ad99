//! Takes the books; gives what was missed, folded, malformed or left out, and how full the tables
//! are, in as many columns as there is room for.

use std::collections::BTreeMap;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Theme;
use crate::summary::{Summary, grouped};
use crate::top::feed::Picture;
use crate::top::names::percent;
use crate::top::state::{State, Subject};
use crate::top::tracker::FLOWS_MAX;

/// Columns of a name and its number.
const COLUMN: u16 = 39;
const NAME: usize = 24;
const NUMBER: usize = 13;

/// A heading, or a name with its number.
enum Told {
    Heading(&'static str),
    Text(String),
    Number(String, String, Style),
}

struct List {
    theme: Theme,
    told: Vec<Told>,
}

impl List {
    fn heading(&mut self, text: &'static str) {
        self.told.push(Told::Heading(text));
    }

    fn text(&mut self, name: &str, text: String) {
        self.told.push(Told::Number(name.to_owned(), text, Style::new()));
    }

    /// Text in as many lines as it takes.
    fn lines(&mut self, text: &str) {
        let characters: Vec<char> = text.chars().filter(|one| !one.is_control()).collect();
        for line in characters.chunks(usize::from(COLUMN)) {
            self.told.push(Told::Text(line.iter().collect()));
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.text(name, grouped(number));
    }

    fn known(&mut self, name: &str, number: Option<u64>) {
        self.text(name, number.map_or_else(|| "unknown".to_owned(), grouped));
    }

    /// A number that is 0 where all is well.
    fn loss(&mut self, name: &str, number: u64) {
        let style = if number == 0 { Style::new() } else { self.theme.alarm() };
        self.told.push(Told::Number(name.to_owned(), grouped(number), style));
    }

    fn reasons(&mut self, heading: &'static str, counts: &BTreeMap<&'static str, u64>) {
        if counts.values().all(|count| *count == 0) {
            return;
        }
        self.heading(heading);
        for (name, count) in counts.iter().filter(|(_, count)| **count > 0) {
            self.number(name, *count);
        }
    }
}

pub(super) fn render(state: &mut State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let Some(picture) = &state.picture else { return };
    let is_live = matches!(state.subject, Subject::Interfaces(_));
    let told = list(picture, is_live, theme).told;
    let columns = (area.width / (COLUMN + 1)).max(1);
    let height = usize::from(area.height);
    let room = height * usize::from(columns);
    state.offset = state.offset.min(told.len().saturating_sub(room));
    let shown = &told[state.offset..];
    for (number, lines) in (0..columns).zip(shown.chunks(height)) {
        let x = area.x + 1 + number * (COLUMN + 1);
        for (y, told) in (area.y..area.bottom()).zip(lines) {
            let line = match told {
                Told::Heading(text) => {
                    let rule =
                        format!("{:─<width$}", format!("{text} "), width = NAME + 1 + NUMBER);
                    Line::from(Span::styled(rule, Theme::strong().patch(theme.label())))
                }
                Told::Text(text) => Line::from(Span::styled(text.as_str(), theme.alarm())),
                Told::Number(name, number, style) => Line::from(vec![
                    Span::raw(format!("{name:<NAME$} ")),
                    Span::styled(format!("{number:>NUMBER$}"), *style),
                ]),
            };
            buffer.set_line(x, y, &line, COLUMN.min(area.right().saturating_sub(x)));
        }
    }
}

fn list(picture: &Picture, is_live: bool, theme: Theme) -> List {
    let summary = &picture.summary;
    let mut list = List { theme, told: Vec::new() };
    if is_live {
        port(summary, &mut list);
    }
    for file in summary.files.iter().filter(|file| file.error.is_some()) {
        list.heading("damaged file");
        let path = file.path.display().to_string();
        list.lines(&path);
        list.lines(file.error.as_deref().unwrap_or_default());
        list.number("frames before that", file.frames);
    }
    list.heading("frames");
    list.number("seen", summary.frames_seen);
    list.number("= IP", summary.packets_ip);
    list.number("+ not IP", summary.packets_not_ip);
    list.number("+ malformed", summary.packets_malformed);
    list.heading("IP packets");
    list.number("in flows", summary.packets_in_flows);
    if is_live {
        list.loss("folded", summary.packets_folded);
        list.number("in the kernel's tables", summary.packets_in_cache);
    }
    if summary.packets_duplicate > 0 {
        list.number("removed as duplicate", summary.packets_duplicate);
    }
    list.number("shorter than they say", summary.packets_cut);
    list.reasons("malformed", &summary.malformed);
    list.reasons("not IP", &summary.not_ip);
    list.heading("flows");
    list.number("open", summary.flows_open);
    list.number("of at most", summary.flows_open_max);
    list.number("began", summary.flows_opened);
    list.loss("evicted: no room", summary.flows_evicted);
    if is_live {
        epochs(summary, &mut list);
    }
    list.heading("these lists");
    let gone = &picture.tracked.gone;
    list.number("flows held", picture.tracked.flows.len() as u64);
    list.number("held whatever comes", FLOWS_MAX as u64);
    list.number("flows put out", gone.flows_evicted);
    list.number("flows replaced", gone.flows_replaced);
    list.number("hosts put out", gone.hosts_evicted);
    list.number("services put out", gone.services_evicted);
    list.reasons("carried in", &summary.carried);
    list.reasons("noted", &summary.noted);
    list.reasons("fragments", &summary.fragments);
    list
}

fn port(summary: &Summary, list: &mut List) {
    list.heading("port");
    list.known("frames received", summary.nic_received);
    match summary.nic_missed {
        Some(missed) => list.loss("frames missed", missed),
        None => list.known("frames missed", None),
    }
    list.known("interfaces up", summary.interfaces_up);
    list.loss("interfaces down", summary.interfaces_down.unwrap_or(0));
    list.loss("interfaces gone", summary.interfaces_gone.unwrap_or(0));
    list.loss("times one went away", summary.interface_losses.unwrap_or(0));
}

fn epochs(summary: &Summary, list: &mut List) {
    list.heading("epochs");
    list.number("drained", summary.epochs);
    list.number("early: a log was filling", summary.epochs_early);
    let permille = |fill: Option<u32>| {
        fill.map_or_else(|| "unknown".to_owned(), |fill| percent(fill.into(), 1_000))
    };
    list.text("log fill", permille(summary.log_fill_permille));
    list.text("log fill, most", permille(summary.log_fill_permille_max));
    list.known("latest lasted, ms", summary.epoch_ms);
    list.known("kernel took to end, µs", summary.grace_us);
    list.known("waited for records, ms", summary.drain_waited_ms);
}
