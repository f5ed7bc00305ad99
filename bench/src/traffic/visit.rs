//! Those who connect: readers of pages, a port scanner, a password guesser, a machine that calls home.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, SockAddr, Socket, Type};

use super::CONNECTION_TIMEOUT;

const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Opens a connection from a chosen address.
fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    socket.connect_timeout(&SockAddr::from(to), CONNECTION_TIMEOUT)?;
    socket.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
    socket.set_write_timeout(Some(CONNECTION_TIMEOUT))?;
    Ok(socket.into())
}

/// Sends a request and reads until the other side is done.
fn ask(from: IpAddr, to: SocketAddr, request: &str) -> Result<usize> {
    let mut stream = connect(from, to).with_context(|| format!("{from} cannot reach {to}"))?;
    stream.write_all(request.as_bytes()).with_context(|| format!("cannot write to {to}"))?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .with_context(|| format!("{to} broke off"))?;
    Ok(answer.len())
}

pub(super) fn pages(to: SocketAddr, from: IpAddr, count: u32, pause: Duration) -> Result<()> {
    for number in 0..count {
        let request = format!("GET /page/{number} HTTP/1.1\r\nhost: {to}\r\n\r\n");
        let bytes = ask(from, to, &request)?;
        ensure!(bytes > 0, "{to} answered page {number} with nothing");
        // Readers are not clocks: the pause differs from page to page.
        thread::sleep(pause.mul_f64(0.3 + f64::from(number * 7 % 11) / 7.0));
    }
    Ok(())
}

pub(super) fn scan(to: IpAddr, from: IpAddr, first_port: u16, count: u16) -> Result<()> {
    for port in (first_port..=u16::MAX).take(usize::from(count)) {
        match connect(from, SocketAddr::new(to, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => {
                return Err(error).with_context(|| format!("trying port {port} of {to}"));
            }
        }
        thread::sleep(Duration::from_millis(15));
    }
    Ok(())
}

pub(super) fn guess(to: SocketAddr, from: IpAddr, count: u32, pause: Duration) -> Result<()> {
    for number in 0..count {
        ask(from, to, &format!("root\r\nguess{number:04}\r\n"))?;
        thread::sleep(pause);
    }
    Ok(())
}

pub(super) fn beacon(to: SocketAddr, from: IpAddr, count: u32, period: Duration) -> Result<()> {
    let started = Instant::now();
    for call in 0..count {
        if let Some(wait) = (period * call).checked_sub(started.elapsed()) {
            thread::sleep(wait);
        }
        ask(from, to, &format!("GET /task HTTP/1.1\r\nhost: {to}\r\n\r\n"))?;
    }
    Ok(())
}
