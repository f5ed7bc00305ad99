//! The watched site: answers page requests, and refuses every log-in after a prompt.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};

use super::CONNECTION_TIMEOUT;

/// Connections served at once; the next one waits in the kernel's queue.
const WORKERS: usize = 8;
const REQUEST_BYTES_MAX: u64 = 4_096;
const PAGE: &[u8] = &[b' '; 24_000];

pub(super) fn run(pages: SocketAddr, login: Option<SocketAddr>) -> Result<()> {
    let mut workers = listen(pages, serve_page)?;
    if let Some(login) = login {
        workers.extend(listen(login, refuse)?);
    }
    // The line that tells whoever started this that connections will be answered.
    writeln!(std::io::stdout(), "listening").context("cannot write to standard output")?;
    for worker in workers {
        drop(worker.join());
    }
    Ok(())
}

type Answer = fn(&TcpStream) -> std::io::Result<()>;

fn listen(address: SocketAddr, answer: Answer) -> Result<Vec<thread::JoinHandle<()>>> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    (0..WORKERS)
        .map(|_| {
            let listener = listener.try_clone().context("cannot share a listener")?;
            Ok(thread::spawn(move || {
                // A visitor that breaks off is the visitor's matter: the next one is served.
                for stream in listener.incoming().flatten() {
                    drop(answer_in_time(&stream, answer));
                }
            }))
        })
        .collect()
}

fn answer_in_time(stream: &TcpStream, answer: Answer) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
    stream.set_write_timeout(Some(CONNECTION_TIMEOUT))?;
    answer(stream)
}

fn serve_page(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut request = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        PAGE.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(PAGE)
}

fn refuse(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"login: ")?;
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    for prompt in ["password: ", "refused\r\n"] {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        stream.write_all(prompt.as_bytes())?;
    }
    Ok(())
}
