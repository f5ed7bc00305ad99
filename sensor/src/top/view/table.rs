//! Takes rows; gives a list with as many columns as there is room for, the first of them as wide as
//! can be.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::Theme;
use crate::top::feed::Picture;
use crate::top::names::{
    duration, fitting, percent, protocol_name, service_name, short, state_name,
};
use crate::top::rows::{IDLE_MS, Order, Row, RowId, Tab};
use crate::top::state::State;

/// What stands in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Initiator,
    Responder,
    Name,
    Protocol,
    State,
    RateThere,
    RateBack,
    PacketsThere,
    PacketsBack,
    BytesThere,
    BytesBack,
    Bytes,
    Packets,
    Share,
    Flows,
    Age,
    Silent,
}

/// A column, its title, its width (0: what is left), and the order whose mark it bears.
type Shape = (Column, &'static str, u16, Option<Order>);

/// With so many columns, packets and bytes are told by direction.
const WIDE: u16 = 140;
/// With so many, bytes are.
const MEDIUM: u16 = 118;
/// Two IPv6 addresses with ports never need more.
const END_MAX: u16 = 47;

fn columns(tab: Tab, width: u16) -> Vec<Shape> {
    use Column as C;
    let (rate, packets, bytes) = (Some(Order::Rate), Some(Order::Packets), Some(Order::Bytes));
    let [there, back] = match tab {
        Tab::Hosts => {
            [["out bit/s", "out packets", "out bytes"], ["in bit/s", "in packets", "in bytes"]]
        }
        _ => [["→bit/s", "→packets", "→bytes"], ["←bit/s", "←packets", "←bytes"]],
    };
    let is_flows = tab == Tab::Flows;
    let rates: [u16; 2] = if tab == Tab::Hosts { [10, 8] } else { [7, 6] };
    let mut shapes: Vec<Shape> = match tab {
        Tab::Hosts => vec![(C::Name, "host", 0, None)],
        Tab::Services => vec![(C::Name, "service", 0, None)],
        Tab::Protocols => vec![(C::Name, "protocol", 0, None)],
        _ => vec![
            (C::Initiator, "initiator", 0, None),
            (C::Responder, "responder", 0, None),
            (C::Protocol, "prot", if width < MEDIUM { 4 } else { 5 }, None),
            (C::State, "state", 7, None),
        ],
    };
    shapes
        .extend([(C::RateThere, there[0], rates[0], rate), (C::RateBack, back[0], rates[1], None)]);
    if width >= WIDE {
        shapes.extend([
            (C::PacketsThere, there[1], 12, packets),
            (C::PacketsBack, back[1], 10, None),
            (C::BytesThere, there[2], 12, bytes),
            (C::BytesBack, back[2], 12, None),
        ]);
    } else if width >= MEDIUM {
        shapes.push((C::Packets, "packets", 9, packets));
        shapes.push((C::BytesThere, there[2], 11, bytes));
        shapes.push((C::BytesBack, back[2], 10, None));
    } else if is_flows {
        shapes.push((C::Bytes, "bytes", 6, bytes));
    } else {
        shapes.push((C::Packets, "packets", 8, packets));
        shapes.push((C::Bytes, "bytes", 7, bytes));
    }
    if is_flows {
        if width >= 92 {
            shapes.push((C::Age, "age", 7, Some(Order::Newest)));
        }
    } else {
        shapes.push((C::Share, "share", 7, None));
        shapes.push((C::Flows, "flows", 6, Some(Order::Flows)));
    }
    if width >= if is_flows { 132 } else { 100 } {
        shapes.push((C::Silent, "silent", 7, Some(Order::Latest)));
    }
    let fixed: u16 = shapes.iter().map(|(_, _, columns, _)| columns + 1).sum();
    let flexible = shapes.iter().filter(|(_, _, columns, _)| *columns == 0).count().max(1);
    let left = width.saturating_sub(fixed + 1) / u16::try_from(flexible).unwrap_or(1);
    for (_, _, columns, _) in &mut shapes {
        if *columns == 0 {
            *columns = left.min(END_MAX);
        }
    }
    shapes
}

pub(super) fn render(state: &mut State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let body = Rect { y: area.y + 1, height: area.height - 1, ..area };
    state.scroll(body.height.into());
    let shapes = columns(state.tab, area.width);
    let order = state.order();
    let mut x = area.x + 1;
    let title_style = Theme::strong().add_modifier(Modifier::UNDERLINED).patch(theme.label());
    buffer.set_style(Rect { height: 1, ..area }, title_style);
    for (column, title, width, of) in &shapes {
        let mark = match order {
            Some((order, is_reversed)) if *of == Some(order) => {
                if is_reversed {
                    "▲"
                } else {
                    "▼"
                }
            }
            _ => "",
        };
        put(buffer, (x, area.y), &format!("{title}{mark}"), (*column, *width), title_style);
        x += width + 1;
    }
    let Some(picture) = &state.picture else { return };
    if state.rows.is_empty() {
        let none = if state.filter.is_empty() && !state.hides_idle {
            "Nothing has come yet."
        } else {
            "Nothing fits the filter."
        };
        buffer.set_stringn(body.x + 1, body.y, none, body.width.into(), Theme::faint());
        return;
    }
    let all: u64 = state.rows.iter().map(bytes).sum();
    // Of hosts each flow has two.
    let all = if state.tab == Tab::Hosts { all.div_ceil(2) } else { all };
    let selected = state.selected();
    for (line, (place, row)) in
        (body.y..body.bottom()).zip(state.rows.iter().enumerate().skip(state.offset))
    {
        let silent_ms = picture.tracked.clock.now_ms.saturating_sub(row.sums.last_ms);
        let style = match (selected == Some(place), silent_ms > IDLE_MS) {
            (true, _) => Theme::selected(),
            (false, true) => Theme::faint(),
            (false, false) => Style::new(),
        };
        buffer.set_style(Rect { y: line, height: 1, ..body }, style);
        let mut x = body.x + 1;
        for (column, _, width, _) in &shapes {
            let text = cell(*column, *width, row, picture, all);
            put(buffer, (x, line), &text, (*column, *width), style);
            x += width + 1;
        }
    }
}

fn bytes(row: &Row) -> u64 {
    row.sums.totals[0].bytes + row.sums.totals[1].bytes
}

fn cell(column: Column, width: u16, row: &Row, picture: &Picture, all: u64) -> String {
    let Row { id, sums, flow, .. } = row;
    let record = flow.and_then(|place| picture.tracked.flows.get(place)).map(|flow| &flow.record);
    let is_whole =
        flow.and_then(|place| picture.tracked.flows.get(place)).is_none_or(|flow| flow.is_whole);
    // At least so much: it may have been put out of the list before.
    let total = |number: u64| {
        let text = fitting(number, usize::from(width.saturating_sub(1)));
        if is_whole { text } else { format!("≥{text}") }
    };
    let bits = |side: usize| short(sums.rates[side].bytes.saturating_mul(8));
    let now_ms = picture.tracked.clock.now_ms;
    match column {
        Column::Initiator => record.map_or_else(String::new, |record| {
            end(record.initiator, record.initiator_port, ports(record), width)
        }),
        Column::Responder => record.map_or_else(String::new, |record| {
            end(record.responder, record.responder_port, ports(record), width)
        }),
        Column::Name => match id {
            RowId::Host(address) => end(*address, 0, false, width),
            RowId::Service(service) => service_name(*service),
            RowId::Protocol(number) => protocol_name(*number),
            RowId::Flow(_) => String::new(),
        },
        Column::Protocol => {
            record.map_or_else(String::new, |record| protocol_name(record.protocol))
        }
        Column::State => record.map_or("", state_name).to_owned(),
        Column::RateThere => bits(0),
        Column::RateBack => bits(1),
        Column::PacketsThere => total(sums.totals[0].packets),
        Column::PacketsBack => total(sums.totals[1].packets),
        Column::BytesThere => total(sums.totals[0].bytes),
        Column::BytesBack => total(sums.totals[1].bytes),
        Column::Bytes => total(bytes(row)),
        Column::Packets => total(sums.totals[0].packets + sums.totals[1].packets),
        Column::Share => percent(bytes(row), all),
        Column::Flows => fitting(sums.flows, width.into()),
        Column::Age => record
            .map_or_else(String::new, |record| duration(now_ms.saturating_sub(record.start_ms))),
        Column::Silent => duration(now_ms.saturating_sub(sums.last_ms)),
    }
}

/// Whether a flow has ports to show.
fn ports(record: &flow::Record) -> bool {
    let (number, port) = crate::top::tracker::service_of(record);
    port.is_some() && !matches!(number, flow::protocol::ICMP | flow::protocol::ICMP6)
}

/// One end of a flow, the middle of its address left out where there is no room.
fn end(address: std::net::IpAddr, port: u16, has_port: bool, width: u16) -> String {
    let (address, port) = match (address.is_ipv4(), has_port) {
        (_, false) => (address.to_string(), String::new()),
        (true, true) => (address.to_string(), format!(":{port}")),
        (false, true) => (format!("[{address}]"), format!(":{port}")),
    };
    let room = usize::from(width).saturating_sub(port.len());
    if address.len() <= room {
        return format!("{address}{port}");
    }
    let kept = room.saturating_sub(1);
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    let tail = address.get(address.len() - tail..).unwrap_or("");
    format!("{}…{tail}{port}", address.get(..head).unwrap_or(""))
}

/// Words begin at the left of their column, numbers end at its right.
fn put(
    buffer: &mut Buffer,
    (x, y): (u16, u16),
    text: &str,
    (column, width): (Column, u16),
    style: Style,
) {
    let is_text = matches!(
        column,
        Column::Initiator | Column::Responder | Column::Name | Column::Protocol | Column::State
    );
    let length = u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    if length > width {
        // What is cut shows that it is.
        let kept: String = text.chars().take(usize::from(width).saturating_sub(1)).collect();
        buffer.set_stringn(x, y, format!("{kept}…"), width.into(), style);
        return;
    }
    let before = if is_text { 0 } else { width.saturating_sub(length) };
    buffer.set_stringn(x + before, y, text, width.into(), style);
}
