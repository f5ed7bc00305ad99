//! Takes the text of a collector's address, such as `udp://collector.example.org:4739`; gives it checked.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

/// Port of IPFIX collectors, RFC 7011.
const PORT: u16 = 4739;
/// Longest name of a host, RFC 1035.
const HOST_BYTES_MAX: usize = 253;
/// Addresses of a name that are used.
const ADDRESSES_MAX: usize = 4;

/// How a collector is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams: what is lost on the way is gone; the collector sees the gap.
    Udp,
    /// A connection.
    Tcp,
}

/// Where IPFIX messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    transport: Transport,
    host: String,
    port: u16,
}

impl Collector {
    /// How it is reached.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// The addresses of its name, at least one.
    ///
    /// # Errors
    /// When the name has none, or nobody can be asked.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_MAX).collect();
        if addresses.is_empty() {
            return Err(io::Error::other("the name has no address"));
        }
        Ok(addresses)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        if self.host.contains(':') {
            write!(formatter, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no collector, expected udp://HOST:PORT or tcp://HOST:PORT");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let transport = match scheme {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            _ => return Err(wrong()),
        };
        let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
            let (host, behind) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<Ipv6Addr>().map_err(|_no_address| wrong())?;
            let port = match behind {
                "" => None,
                behind => Some(behind.strip_prefix(':').ok_or_else(wrong)?),
            };
            (host, port)
        } else {
            rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(is_name) {
            return Err(wrong());
        }
        let port = match port {
            None => PORT,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        };
        Ok(Self { transport, host: host.to_owned(), port })
    }
}

impl Serialize for Collector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Collector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_and_a_wrong_one_is_named() {
        for (text, shown) in [
            ("udp://127.0.0.1:9995", "udp://127.0.0.1:9995"),
            ("tcp://[::1]:9995", "tcp://[::1]:9995"),
            ("tcp://collector.example.org", "tcp://collector.example.org:4739"),
            ("udp://[2001:db8::1]", "udp://[2001:db8::1]:4739"),
        ] {
            let read: Collector = text.parse().expect("a valid address");
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse(), Ok(read));
        }
        for text in [
            "",
            "127.0.0.1:9995",
            "sctp://127.0.0.1:9995",
            "udp://",
            "udp://:9995",
            "udp://host:0",
            "udp://host:65536",
            "udp://host:",
            "udp://::1",
            "udp://[::1",
            "udp://[::1]9995",
            "udp://[host]:9995",
            "udp://a b:9995",
            "udp://host:9995/path",
        ] {
            let told = text.parse::<Collector>().expect_err(text);
            assert!(told.starts_with(&format!("`{text}` is no collector")), "{told}");
        }
    }
}
