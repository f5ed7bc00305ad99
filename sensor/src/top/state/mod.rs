//! Takes keys and pictures; gives what is to be shown, and what somebody wants done. Pure.

use ratatui::termion::event::Key;

use super::feed::Picture;
use super::filter::Filter;
use super::rows::{Order, Row, RowId, Tab, Wish, rows};
use crate::pipeline::Speed;

/// Longest filter that can be typed, bytes.
const FILTER_BYTES_MAX: usize = 200;

/// What is watched.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Subject {
    /// These interfaces.
    Interfaces(Vec<String>),
    /// These files, by their names, read so fast.
    Files(Vec<String>, Speed),
}

/// What somebody at the keyboard wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Quit,
    /// Reading a capture is to stop, or to go on.
    Hold(bool),
}

/// What lies over the lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overlay {
    #[default]
    Nothing,
    Help,
    /// Everything about the selected flow.
    Details,
}

/// What is shown, and how.
pub(crate) struct State {
    pub(crate) subject: Subject,
    pub(crate) picture: Option<Box<Picture>>,
    /// What came while the picture stands still.
    newest: Option<Box<Picture>>,
    pub(crate) rows: Vec<Row>,
    pub(crate) tab: Tab,
    /// Place in [`Tab::orders`], and whether it is the other way round.
    orders: [(usize, bool); Tab::ALL.len()],
    pub(crate) filter: Filter,
    /// A filter that is being typed.
    pub(crate) typed: Option<String>,
    pub(crate) overlay: Overlay,
    /// Where the bar stands; what is under it may change.
    selected: Option<usize>,
    /// The flow whose details are shown.
    opened: Option<RowId>,
    /// First row, or line, that is shown.
    pub(crate) offset: usize,
    /// Rows that there was room for.
    pub(crate) page: usize,
    pub(crate) is_paused: bool,
    pub(crate) hides_idle: bool,
    pub(crate) messages: Vec<String>,
    /// Messages that there have been when they were last looked at.
    pub(crate) messages_read: usize,
}

impl State {
    pub(crate) fn new(subject: Subject, tab: Tab, filter: &str) -> Self {
        let is_file_at_once = matches!(&subject, Subject::Files(_, speed) if *speed == Speed::MAX);
        Self {
            subject,
            picture: None,
            newest: None,
            rows: Vec::new(),
            tab,
            // The rates at the end of a file say little about the file.
            orders: [(usize::from(is_file_at_once), false); Tab::ALL.len()],
            filter: Filter::new(filter),
            typed: None,
            overlay: Overlay::Nothing,
            selected: None,
            opened: None,
            offset: 0,
            page: 1,
            is_paused: false,
            hides_idle: false,
            messages: Vec::new(),
            messages_read: 0,
        }
    }

    /// Shows it, unless the picture stands still.
    pub(crate) fn handle_picture(&mut self, picture: Box<Picture>) {
        if self.is_paused {
            self.newest = Some(picture);
        } else {
            self.picture = Some(picture);
            self.list();
        }
    }

    /// Takes over what has been said so far.
    pub(crate) fn handle_messages(&mut self, messages: Vec<String>) {
        self.messages = messages;
        if self.tab == Tab::Messages {
            self.messages_read = self.messages.len();
        }
    }

    pub(crate) fn handle_key(&mut self, key: Key) -> Action {
        if key == Key::Ctrl('c') {
            return Action::Quit;
        }
        if self.typed.is_some() {
            self.handle_typing(key);
            return Action::Nothing;
        }
        match key {
            Key::Char('q') => return Action::Quit,
            Key::Char('p' | ' ') => return self.pause(),
            Key::Esc => self.step_back(),
            Key::Char('?' | 'h') | Key::F(1) => self.toggle(Overlay::Help),
            _ if self.overlay == Overlay::Help => self.overlay = Overlay::Nothing,
            Key::Char('\n') => self.open(),
            Key::Char('/') => self.typed = Some(self.filter.text().to_owned()),
            Key::Char('s') => self.reorder(1),
            Key::Char('S') => self.reorder(-1),
            Key::Char('r') => {
                let (_, is_reversed) = &mut self.orders[self.tab as usize];
                *is_reversed = !*is_reversed;
                self.list();
            }
            Key::Char('i') => {
                self.hides_idle = !self.hides_idle;
                self.list();
            }
            Key::Char('\t') | Key::Right => self.turn_to(1),
            Key::BackTab | Key::Left => self.turn_to(-1),
            Key::Char(digit @ '1'..='6') => {
                let place = usize::try_from(u32::from(digit) - u32::from('1')).unwrap_or(0);
                self.show(Tab::ALL[place]);
            }
            Key::Down | Key::Char('j') => self.go(1),
            Key::Up | Key::Char('k') => self.go(-1),
            Key::PageDown => self.go(self.page.max(1).cast_signed()),
            Key::PageUp => self.go(-self.page.max(1).cast_signed()),
            Key::Home | Key::Char('g') => self.go(isize::MIN),
            Key::End | Key::Char('G') => self.go(isize::MAX),
            _ => {}
        }
        Action::Nothing
    }

