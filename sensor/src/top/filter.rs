//! Takes what somebody typed; says which flows are meant. Words are joined by "and"; one that
//! begins with `!` must not fit. A number is a port of either end, an address or a prefix is of
//! either end, a protocol is its name, and any other word is looked for in the flow as it is shown.

use std::net::IpAddr;

use flow::Record;

use super::names::{protocol_name, protocol_number, service_name, state_name};
use super::tracker::service_of;

/// Which flows are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    text: String,
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    is_wanted: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Within(IpAddr, u32),
    Port(u16),
    Protocol(u8),
    Text(String),
}

impl Filter {
    /// Everything that can be typed means something.
    pub(crate) fn new(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        let words = text.split_whitespace().filter_map(word).collect();
        Self { text, words }
    }

    /// As it was typed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether everything is meant.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether this flow is meant.
    pub(crate) fn fits(&self, record: &Record) -> bool {
        self.words.iter().all(|word| word.what.fits(record) == word.is_wanted)
    }
}

fn word(text: &str) -> Option<Word> {
    let (is_wanted, text) = match text.strip_prefix('!') {
        Some(rest) => (false, rest),
        None => (true, text),
    };
    if text.is_empty() {
        return None;
    }
    let what = if let Some(what) = within(text) {
        what
    } else if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
        What::Port(port)
    } else if let Some(number) = protocol_number(text) {
        What::Protocol(number)
    } else {
        What::Text(text.to_owned())
    };
    Some(Word { is_wanted, what })
}

fn within(text: &str) -> Option<What> {
    let (address, length) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let address: IpAddr = address.parse().ok()?;
    let bits = bits_of(address);
    let length = length.map_or(Some(bits), |length| length.parse().ok())?;
    (length <= bits).then_some(What::Within(address, length))
}

const fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The leading bits of an address.
fn prefix(address: IpAddr, length: u32) -> u128 {
    let number = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    number.checked_shr(bits_of(address) - length).unwrap_or(0)
}

impl What {
    fn fits(&self, record: &Record) -> bool {
        let Record { initiator, responder, .. } = *record;
        match self {
            Self::Within(address, length) => [initiator, responder].iter().any(|end| {
                end.is_ipv4() == address.is_ipv4()
                    && prefix(*end, *length) == prefix(*address, *length)
            }),
            Self::Port(port) => {
                let (service, known) = service_of(record);
                let has_ports = known.is_some() && !protocol_name(service).starts_with("icmp");
                has_ports && [record.initiator_port, record.responder_port].contains(port)
            }
            Self::Protocol(number) => record.protocol == *number,
            Self::Text(text) => {
                let shown = [
                    initiator.to_string(),
                    responder.to_string(),
                    service_name(service_of(record)),
                    state_name(record).to_owned(),
                ];
                shown.iter().any(|shown| shown.contains(text.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::record;
    use super::*;

    #[test]
    fn every_word_has_to_fit() {
        let record = record("10.1.2.3:40000", "192.0.2.1:443");
        for fits in [
            "",
            "10.1.2.3",
            "10.0.0.0/8",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "443",
            ":443",
            "40000",
            "tcp",
            "https",
            "10.1.",
            "TCP 443 10.0.0.0/8",
            "!udp",
            "midway",
            "!",
            "  ",
        ] {
            assert!(Filter::new(fits).fits(&record), "{fits}");
        }
        for other in [
            "10.1.2.4",
            "11.0.0.0/8",
            "::/0",
            "80",
            "udp",
            "tcp 80",
            "!443",
            "!10.0.0.0/8",
            "70000",
            "10.1.2.3/33",
        ] {
            assert!(!Filter::new(other).fits(&record), "{other}");
        }
    }

    #[test]
    fn addresses_of_both_versions_are_told_apart() {
        let record = record("[2001:db8::1]:5353", "[ff02::fb]:5353");
        assert!(Filter::new("2001:db8::/32").fits(&record));
        assert!(Filter::new("ff02::fb").fits(&record));
        assert!(Filter::new("::/0 !10.0.0.0/8").fits(&record));
        assert!(!Filter::new("0.0.0.0/0").fits(&record));
        assert!(!Filter::new("2001:db8::2").fits(&record));
    }
}
