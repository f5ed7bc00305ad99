//! Numbers, times and ports as people write them. Never rounds a small number away.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A number with its thousands apart: `37,841`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and the thing that is counted, in the right number.
pub(super) fn count(number_of: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(number_of), if number_of == 1 { one } else { many })
}

/// A count that may be unknown.
pub(super) fn known(number_of: Option<u64>) -> String {
    number_of.map_or_else(|| "not known".to_owned(), number)
}

/// Bytes in the unit that keeps them short.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return count(bytes, "byte", "bytes");
    }
    let (mut value, mut unit) = (real(bytes) / 1e3, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    if value < 9.95 {
        format!("{value:.1}\u{a0}{}", UNITS[unit])
    } else {
        format!("{value:.0}\u{a0}{}", UNITS[unit])
    }
}

/// A measured value: whole where it is whole, else as many places as tell something.
pub(super) fn measured(value: f64) -> String {
    if !value.is_finite() {
        return "not known".to_owned();
    }
    if (value.fract() == 0.0 || value >= 100.0) && (0.0..1e15).contains(&value) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and below 1e15"
        )]
        let whole = value.round() as u64;
        return number(whole);
    }
    if value >= 10.0 { format!("{value:.1}") } else { format!("{value:.2}") }
}

/// A moment: `3 Mar 2026, 09:12`. The page says once that all times are UTC.
pub(super) fn moment(at_ms: u64) -> String {
    utc(at_ms, "%-d %b %Y, %H:%M")
}

/// A moment to the second.
pub(super) fn exact_moment(at_ms: u64) -> String {
    utc(at_ms, "%-d %b %Y, %H:%M:%S")
}

/// A day: `3 March 2026`.
pub(super) fn day(at_ms: u64) -> String {
    utc(at_ms, "%-d %B %Y")
}

/// The hour and minute of a moment.
pub(super) fn clock(at_ms: u64) -> String {
    utc(at_ms, "%H:%M")
}

fn utc(at_ms: u64, format: &str) -> String {
    let millisecond = i64::try_from(at_ms).ok();
    let timestamp = millisecond.and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    match timestamp {
        Some(timestamp) => timestamp.to_zoned(TimeZone::UTC).strftime(format).to_string(),
        None => "an unknown time".to_owned(),
    }
}

/// A length of time in its two largest units.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) if ms < 1_000 => format!("{ms} ms"),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => two(minutes, "min", seconds % 60, "s"),
        (0, hours, minutes) => two(hours, "h", minutes, "min"),
        (days, hours, _) => two(days, if days == 1 { "day" } else { "days" }, hours, "h"),
    }
}

/// A length of time beside a whole one: hours with one place, or the exact time where hours say little.
pub(super) fn hours(ms: u64) -> String {
    if (1..2 * 3_600_000).contains(&ms) {
        return duration(ms);
    }
    let hours = real(ms) / 3_600_000.0;
    if (hours - hours.round()).abs() < 0.05 {
        format!("{:.0} hours", hours.round())
    } else {
        format!("{hours:.1} hours")
    }
}

/// A part of a length of time: `162 of 168 hours`.
pub(super) fn of(part_ms: u64, whole_ms: u64) -> String {
    let (part, whole) = (hours(part_ms), hours(whole_ms));
    let part = match part.strip_suffix(" hours") {
        Some(bare) if whole.ends_with(" hours") => bare,
        _ => &part,
    };
    format!("{part} of {whole}")
}

/// A share in percent; never 100 % when something is missing, never 0 % when something is there.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "not known".to_owned();
    }
    let percent = real(part) * 100.0 / real(whole);
    match () {
        () if part == 0 => "0 %".to_owned(),
        () if part >= whole => "100 %".to_owned(),
        () if percent < 0.1 => "< 0.1 %".to_owned(),
        () if percent > 99.9 => "99.9 %".to_owned(),
        () if (1.0..=99.0).contains(&percent) => format!("{percent:.0} %"),
        () => format!("{percent:.1} %"),
    }
}

/// A list in a sentence: `a, b and c`.
pub(super) fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "for shares and drawings, where 53 bits are plenty")]
pub(super) const fn real(count: u64) -> f64 {
    count as f64
}

/// What usually listens behind a port, for people (IANA's registry and common use).
pub(super) const fn service(protocol: u8, port: u16) -> &'static str {
    if protocol != flow::protocol::TCP && protocol != flow::protocol::UDP {
        return "";
    }
    match port {
        20 | 21 => "File transfer (FTP)",
        22 | 2222 => "Remote login (SSH)",
        23 | 2323 => "Remote login (Telnet)",
        25 | 465 | 587 => "Mail (SMTP)",
        53 => "Names (DNS)",
        80 | 8080 | 8000 => "Web",
        110 | 995 => "Mail (POP3)",
        123 => "Time (NTP)",
        135 => "Windows RPC",
        137..=139 | 445 => "Windows file sharing",
        143 | 993 => "Mail (IMAP)",
        161 => "Device management (SNMP)",
        389 | 636 => "Directory (LDAP)",
        443 | 8443 => "Web (HTTPS)",
        500 | 4500 => "VPN (IPsec)",
        1194 => "VPN (OpenVPN)",
        1433 => "Database (SQL Server)",
        1723 => "VPN (PPTP)",
        1900 => "Device discovery (SSDP)",
        2375 | 2376 => "Docker",
        3306 => "Database (MySQL)",
        3389 => "Remote desktop (RDP)",
        5060 | 5061 => "Telephony (SIP)",
        5432 => "Database (PostgreSQL)",
        5900 | 5901 => "Remote desktop (VNC)",
        5985 | 5986 => "Windows remote management",
        6379 => "Database (Redis)",
        8291 => "Router management (Winbox)",
        9200 => "Database (Elasticsearch)",
        11211 => "Cache (memcached)",
        27017 => "Database (MongoDB)",
        _ => "",
    }
}