    /// What comes first, and whether the list is the other way round; `None` where there is no
    /// list.
    pub(crate) fn order(&self) -> Option<(Order, bool)> {
        let (place, is_reversed) = self.orders[self.tab as usize];
        Some((*self.tab.orders().get(place)?, is_reversed))
    }

    /// Where the bar stands.
    pub(crate) fn selected(&self) -> Option<usize> {
        let last = self.rows.len().checked_sub(1)?;
        self.selected.map(|place| place.min(last))
    }

    /// The row whose details are shown, while it is there.
    pub(crate) fn opened(&self) -> Option<&Row> {
        let opened = self.opened?;
        self.rows.iter().find(|row| row.id == opened)
    }

    fn handle_typing(&mut self, key: Key) {
        let Some(typed) = &mut self.typed else { return };
        match key {
            Key::Char('\n') => self.typed = None,
            Key::Esc => {
                self.typed = None;
                self.filter = Filter::default();
            }
            Key::Backspace => {
                typed.pop();
            }
            Key::Ctrl('u') => typed.clear(),
            Key::Char(typed_char) if !typed_char.is_control() => {
                if typed.len() < FILTER_BYTES_MAX {
                    typed.push(typed_char);
                }
            }
            _ => return,
        }
        if let Some(typed) = &self.typed {
            self.filter = Filter::new(typed);
        }
        self.offset = 0;
        self.list();
    }

    fn pause(&mut self) -> Action {
        self.is_paused = !self.is_paused;
        if !self.is_paused
            && let Some(newest) = self.newest.take()
        {
            self.picture = Some(newest);
            self.list();
        }
        match self.subject {
            Subject::Interfaces(_) => Action::Nothing,
            Subject::Files(..) => Action::Hold(self.is_paused),
        }
    }

    /// Undoes one thing at a time.
    fn step_back(&mut self) {
        if self.overlay != Overlay::Nothing {
            self.overlay = Overlay::Nothing;
        } else if self.selected().is_some() {
            self.selected = None;
            self.offset = 0;
        } else if !self.filter.is_empty() {
            self.filter = Filter::default();
            self.list();
        }
    }

    fn toggle(&mut self, overlay: Overlay) {
        self.overlay = if self.overlay == overlay { Overlay::Nothing } else { overlay };
    }

    /// Opens what is selected: a flow's details, or the flows of a host, service or protocol.
    fn open(&mut self) {
        use super::names::protocol_name;
        let Some(place) = self.selected() else { return };
        let id = self.rows[place].id;
        let filter = match id {
            RowId::Flow(_) => {
                self.opened = Some(id);
                return self.toggle(Overlay::Details);
            }
            RowId::Host(address) => address.to_string(),
            RowId::Service((number, Some(port))) => {
                let name = protocol_name(number);
                // The number of an ICMP message is no port.
                if name.starts_with("icmp") { name } else { format!("{name} {port}") }
            }
            RowId::Service((number, None)) | RowId::Protocol(number) => protocol_name(number),
        };
        let filter = format!("{} {filter}", self.filter.text());
        self.filter = Filter::new(&filter);
        self.show(Tab::Flows);
    }

    fn reorder(&mut self, step: isize) {
        let count = self.tab.orders().len();
        if count > 0 {
            let (place, _) = &mut self.orders[self.tab as usize];
            *place = place.wrapping_add(count).wrapping_add_signed(step) % count;
        }
        self.list();
    }

    fn turn_to(&mut self, step: isize) {
        let count = Tab::ALL.len();
        let place = (self.tab as usize + count).wrapping_add_signed(step) % count;
        self.show(Tab::ALL[place]);
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.overlay = Overlay::Nothing;
        self.selected = None;
        self.offset = 0;
        if tab == Tab::Messages {
            self.messages_read = self.messages.len();
        }
        self.list();
    }

    /// Moves the selection, or the text where there is none.
    fn go(&mut self, step: isize) {
        if self.tab.orders().is_empty() {
            self.offset = self.offset.saturating_add_signed(step);
            return;
        }
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let place = match self.selected() {
            // The first step selects what is at the top.
            None if step == 1 => self.offset.min(last),
            None => self.offset.saturating_add_signed(step).min(last),
            Some(place) => place.saturating_add_signed(step).min(last),
        };
        self.selected = Some(place);
    }

    /// Makes the rows anew.
    fn list(&mut self) {
        let Some((order, is_reversed)) = self.order() else {
            self.rows.clear();
            return;
        };
        let Some(picture) = &self.picture else { return };
        let wish = Wish {
            tab: self.tab,
            filter: &self.filter,
            hides_idle: self.hides_idle,
            order,
            is_reversed,
        };
        self.rows = rows(&picture.tracked, wish);
        if self.overlay == Overlay::Details && self.opened().is_none() {
            self.overlay = Overlay::Nothing;
        }
    }

    /// Moves the list so that the selected row is among the `page` that there is room for.
    pub(crate) fn scroll(&mut self, page: usize) {
        self.page = page;
        if let Some(selected) = self.selected() {
            self.offset = self.offset.min(selected).max((selected + 1).saturating_sub(page));
        }
        self.offset = self.offset.min(self.rows.len().saturating_sub(page));
    }
}

#[cfg(test)]
mod tests;
