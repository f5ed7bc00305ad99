//! Gives the help: every key, and what the words on the screen mean.

use ratatui::text::{Line, Span};

use super::Theme;

/// Keys, or words, and what they mean.
const HELP: [(&str, &str); 22] = [
    ("1-6 Tab ← →", "the lists"),
    ("↑ ↓ PgUp PgDn", "selects a row; p keeps the list in place meanwhile, Esc lets go"),
    ("Enter", "a flow's details; of a host, service or protocol its flows"),
    ("/", "filter: words joined by and, such as  443 tcp 10.0.0.0/8 !dns"),
    ("", "(ports, addresses, prefixes, protocols, any text; ! means not)"),
    ("s S r", "next or previous order; the other way round. ▼ marks it"),
    ("i", "hides who has had no packet for 10 seconds"),
    ("p", "the picture stands still; a capture is not read meanwhile"),
    ("q Ctrl-C", "quits, and detaches from the port"),
    ("rates", "averages of about 3 seconds; the graphs show 2 minutes or more"),
    ("→ ←", "from the initiator (who opened it), from the responder"),
    ("open", "TCP: SYN, SYN-ACK and an ACK were seen; then closed or reset"),
    ("syn, syn-ack", "TCP: opened and not answered; answered and not confirmed"),
    ("refused", "TCP: the SYN was answered with RST"),
    ("midway", "TCP: both directions, but it began before it was seen"),
    ("one-way", "only one direction is seen: half a mirror, or no answer"),
    ("missed", "frames that the card dropped; unknown: its driver does not tell"),
    ("folded", "packets in coarse totals only: the kernel's tables were full"),
    ("evicted", "flows that were reported early: the flow table was full"),
    ("log", "room for new flows in the kernel, of the fullest processor"),
    ("≈", "more flows than the lists hold (10,000); the smallest were put"),
    ("", "out, and stay in the sums. ≥ marks totals that may lack a part"),
];

pub(super) fn lines(theme: Theme) -> Vec<Line<'static>> {
    let line = |(name, text): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("{name:<14}"), theme.label()), Span::raw(*text)])
    };
    // As many as the smallest screen has room for.
    HELP.iter().map(line).collect()
}
