//! Takes numbers, times and addresses; appends them to a line as text. Each has one form, the one that
//! the standard library and RFC 3339 give it; tests hold them against each other. Written by hand
//! because a million lines a second leave about a microsecond for one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use jiff::tz::Offset;

const MS_A_DAY: u64 = 86_400_000;

/// Appends a whole number.
pub(super) fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address as [`IpAddr`] displays it (RFC 5952).
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => address_v4(out, v4),
        IpAddr::V6(v6) => address_v6(out, v6),
    }
}

fn address_v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let [first, rest @ ..] = address.octets();
    number(out, first);
    for octet in rest {
        out.push(b'.');
        number(out, octet);
    }
}

fn address_v6(out: &mut Vec<u8>, address: Ipv6Addr) {
    if let Some(v4) = address.to_ipv4_mapped() {
        out.extend_from_slice(b"::ffff:");
        return address_v4(out, v4);
    }
    let groups = address.segments();
    let (zeros_at, zeros) = longest_zeros(&groups);
    if zeros < 2 {
        return join(out, &groups);
    }
    join(out, &groups[..zeros_at]);
    out.extend_from_slice(b"::");
    join(out, &groups[zeros_at + zeros..]);
}

/// Place and length of the first of the longest runs of zero groups.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let (mut longest, mut current) = ((0, 0), (0, 0));
    for (at, group) in groups.iter().enumerate() {
        if *group != 0 {
            current = (at + 1, 0);
            continue;
        }
        current.1 += 1;
        if current.1 > longest.1 {
            longest = current;
        }
    }
    longest
}

fn join(out: &mut Vec<u8>, groups: &[u16]) {
    for (at, group) in groups.iter().enumerate() {
        if at > 0 {
            out.push(b':');
        }
        let mut begun = false;
        for shift in [12, 8, 4, 0] {
            let digit = usize::from(group >> shift & 0xf);
            begun |= digit != 0 || shift == 0;
            if begun {
                out.push(b"0123456789abcdef"[digit]);
            }
        }
    }
}

/// Appends times; remembers the date that it wrote last, since most flows of a minute share it.
pub(super) struct Calendar {
    day: Option<u64>,
    date: String,
}

impl Calendar {
    pub(super) const fn new() -> Self {
        Self { day: None, date: String::new() }
    }

    /// Appends a time in UTC with milliseconds, as `2026-05-28T20:26:40.007Z`. Times beyond the year 9999
    /// do not come here, see [`super::super::known::Known`].
    pub(super) fn rfc3339(&mut self, out: &mut Vec<u8>, ms: u64) {
        let (day, ms_of_day) = (ms / MS_A_DAY, ms % MS_A_DAY);
        if self.day != Some(day) {
            self.date = date(day);
            self.day = Some(day);
        }
        out.extend_from_slice(self.date.as_bytes());
        let (seconds, ms) = (ms_of_day / 1_000, ms_of_day % 1_000);
        let mut text = *b"T00:00:00.000Z";
        for (at, value) in [(1, seconds / 3_600), (4, seconds / 60 % 60), (7, seconds % 60)] {
            (text[at], text[at + 1]) = (digit(value / 10), digit(value % 10));
        }
        (text[10], text[11], text[12]) = (digit(ms / 100), digit(ms / 10), digit(ms));
        out.extend_from_slice(&text);
    }
}

/// The last decimal digit of a number.
fn digit(number: u64) -> u8 {
    b"0123456789"[usize::try_from(number % 10).expect("one digit fits")]
}

/// Days since the Unix epoch as `2026-05-28`.
fn date(day: u64) -> String {
    let second = i64::try_from(day).ok().and_then(|day| day.checked_mul(86_400));
    second.and_then(|second| Timestamp::from_second(second).ok()).map_or_else(
        || "9999-12-31".to_owned(),
        |time| Offset::UTC.to_datetime(time).date().to_string(),
    )
}

/// Appends milliseconds as seconds with six decimals, as Zeek writes times and intervals.
pub(super) fn seconds(out: &mut Vec<u8>, ms: u64) {
    number(out, ms / 1_000);
    let ms = ms % 1_000;
    out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'0', b'0', b'0']);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("it is ASCII")
    }

    #[test]
    fn addresses_that_are_shortened_are_those_of_the_standard_library() {
        let list = [
            "0.0.0.0",
            "255.255.255.255",
            "10.0.20.100",
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "2001:db8:0:1:1:1:1:1",
            "2001:0:0:1::1",
            "2001:db8:0:0:1:0:0:1",
            "::ffff:192.0.2.1",
            "::192.0.2.1",
            "fe80::abcd:0:0:12",
            "1:2:3:4:5:6:7:8",
            "0:0:0:4:5:6:7:8",
            "1:2:3:4:5:0:0:0",
        ];
        for written in list {
            let ip: IpAddr = written.parse().expect("a literal address");
            assert_eq!(text(|out| address(out, ip)), ip.to_string());
        }
    }

    proptest! {
        #[test]
        fn any_address_is_that_of_the_standard_library(v4: u32, v6: u128, holes: u8) {
            // Zero groups are what decides the form; by chance alone there would be none.
            let mask = (0..8).filter(|bit| holes >> bit & 1 == 1);
            let v6 = mask.fold(v6, |v6, group| v6 & !(0xffff << (16 * group)));
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert_eq!(text(|out| address(out, ip)), ip.to_string());
            }
        }

        #[test]
        fn any_time_is_that_of_the_calendar_library(ms in 0..=253_402_300_799_999_u64) {
            let signed = i64::try_from(ms).expect("in range");
            let expected = Timestamp::from_millisecond(signed).expect("in range");
            let written = text(|out| Calendar::new().rfc3339(out, ms));
            prop_assert_eq!(written, format!("{expected:.3}"));
            let written = text(|out| seconds(out, ms));
            prop_assert_eq!(written, format!("{}.{:03}000", ms / 1_000, ms % 1_000));
        }
    }

    #[test]
    fn the_date_changes_at_midnight() {
        let mut calendar = Calendar::new();
        let mut out = Vec::new();
        for ms in [86_399_999, 86_400_000, 86_399_999] {
            calendar.rfc3339(&mut out, ms);
            out.push(b' ');
        }
        let written = String::from_utf8(out).expect("it is ASCII");
        let expected =
            "1970-01-01T23:59:59.999Z 1970-01-02T00:00:00.000Z 1970-01-01T23:59:59.999Z ";
        assert_eq!(written, expected);
    }
}
