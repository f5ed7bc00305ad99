//! Screens as people see them, without colour: nothing may need it.

use expect_test::{Expect, expect, expect_file};
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
    // The first line keeps the blanks that all others begin with.
    let text = text(state, PLAIN, columns, rows);
    expected.assert_eq(&format!("{columns} x {rows}\n{text}"));
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        state.handle_key(Key::Char(key));
    }
}

#[test]
fn flows_on_the_smallest_screen() {
    check(
        &mut live(),
        (80, 24),
        &expect![[r"
            80 x 24
             spanwatch top  span0 (native XDP)                                       up 31s
             packets/s     550               ▄▃▄▄▄█  bits/s      5.33M               ▄▃▄▄▄█
             new flows/s     2               ██████  frames/s      551               ▃▃▃▄▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             initiator             responder             prot state   →bit/s▼ ←bit/s  bytes
             10.1.0.7:51000        192.0.2.10:443        tcp  open      52.8k  4.80M  18.1M
             [2001:d…0:1::7]:52000 [2001:db…bc:def0]:443 udp  one-way    480k      0  1.80M
             10.1.0.7:40001        10.1.0.53:53          udp  both          0      0    320
             203.0.113.9:44000     10.1.0.20:22          tcp  syn           0      0    222












             ? help  / filter  s sort  i idle  p pause  q quit             1-4 of 4 by rate
        "]],
    );
}

#[test]
fn flows_on_a_wide_screen() {
    expect_file!["wide.txt"].assert_eq(&text(&mut live(), PLAIN, 150, 24));
}

#[test]
fn hosts_services_and_protocols() {
    let mut state = live();
    press(&mut state, "2");
    check(
        &mut state,
        (80, 24),
        &expect![[r"
            80 x 24
             spanwatch top  span0 (native XDP)                                       up 31s
             packets/s     550               ▄▃▄▄▄█  bits/s      5.33M               ▄▃▄▄▄█
             new flows/s     2               ██████  frames/s      551               ▃▃▃▄▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             host                       out bit/s▼ in bit/s  packets   bytes   share  flows
             10.1.0.7                        52.8k    4.80M   15,004   18.1M  90.9 %      2
             192.0.2.10                      4.80M    52.8k   15,002   18.1M  90.9 %      1
             2001:db8:0:1::7                  480k        0    1,500   1.80M   9.0 %      1
             2001:db8:beef…78:9abc:def0          0     480k    1,500   1.80M   9.0 %      1
             10.1.0.53                           0        0        2     320   0.0 %      1
             10.1.0.20                           0        0        3     222   0.0 %      1
             203.0.113.9                         0        0        3     222   0.0 %      1









             ? help  / filter  s sort  i idle  p pause  q quit             1-7 of 7 by rate
        "]],
    );
    press(&mut state, "3");
    check(
        &mut state,
        (108, 24),
        &expect![[r"
            108 x 24
             spanwatch top  span0 (native XDP)                                                                   up 31s
             packets/s     550                           ▃▆▃▆▃▆▃█  bits/s      5.33M                           ▃▆▃▆▃▆▃█
             new flows/s     2                           ██ ██ ██  frames/s      551                           ▃▅▃▅▃▅▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             service                                         →bit/s▼ ←bit/s  packets   bytes   share  flows  silent
             tcp/443 https                                     52.8k  4.80M   15,002   18.1M  90.9 %      1    0.1s
             udp/443 quic                                       480k      0    1,500   1.80M   9.0 %      1    0.1s
             udp/53 domain                                         0      0        2     320   0.0 %      1     30s
             tcp/22 ssh                                            0      0        3     222   0.0 %      1     30s












             ? help  / filter  s sort  i idle  p pause  q quit                                         1-4 of 4 by rate
        "]],
    );
    press(&mut state, "4ssssr");
    check(
        &mut state,
        (100, 24),
        &expect![[r"
            100 x 24
             spanwatch top  span0 (native XDP)                                                           up 31s
             packets/s     550                       ▃▆▃▆▃▆▃█  bits/s      5.33M                       ▃▆▃▆▃▆▃█
             new flows/s     2                       ██ ██ ██  frames/s      551                       ▃▅▃▅▃▅▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             protocol                                     →bit/s ←bit/s  packets   bytes   share  flows silent▲
             udp                                            480k      0    1,502   1.80M   9.0 %      2    0.1s
             tcp                                           52.8k  4.80M   15,005   18.1M  90.9 %      2    0.1s














             ? help  / filter  s sort  i idle  p pause  q quit                        1-2 of 2 by latest packet
        "]],
    );
}

#[test]
fn losses_and_messages() {
    let mut state = live();
    press(&mut state, "5");
    check(
        &mut state,
        (108, 30),
        &expect![[r"
            108 x 30
             spanwatch top  span0 (native XDP)                                                                   up 31s
             packets/s     550                           ▃▆▃▆▃▆▃█  bits/s      5.33M                           ▃▆▃▆▃▆▃█
             new flows/s     2                           ██ ██ ██  frames/s      551                           ▃▅▃▅▃▅▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             port ─────────────────────────────────  of at most                   1,000,000
             frames received                 16,600  began                                4
             frames missed                  unknown  evicted: no room                     0
             interfaces up                  unknown  epochs ───────────────────────────────
             interfaces down                      0  drained                            124
             interfaces gone                      0  early: a log was filling             0
             times one went away                  0  log fill                         0.3 %
             frames ───────────────────────────────  log fill, most                  12.0 %
             seen                            16,600  latest lasted, ms                  250
             = IP                            16,508  kernel took to end, µs         unknown
             + not IP                            90  waited for records, ms         unknown
             + malformed                          2  these lists ──────────────────────────
             IP packets ───────────────────────────  flows held                           4
             in flows                        16,508  held whatever comes             10,000
             folded                           1,234  flows put out                        0
             in the kernel's tables               0  flows replaced                       0
             shorter than they say                0  hosts put out                        0
             malformed ────────────────────────────  services put out                     0
             ip_header_cut                        2
             not IP ───────────────────────────────
             arp                                 90
             flows ────────────────────────────────
             open                                 4
             ? help  / filter  s sort  i idle  p pause  q quit
        "]],
    );
    let said = "WARN the kernel's flow tables were full: ".repeat(3);
    state.handle_messages(vec!["INFO listens only".to_owned(), said]);
    check(
        &mut state,
        (80, 24),
        &expect![[r"
            80 x 24
             spanwatch top  span0 (native XDP)                                       up 31s
             packets/s     550               ▄▃▄▄▄█  bits/s      5.33M               ▄▃▄▄▄█
             new flows/s     2               ██████  frames/s      551               ▃▃▃▄▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages (2 new)
             port ─────────────────────────────────  malformed ────────────────────────────
             frames received                 16,600  ip_header_cut                        2
             frames missed                  unknown  not IP ───────────────────────────────
             interfaces up                  unknown  arp                                 90
             interfaces down                      0  flows ────────────────────────────────
             interfaces gone                      0  open                                 4
             times one went away                  0  of at most                   1,000,000
             frames ───────────────────────────────  began                                4
             seen                            16,600  evicted: no room                     0
             = IP                            16,508  epochs ───────────────────────────────
             + not IP                            90  drained                            124
             + malformed                          2  early: a log was filling             0
             IP packets ───────────────────────────  log fill                         0.3 %
             in flows                        16,508  log fill, most                  12.0 %
             folded                           1,234  latest lasted, ms                  250
             in the kernel's tables               0  kernel took to end, µs         unknown
             shorter than they say                0  waited for records, ms         unknown
             ? help  / filter  s sort  i idle  p pause  q quit
        "]],
    );
    press(&mut state, "6");
    check(
        &mut state,
        (80, 24),
        &expect![[r"
            80 x 24
             spanwatch top  span0 (native XDP)                                       up 31s
             packets/s     550               ▄▃▄▄▄█  bits/s      5.33M               ▄▃▄▄▄█
             new flows/s     2               ██████  frames/s      551               ▃▃▃▄▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             INFO listens only
             WARN the kernel's flow tables were full: WARN the kernel's flow tables were ful
             l: WARN the kernel's flow tables were full:














             ? help  / filter  s sort  i idle  p pause  q quit
        "]],
    );
}

#[test]
fn help_and_details_lie_over_the_list() {
    let mut state = live();
    press(&mut state, "?");
    check(
        &mut state,
        (80, 24),
        &expect![[r"
            80 x 24
            ╭ help: any key closes it ─────────────────────────────────────────────────────╮
            │ 1-6 Tab ← →   the lists                                                      │
            │ ↑ ↓ PgUp PgDn selects a row; p keeps the list in place meanwhile, Esc lets g │
            │ Enter         a flow's details; of a host, service or protocol its flows     │
            │ /             filter: words joined by and, such as  443 tcp 10.0.0.0/8 !dns  │
            │               (ports, addresses, prefixes, protocols, any text; ! means not) │
            │ s S r         next or previous order; the other way round. ▼ marks it        │
            │ i             hides who has had no packet for 10 seconds                     │
            │ p             the picture stands still; a capture is not read meanwhile      │
            │ q Ctrl-C      quits, and detaches from the port                              │
            │ rates         averages of about 3 seconds; the graphs show 2 minutes or more │
            │ → ←           from the initiator (who opened it), from the responder         │
            │ open          TCP: SYN, SYN-ACK and an ACK were seen; then closed or reset   │
            │ syn, syn-ack  TCP: opened and not answered; answered and not confirmed       │
            │ refused       TCP: the SYN was answered with RST                             │
            │ midway        TCP: both directions, but it began before it was seen          │
            │ one-way       only one direction is seen: half a mirror, or no answer        │
            │ missed        frames that the card dropped; unknown: its driver does not tel │
            │ folded        packets in coarse totals only: the kernel's tables were full   │
            │ evicted       flows that were reported early: the flow table was full        │
            │ log           room for new flows in the kernel, of the fullest processor     │
            │ ≈             more flows than the lists hold (10,000); the smallest were put │
            │               out, and stay in the sums. ≥ marks totals that may lack a part │
            ╰──────────────────────────────────────────────────────────────────────────────╯
        "]],
    );
    press(&mut state, "?");
    state.handle_key(Key::Down);
    press(&mut state, "\n");
    check(
        &mut state,
        (100, 30),
        &expect![[r"
            100 x 30
             spanwatch top  span0 (native XDP)                                                           up 31s
             packets/s     550                       ▃▆▃▆▃▆▃█  bits/s      5.33M                       ▃▆▃▆▃▆▃█
             new flows/s     2                       ██ ██ ██  frames/s      551                       ▃▅▃▅▃▅▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of╭ flow: Esc closes it ───────────────────────────────────────╮
             1 Flows  2 Hosts  │ initiator     10.1.0.7:51000                               │
             initiator         │ responder     192.0.2.10:443                               │t/s  bytes     age
             10.1.0.7:51000    │ roles         sure: the opening was seen                   │80M  18.1M     31s
             [2001:db8:0:1::7]:│ service       tcp/443 https                                │  0  1.80M     30s
             10.1.0.7:40001    │ state         open; round-trip time unknown                │  0    320     30s
             203.0.113.9:44000 │ carried in    nothing: plain tcp                           │  0    222     30s
                               │ first packet  2026-05-28 20:26:40 UTC, 31s ago             │
                               │ latest packet 2026-05-28 20:27:10 UTC, 0.1s ago            │
                               │                                                            │
                               │                   from the initiator    from the responder │
                               │ packets                        3,001                12,001 │
                               │ bytes                        198,074            18,000,074 │
                               │ packets/s                        100                   400 │
                               │ bits/s                         52.8k                 4.80M │
                               │ frame bytes                 66 to 74            74 to 1500 │
                               │ TTL, DSCP                      64, 0                 64, 0 │
                               │ first flags                      SYN               SYN ACK │
                               │ TCP flags                    SYN ACK               SYN ACK │
                               │ Community ID  1:pxGbOZ3v/D1NH1kOBeHobOKOhfc=               │
                               ╰────────────────────────────────────────────────────────────╯




             ? help  / filter  s sort  i idle  p pause  q quit                                 1-4 of 4 by rate
        "]],
    );
}

#[test]
fn a_filter_a_pause_and_what_is_approximate_are_told() {
    let mut state = live();
    let mut later = picture();
    later.tracked.gone.flows_evicted = 5;
    for flow in &mut later.tracked.flows {
        flow.is_whole = flow.record.initiator_port != 51_000;
    }
    state.handle_picture(Box::new(later));
    press(&mut state, "pi/443");
    check(
        &mut state,
        (100, 24),
        &expect![[r"
            100 x 24
             spanwatch top  span0 (native XDP)                                                   up 31s  PAUSED
             packets/s     550                       ▃▆▃▆▃▆▃█  bits/s      5.33M                       ▃▆▃▆▃▆▃█
             new flows/s     2                       ██ ██ ██  frames/s      551                       ▃▅▃▅▃▅▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             initiator                   responder                   prot state   →bit/s▼ ←bit/s  bytes     age
             10.1.0.7:51000              192.0.2.10:443              tcp  open      52.8k  4.80M ≥18.1M     31s
             [2001:db8:0:1::7]:52000     [2001:db8:b…:9abc:def0]:443 udp  one-way    480k      0  1.80M     30s














             filter 443   Enter keeps, Esc clears; as: 443 tcp 10.0.0.0/8 !dns
        "]],
    );
    press(&mut state, "\n");
    check(
        &mut state,
        (100, 24),
        &expect![[r"
            100 x 24
             spanwatch top  span0 (native XDP)                                                   up 31s  PAUSED
             packets/s     550                       ▃▆▃▆▃▆▃█  bits/s      5.33M                       ▃▆▃▆▃▆▃█
             new flows/s     2                       ██ ██ ██  frames/s      551                       ▃▅▃▅▃▅▃█
             lost    missed unknown · folded 1,234 · evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %) · log 0.3 %, most 12.0 % · epoch 250 ms
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             initiator                   responder                   prot state   →bit/s▼ ←bit/s  bytes     age
             10.1.0.7:51000              192.0.2.10:443              tcp  open      52.8k  4.80M ≥18.1M     31s
             [2001:db8:0:1::7]:52000     [2001:db8:b…:9abc:def0]:443 udp  one-way    480k      0  1.80M     30s














             filter 443   / changes, Esc clears it  1-2 of 2 by rate, not idle, approximate beyond 10,000 flows
        "]],
    );
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
    check(
        &mut state,
        (80, 24),
        &expect![[r"
            80 x 24
             spanwatch top  b.pcap (2 of 2), speed 10x                 20:27:11 UTC, 25.0 %
             packets/s     550               ▄▃▄▄▄█  bits/s      5.33M               ▄▃▄▄▄█
             new flows/s     2               ██████  frames/s      551               ▃▃▃▄▃█
             lost    evicted 0 · malformed 2 · not IP 90
             tables  flows 4 of 1.00M (0.0 %)
             1 Flows  2 Hosts  3 Services  4 Protocols  5 Losses  6 Messages
             initiator             responder             prot state   →bit/s▼ ←bit/s  bytes
             [2001:d…0:1::7]:52000 [2001:db…bc:def0]:443 udp  one-way    480k      0  1.80M
             10.1.0.7:40001        10.1.0.53:53          udp  both          0      0    320














             filter udp   / changes, Esc clears it                         1-2 of 2 by rate
        "]],
    );
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
