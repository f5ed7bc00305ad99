//! Takes whole messages; sends them to the collector over UDP or TCP. Every call ends within seconds.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::config::{Collector, Transport};

/// Longest wait for a connection, and for room in its buffer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A socket that sends to the collector.
pub(super) enum Link {
    /// Datagrams.
    Udp(UdpSocket),
    /// A connection.
    Tcp(TcpStream),
}

impl Link {
    /// Opens a socket; over TCP, connects.
    pub(super) fn open(collector: &Collector) -> io::Result<Self> {
        let addresses = collector.resolve()?;
        match collector.transport() {
            Transport::Udp => {
                // Nothing tells which of its addresses the collector listens on: the first has to do.
                let any: SocketAddr = match addresses.first() {
                    Some(SocketAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                    _ => (Ipv4Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(&addresses[..1])?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => {
                let stream = connect(&addresses)?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Sends one message; gives whether the system tells by now that the datagram before it met nobody.
    /// After an error a connection is of no use any more.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<Before> {
        match self {
            Self::Udp(socket) => {
                let (sent, before) = match socket.send(message) {
                    // That is about the datagram before; this one was not tried yet.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        (socket.send(message)?, Before::Refused)
                    }
                    sent => (sent?, Before::NothingKnown),
                };
                if sent == message.len() {
                    return Ok(before);
                }
                Err(io::Error::other("the datagram was cut"))
            }
            Self::Tcp(stream) => {
                if has_ended(stream)? {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the collector closed the connection",
                    ));
                }
                stream.write_all(message)?;
                Ok(Before::NothingKnown)
            }
        }
    }

    /// What the system tells by now about the latest datagram.
    pub(super) fn latest(&self) -> Before {
        match self {
            Self::Udp(socket) if matches!(socket.take_error(), Ok(Some(_))) => Before::Refused,
            _ => Before::NothingKnown,
        }
    }
}

/// What became of an earlier message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing speaks against its having arrived.
    NothingKnown,
    /// Nobody listened.
    Refused,
}

/// Connects to the first address that answers.
fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut latest = io::Error::other("there is no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => latest = error,
        }
    }
    Err(latest)
}

/// Whether the other end has closed the connection. Without asking, a first message would still be taken,
/// and lost.
fn has_ended(stream: &TcpStream) -> io::Result<bool> {
    let mut byte = [0; 1];
    match recv(stream, &mut byte[..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
        Ok((0, _)) => Ok(true),
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
