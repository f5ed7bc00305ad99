//! Keys and pictures, without a terminal.

use super::super::samples::picture;
use super::*;

fn state() -> State {
    let subject = Subject::Interfaces(vec!["span0".to_owned()]);
    let mut state = State::new(subject, Tab::Flows, "");
    state.handle_picture(Box::new(picture()));
    state.scroll(10);
    state
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        assert_eq!(state.handle_key(Key::Char(key)), Action::Nothing, "{key}");
    }
}

#[test]
fn quitting_works_everywhere_but_in_a_filter_where_q_is_a_letter() {
    let mut state = state();
    assert_eq!(state.handle_key(Key::Char('q')), Action::Quit);
    press(&mut state, "/q");
    assert_eq!(state.filter.text(), "q");
    assert_eq!(state.handle_key(Key::Ctrl('c')), Action::Quit);
    press(&mut state, "\n?");
    assert_eq!(state.overlay, Overlay::Help);
    assert_eq!(state.handle_key(Key::Char('q')), Action::Quit);
}

#[test]
fn a_filter_applies_while_it_is_typed_and_goes_with_escape() {
    let mut state = state();
    let all = state.rows.len();
    press(&mut state, "/udp");
    assert!(state.rows.len() < all);
    press(&mut state, " 53");
    assert_eq!(state.rows.len(), 1);
    state.handle_key(Key::Backspace);
    press(&mut state, "3\n");
    assert_eq!((state.filter.text(), state.typed.as_deref()), ("udp 53", None));
    state.handle_key(Key::Esc);
    assert_eq!(state.rows.len(), all);
    press(&mut state, "/nothing");
    assert_eq!(state.rows.len(), 0);
    state.handle_key(Key::Down);
    state.handle_key(Key::Esc);
    assert_eq!((state.rows.len(), state.typed.as_deref()), (all, None));
    press(&mut state, "/");
    for _ in 0..2 * FILTER_BYTES_MAX {
        state.handle_key(Key::Char('ö'));
    }
    assert!(state.filter.text().len() <= FILTER_BYTES_MAX + 1);
}

#[test]
fn a_picture_that_stands_still_moves_on_to_the_newest() {
    let mut state = state();
    assert_eq!(state.handle_key(Key::Char('p')), Action::Nothing, "an interface is never held up");
    let mut next = picture();
    next.summary.frames_seen = 7;
    state.handle_picture(Box::new(next));
    let seen = |state: &State| state.picture.as_ref().map(|picture| picture.summary.frames_seen);
    assert_ne!(seen(&state), Some(7));
    state.handle_key(Key::Char(' '));
    assert_eq!(seen(&state), Some(7));
    // Of a capture the reading waits.
    state.subject = Subject::Files(vec!["a.pcap".to_owned()], Speed::WIRE);
    assert_eq!(state.handle_key(Key::Char('p')), Action::Hold(true));
    assert_eq!(state.handle_key(Key::Char('p')), Action::Hold(false));
}

#[test]
fn details_stay_with_their_flow_while_the_list_moves() {
    let mut state = state();
    state.handle_key(Key::Down);
    state.handle_key(Key::Down);
    assert_eq!(state.selected(), Some(1));
    let flow = state.rows[1].id;
    press(&mut state, "\n");
    assert_eq!(state.overlay, Overlay::Details);
    press(&mut state, "r");
    assert_eq!(state.selected(), Some(1), "the bar stays where it is");
    assert_ne!(state.rows[1].id, flow);
    assert_eq!(state.opened().map(|row| row.id), Some(flow));
    // A picture without that flow has no details of it.
    state.handle_picture(Box::default());
    assert_eq!((state.overlay, state.selected()), (Overlay::Nothing, None));
    for key in [Key::Up, Key::End, Key::PageDown, Key::Home, Key::Char('\n')] {
        state.handle_key(key);
        assert_eq!((state.selected(), state.overlay), (None, Overlay::Nothing));
    }
}

#[test]
fn a_host_opens_to_its_flows() {
    let mut state = state();
    press(&mut state, "2");
    assert_eq!(state.tab, Tab::Hosts);
    state.handle_key(Key::Down);
    press(&mut state, "\n");
    assert_eq!(state.tab, Tab::Flows);
    assert_eq!(state.filter.text(), "10.1.0.7");
    assert_eq!(state.rows.len(), 2);
    // A service of that host.
    press(&mut state, "3");
    state.handle_key(Key::End);
    press(&mut state, "\n");
    assert_eq!(state.filter.text(), "10.1.0.7 udp 53");
    assert_eq!(state.rows.len(), 1);
}

#[test]
fn lists_and_orders_come_round() {
    let mut state = state();
    for _ in Tab::ALL {
        state.handle_key(Key::BackTab);
    }
    assert_eq!(state.tab, Tab::Flows);
    for _ in Tab::Flows.orders() {
        press(&mut state, "s");
    }
    assert_eq!(state.order(), Some((Order::Rate, false)));
    press(&mut state, "Sr");
    assert_eq!(state.order(), Some((Order::Latest, true)));
    press(&mut state, "5sSri");
    assert_eq!(state.order(), None);
    // Text moves by lines, and not before its beginning.
    state.handle_key(Key::Down);
    assert_eq!(state.offset, 1);
    state.handle_key(Key::Home);
    assert_eq!(state.offset, 0);
}

#[test]
fn a_list_scrolls_as_far_as_the_selection_needs() {
    let mut state = state();
    state.scroll(2);
    state.handle_key(Key::End);
    state.scroll(2);
    assert_eq!(state.offset + 2, state.rows.len());
    state.handle_key(Key::Home);
    state.scroll(2);
    assert_eq!(state.offset, 0);
    state.scroll(100);
    assert_eq!(state.offset, 0);
}
