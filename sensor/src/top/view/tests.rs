//! Screens as people see them, without colour: nothing may need it.

use expect_test::{Expect, expect};
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::termion::event::Key;

use super::super::feed::Position;
use super::super::samples::{START_MS, picture};
use super::super::state::{State, Subject};
use super::super::text;
use super::*;

const PLAIN: Theme = Theme { has_colours: false, is_printed: false };

fn live() -> State {
    let mut state = State::new(Subject::Interfaces(vec!["span0".to_owned()]), Tab::Flows, "");
    state.handle_picture(Box::new(picture()));
    state
}

fn check(state: &mut State, (columns, rows): (u16, u16), expected: &Expect) {
    expected.assert_eq(&text(state, PLAIN, columns, rows));
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        state.handle_key(Key::Char(key));
    }
}

#[test]
fn flows_on_the_smallest_screen() {
    check(&mut live(), (80, 24), &expect![[""]]);
}

#[test]
fn flows_on_a_wide_screen() {
    check(&mut live(), (150, 24), &expect![[""]]);
}

#[test]
fn hosts_services_and_protocols() {
    let mut state = live();
    press(&mut state, "2");
    check(&mut state, (80, 24), &expect![[""]]);
    press(&mut state, "3");
    check(&mut state, (112, 24), &expect![[""]]);
    press(&mut state, "4ssssr");
    check(&mut state, (100, 24), &expect![[""]]);
}

#[test]
fn losses_and_messages() {
    let mut state = live();
    press(&mut state, "5");
    check(&mut state, (120, 30), &expect![[""]]);
    let said = "WARN the kernel's flow tables were full: ".repeat(3);
    state.handle_messages(vec!["INFO listens only".to_owned(), said]);
    check(&mut state, (80, 24), &expect![[""]]);
    press(&mut state, "6");
    check(&mut state, (80, 24), &expect![[""]]);
}

#[test]
fn help_and_details_lie_over_the_list() {
    let mut state = live();
    press(&mut state, "?");
    check(&mut state, (80, 24), &expect![[""]]);
    press(&mut state, "?");
    state.handle_key(Key::Down);
    press(&mut state, "\n");
    check(&mut state, (100, 30), &expect![[""]]);
}

#[test]
fn a_filter_a_pause_and_what_is_approximate_are_told() {
    let mut state = live();
    let mut later = picture();
    later.tracked.gone.flows_evicted = 5;
    later.tracked.flows[0].is_whole = false;
    state.handle_picture(Box::new(later));
    press(&mut state, "pi/443");
    check(&mut state, (100, 24), &expect![[""]]);
    press(&mut state, "\n");
    check(&mut state, (100, 24), &expect![[""]]);
}

#[test]
fn a_capture_file_says_where_it_is() {
    let names = vec!["a.pcap".to_owned(), "b.pcap".to_owned()];
    let mut state =
        State::new(Subject::Files(names, "10x".parse().expect("a speed")), Tab::Flows, "udp");
    let waiting = text(&mut state, PLAIN, 80, 24);
    assert!(waiting.contains("waiting for the first epoch"), "{waiting}");
    let mut at = picture();
    let position = Position {
        file: 2,
        time_ms: START_MS + 31_000,
        bytes_read: 250,
        bytes: Some(1_000),
        ended: false,
    };
    at.position = Some(position.clone());
    at.summary.xdp_mode = None;
    at.summary.epoch_ms = None;
    state.handle_picture(Box::new(at.clone()));
    check(&mut state, (80, 24), &expect![[""]]);
    at.position = Some(Position { ended: true, ..position });
    state.handle_picture(Box::new(at));
    let ended = text(&mut state, PLAIN, 80, 24);
    assert!(ended.lines().next().is_some_and(|line| line.ends_with("UTC, the end")), "{ended}");
}

#[test]
fn a_printed_screen_names_its_list_and_no_keys() {
    let printed = Theme { has_colours: false, is_printed: true };
    let text = text(&mut live(), printed, 80, 24);
    assert!(text.contains("\n FLOWS\n") && !text.contains("quit"), "{text}");
}

#[test]
fn no_size_breaks_it_and_a_small_one_is_told() {
    for columns in (1..=200).step_by(7) {
        for rows in [1, 2, 10, 23, 24, 60] {
            for tab in "123456?".chars() {
                let mut state = live();
                state.handle_key(Key::Char(tab));
                let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
                render(&mut state, PLAIN, buffer.area, &mut buffer);
            }
        }
    }
    let small = text(&mut live(), PLAIN, 60, 10);
    assert!(
        small.starts_with("This terminal has 60 x 10 characters;\ntop needs 80 x 24."),
        "{small}"
    );
}

#[test]
fn colours_say_nothing_that_is_not_said_without_them() {
    let screen = |theme| {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 100, 30));
        render(&mut live(), theme, buffer.area, &mut buffer);
        buffer
    };
    let (plain, coloured) = (screen(PLAIN), screen(Theme { has_colours: true, ..PLAIN }));
    let symbols = |buffer: &Buffer| {
        buffer.content().iter().map(|cell| cell.symbol().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(symbols(&plain), symbols(&coloured));
    let has_colour = |cell: &Cell| cell.fg != Color::Reset || cell.bg != Color::Reset;
    assert!(!plain.content().iter().any(has_colour), "NO_COLOR means none");
    assert!(coloured.content().iter().any(has_colour));
}
