//! A live run on a veth pair whose metrics alone close the books.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use tests::{LiveSensor, VethPair, read};

/// In a namespace of its own, any port is free.
const LISTEN: &str = "127.0.0.1:9464";
const CONFIG: &str = "[metrics]\nlisten = \"127.0.0.1:9464\"\n[flows]\nidle_timeout_ms = 500\n";

/// One scrape: name with labels, value. The one that is no whole number, the time, is left out.
type Scrape = BTreeMap<String, u64>;

/// Asks as Prometheus would, from inside the sensor's namespace.
fn scrape(pair: &VethPair) -> Result<Scrape> {
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<String> {
            pair.enter_span()?;
            let mut stream = TcpStream::connect(LISTEN)?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        asking.join().unwrap_or_else(|_| bail!("the client panicked"))
    })?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, text) = answer.split_once("\r\n\r\n").context("head and body")?;
    ensure!(text.ends_with("# EOF\n"), "cut: {text}");
    let values = text.lines().filter(|line| !line.starts_with('#'));
    let values = values.filter_map(|line| line.rsplit_once(' '));
    Ok(values.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

fn udp(number: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
    frame.extend((1024 + number % 100).to_be_bytes());
    frame.extend([0, 53, 0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = vec![255; 12];
    frame.extend([0x08, 0x06]);
    frame.resize(60, 0);
    frame
}

/// Says IPv4 and ends within its header.
fn cut() -> Vec<u8> {
    let mut frame = udp(0);
    frame.truncate(24);
    frame
}

/// The sum over a metric's labels.
fn sum(scrape: &Scrape, name: &str) -> u64 {
    let labelled = format!("{name}{{");
    scrape.iter().filter(|(key, _)| key.starts_with(&labelled)).map(|(_, value)| value).sum()
}

#[test]
fn the_scraped_numbers_alone_close_the_books() -> Result<()> {
    let Some(pair) = VethPair::new(2)? else { return Ok(()) };
    read(Command::new("ip").args(["-n", pair.span_namespace(), "link", "set", "lo", "up"]))?;
    let mut sensor = LiveSensor::start(&pair, CONFIG)?;
    // Two interfaces are one sensor.
    for (end, frames) in [(0, 700_u16), (1, 300)] {
        let frames: Vec<Vec<u8>> = (0..frames).map(udp).collect();
        pair.send(end, frames.iter().map(Vec::as_slice))?;
    }
    let others: Vec<Vec<u8>> = (0..7).map(|_| arp()).chain((0..3).map(|_| cut())).collect();
    pair.send(0, others.iter().map(Vec::as_slice))?;

    let mut last = Scrape::new();
    let all_reported = sensor.wait_until("reporting every packet", |_| {
        last = scrape(&pair).unwrap_or_default();
        last.get("spanwatch_packets_in_records_total") == Some(&1000)
    });
    all_reported.with_context(|| format!("{last:?}"))?;
    let value = |name: &str| {
        let value = last.get(&format!("spanwatch_{name}")).copied();
        value.with_context(|| format!("no {name} in {last:?}"))
    };
    assert_eq!(value("frames_seen_total")?, 1010);
    let not_ip = sum(&last, "spanwatch_packets_not_ip_total");
    let malformed = sum(&last, "spanwatch_packets_malformed_total");
    assert_eq!((not_ip, malformed), (7, 3));
    assert_eq!(value("packets_not_ip_total{kind=\"arp\"}")?, 7);
    assert_eq!(value("frames_seen_total")?, value("packets_ip_total")? + not_ip + malformed);
    let in_flows_or_folded = value("packets_in_flows_total")? + value("packets_folded_total")?;
    assert_eq!(value("packets_ip_total")?, in_flows_or_folded + value("packets_in_cache")?);
    let reported = value("packets_in_records_total")? + value("packets_in_open")?;
    assert_eq!(in_flows_or_folded, reported);
    let port = value("nic_frames_seen_total")? + value("nic_missed_total")?;
    assert_eq!(value("nic_received_total")?, port, "at rest it is exact");
    assert_eq!(value("nic_frames_in_flight")?, 0);
    assert_eq!(value("interfaces_up")?, 2);
    assert!(value("epochs_total")? > 0 && value("epoch_ms")? > 0);
    assert!(value("flows_open_max")? > 0 && value("log_fill_permille")? < 500);
    let absent = ["spool_bytes", "records_sealed_total", "uplink_connected"];
    assert!(absent.iter().all(|name| value(name).is_err()), "there is no uplink: {last:?}");

    // The running sensor's own summary says the same.
    let (code, text) = sensor.balance()?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("running; written"), "{text}");
    sensor.stop()?;
    ensure!(scrape(&pair).is_err(), "it stops with the sensor");
    let (code, text) = sensor.balance()?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("stopped; written"), "{text}");
    Ok(())
}

#[test]
fn frames_that_come_while_it_attaches_do_not_open_the_books() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let started = AtomicBool::new(false);
    let frame = udp(1);
    let sensor = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let until_started =
                std::iter::repeat_with(|| frame.as_slice()).take_while(|_| !started.load(Relaxed));
            pair.send(0, until_started)
        });
        let sensor = LiveSensor::start(&pair, "");
        started.store(true, Relaxed);
        sending.join().unwrap_or_else(|_| bail!("the sender panicked"))?;
        sensor
    });
    let mut sensor = sensor?;
    sensor.wait_until("at rest", |sensor| {
        sensor.summary().is_ok_and(|summary| {
            let number = |key: &str| summary[key].as_u64();
            number("nic_frames_seen") == number("frames_seen") && number("frames_seen") > Some(0)
        })
    })?;
    let (code, text) = sensor.balance()?;
    assert_eq!(code, Some(0), "{text}");
    sensor.stop()?;
    let (code, text) = sensor.balance()?;
    assert_eq!(code, Some(0), "{text}");
    Ok(())
}

#[test]
fn metrics_are_off_by_default() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    read(Command::new("ip").args(["-n", pair.span_namespace(), "link", "set", "lo", "up"]))?;
    let mut sensor = LiveSensor::start(&pair, "")?;
    let error = scrape(&pair).expect_err("nobody listens");
    ensure!(error.to_string().contains("refused"), "{error}");
    sensor.stop()
}
