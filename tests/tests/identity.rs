//! Identities over their whole life, with the real programs: certificates that end, a revocation in the middle of a
//! delivery, secrets that must be in no log, files that others may use.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{ETHERNET_LINK, PcapFile, Process, Station, contains, program, read, skip, udp_frame};
use uplink::{CertificateAuthority, EnrolmentCode, Validity};

const TIMEOUT: Duration = Duration::from_mins(3);
/// What is promised of a revocation.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
const DAY_S: i64 = 86_400;
/// Flows in the generated capture.
const FLOWS: u64 = 200_000;
/// Where a UDP frame has it, behind Ethernet and IPv4.
const SOURCE_PORT: usize = 34;
/// Flows in the small one.
const FEW: u64 = 10;
/// Small batches, so that a delivery takes a while.
const PATIENT: &str = "[uplink]\nbatch_records_max = 500\nshutdown_grace_ms = 120000\n";
/// The sensor ends when the capture does, whatever waits.
const HASTY: &str = "[uplink]\nshutdown_grace_ms = 0\n";

fn identity(station: &Station) -> Result<(Value, bool)> {
    let output = station.sensor_command("identity")?.arg("--json").output()?;
    let card = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    Ok((card, output.status.success()))
}

/// Puts a certificate of the backend's own authority in the sensor's folder, valid for these seconds from now.
fn set_validity(station: &Station, begins_s: i64, ends_s: i64) -> Result<()> {
    let (card, _valid) = identity(station)?;
    let text = |key: &str| card[key].as_str().with_context(|| format!("no {key} in {card}"));
    let mut public_key = [0; 32];
    for (byte, digits) in public_key.iter_mut().zip(text("public_key")?.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let validity = Validity {
        begins_unix_s: now.saturating_add_signed(begins_s),
        ends_unix_s: now.saturating_add_signed(ends_s),
    };
    let authority = CertificateAuthority::load(&station.backend_folder().join("ca"))?;
    let (member, sensor) = (text("member")?.parse()?, text("sensor")?.parse()?);
    let issued = authority.certify(&public_key, &member, &sensor, validity)?;
    Ok(fs::write(station.sensor_folder().join("identity/sensor.pem"), issued.pem)?)
}

fn said(output: &Output) -> String {
    let (out, errors) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(errors))
}

fn rows(station: &Station) -> Result<u64> {
    let counted = station.query("SELECT count(*) AS n FROM flows")?;
    counted[0]["n"].as_u64().context("a number")
}

/// A verb of the backend with a verb of its own.
fn command(station: &Station, verbs: [&str; 2]) -> Result<Command> {
    let mut command = Command::new(program("spanwatch-backend")?);
    command.args(verbs).arg("--data").arg(station.backend_folder());
    Ok(command)
}

fn listed(station: &Station) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&read(command(station, ["sensor", "list"])?.arg("--json"))?)?)
}

fn code(station: &Station) -> Result<String> {
    let mut code = command(station, ["member", "code"])?;
    let made: Value =
        serde_json::from_str(&read(code.args(["--member", &station.member, "--json"]))?)?;
    Ok(made["code"].as_str().context("a code")?.to_owned())
}

/// Ten flows into the sensor's spool, while nobody serves.
fn spool_few(station: &Station) -> Result<()> {
    let (capture, config) = (station.path("few.pcap"), station.path("hasty.toml"));
    let mut file = PcapFile::new(ETHERNET_LINK);
    for number in 0..u16::try_from(FEW)? {
        let mut frame = udp_frame(100)?;
        frame[SOURCE_PORT..][..2].copy_from_slice(&(40_000 + number).to_be_bytes());
        file.add(
            Duration::from_secs(1_795_000_000 + u64::from(number)),
            frame.len() as u64,
            &frame,
        )?;
    }
    file.write(&capture)?;
    fs::write(&config, HASTY)?;
    let mut replay = station.sensor_command("replay")?;
    let output = replay.args(["--output", "uplink", "--config"]).arg(&config).arg(&capture);
    let output = output.output()?;
    ensure!(said(&output).contains("stay in the spool"), "{}", said(&output));
    Ok(())
}

fn deliver(station: &Station) -> Result<Output> {
    let mut deliver = station.sensor_command("deliver")?;
    Ok(deliver.args(["--within-ms", "20000"]).output()?)
}

#[test]
fn a_certificate_that_ended_is_renewed_and_later_a_code_keeps_name_key_and_spool() -> Result<()> {
    let station = Station::new()?;
    let (first, valid) = identity(&station)?;
    ensure!(valid && first["state"] == "valid", "{first}");
    spool_few(&station)?;
    let backend = station.serve()?;

    // Off for longer than the certificate lived, but not for too long.
    set_validity(&station, -60 * DAY_S, -30 * DAY_S)?;
    let (card, valid) = identity(&station)?;
    ensure!(!valid && card["state"] == "expired", "{card}");
    let output = deliver(&station)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("this sensor's certificate was renewed"), "{}", said(&output));
    let (card, valid) = identity(&station)?;
    ensure!(valid && card["sensor"] == first["sensor"], "{card}");
    let sensors = listed(&station)?;
    ensure!(sensors[0]["state"] == "valid" && !sensors[0]["renewed_ms"].is_null(), "{sensors:?}");
    assert_eq!(rows(&station)?, FEW);

    // For too long.
    backend.terminate(TIMEOUT)?;
    spool_few(&station)?;
    let backend = station.serve()?;
    set_validity(&station, -200 * DAY_S, -100 * DAY_S)?;
    let output = deliver(&station)?;
    ensure!(!output.status.success(), "{}", said(&output));
    let remedy = "`spanwatch-sensor enroll CODE` keeps this sensor's name, its key and everything that waits";
    ensure!(said(&output).contains(remedy), "{}", said(&output));
    ensure!(backend.log().contains("renewal refused"), "{}", backend.log());
    ensure!(rows(&station)? == FEW, "nothing came with an expired certificate");
    read(station.sensor_command("enroll")?.arg(code(&station)?))?;
    let output = deliver(&station)?;
    ensure!(output.status.success(), "{}", said(&output));
    let (card, valid) = identity(&station)?;
    ensure!(valid && card["sensor"] == first["sensor"], "{card}");
    ensure!(card["public_key"] == first["public_key"], "{card}");
    assert_eq!(rows(&station)?, 2 * FEW);
    assert_eq!(listed(&station)?.len(), 1);
    backend.terminate(TIMEOUT)?;
    let audit = read(&mut station.backend_command("audit")?)?;
    for event in ["code made", "enrolled", "renewed", "enrolled again"] {
        ensure!(audit.contains(event), "no {event:?} in\n{audit}");
    }
    Ok(())
}

#[test]
fn a_sensor_that_is_revoked_while_it_delivers_is_cut_off_and_nothing_more_is_stored() -> Result<()>
{
    let station = Station::new()?;
    let capture = station.generate("many-flows")?;
    let mut backend = station.serve()?;
    let config = station.path("patient.toml");
    fs::write(&config, PATIENT)?;
    let mut replay = station.sensor_command("replay")?;
    replay.args(["--output", "uplink", "--config"]).arg(&config).arg(&capture);
    let mut sensor = Process::start(&mut replay, &station.path("sensor.log"))?;
    backend.wait_until("the first commit", TIMEOUT, |log| log.contains("elapsed_ms"))?;

    let name = listed(&station)?[0]["id"].as_str().context("a name")?.to_owned();
    read(command(&station, ["sensor", "revoke"])?.arg(&name))?;
    let revoked = Instant::now();
    let cut = |log: &str| log.contains("its connection is closed") || log.contains("not admitted");
    backend.wait_until("cut off", REVOKED_WITHIN, cut)?;
    eprintln!("cut off {} ms after `sensor revoke` had ended", revoked.elapsed().as_millis());
    // What was being committed at that moment is stored by the time the session ends.
    backend.wait_until("the session's end", TIMEOUT, |log| log.contains("sensor disconnected"))?;
    let stored = rows(&station)?;
    let refusals = |log: &str| log.matches("not admitted").count();
    let before = refusals(&backend.log());
    backend.wait_until("two attempts more", TIMEOUT, |log| refusals(log) >= before + 2)?;
    assert_eq!(rows(&station)?, stored, "nothing is stored of a revoked sensor");
    ensure!(stored < FLOWS, "all was delivered before the revocation: nothing is tested");
    ensure!(sensor.is_running()?, "the sensor gave up: {}", sensor.log());
    ensure!(
        sensor.log().contains("this sensor is not admitted: it was revoked"),
        "{}",
        sensor.log()
    );
    sensor.kill()?;
    backend.terminate(TIMEOUT)?;

    ensure!(listed(&station)?[0]["state"] == "revoked", "{:?}", listed(&station)?);
    let audit: Vec<Value> =
        serde_json::from_str(&read(station.backend_command("audit")?.arg("--json"))?)?;
    let revocation = audit.iter().find(|line| line["event"] == "revoked").context("audited")?;
    ensure!(revocation["sensor"] == name.as_str(), "{revocation}");
    let again = read(command(&station, ["sensor", "revoke"])?.arg(&name))?;
    ensure!(again.contains("was revoked at"), "{again}");
    Ok(())
}

/// The secret of a code: the first 16 bytes of its Crockford base 32.
fn secret_of(code: &str) -> Result<Vec<u8>> {
    let digits = code.strip_prefix("SW1-").context("a code")?.replace('-', "");
    let (mut bits, mut value, mut bytes) = (0, 0_u32, Vec::new());
    for digit in digits.chars() {
        let at = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(digit).context("a digit")?;
        value = value << 5 | u32::try_from(at)?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(value >> bits & 0xff)?);
            value &= (1 << bits) - 1;
        }
    }
    bytes.truncate(16);
    Ok(bytes)
}

/// Every form in which a secret could have got into a file.
fn forms(code: &str) -> Result<Vec<Vec<u8>>> {
    let secret = secret_of(code)?;
    let hex = secret.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let list: Vec<String> = secret.iter().map(ToString::to_string).collect();
    // 16 bytes are 26 digits; the last of them has bits of the pin.
    let digits: String = code.replace('-', "").chars().skip(3).take(25).collect();
    let grouped: String = code.chars().skip(4).take(25 + 4).collect();
    Ok(vec![
        secret,
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        list.join(", ").into_bytes(),
        list.join(",").into_bytes(),
        digits.into_bytes(),
        grouped.into_bytes(),
    ])
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn refusals_are_told_apart_in_the_log_which_holds_no_secret() -> Result<()> {
    let station = Station::new()?;
    let mut serve = station.backend_command("serve")?;
    serve.env("SPANWATCH_LOG", "trace,sqlx=debug");
    let log = station.path("traced.log");
    let mut backend = Process::start(&mut serve, &log)?;
    backend.wait_until("listening", TIMEOUT, |log| log.contains("listening on"))?;

    let address = identity(&station)?.0["backend"].as_str().context("an address")?.to_owned();
    let pin = CertificateAuthority::load(&station.backend_folder().join("ca"))?.pin();
    let unknown = EnrolmentCode::new(&address, pin)?.to_string();
    let used = code(&station)?;
    let enroll = |code: &str, folder: &str| -> Result<Output> {
        let mut enroll = Command::new(program("spanwatch-sensor")?);
        enroll.env("RUST_LOG", "trace").args(["enroll", code, "--state-dir"]);
        Ok(enroll.arg(station.path(folder)).output()?)
    };
    let good = enroll(&used, "good")?;
    ensure!(good.status.success(), "{}", said(&good));
    let [replayed, guessed] = [enroll(&used, "other")?, enroll(&unknown, "other")?];
    for refused in [&replayed, &guessed] {
        ensure!(!refused.status.success(), "{}", said(refused));
        ensure!(
            said(refused).contains("the backend does not accept this code"),
            "{}",
            said(refused)
        );
    }
    for _ in 0..3 {
        enroll(&EnrolmentCode::new(&address, pin)?.to_string(), "other")?;
    }
    let limited = enroll(&code(&station)?, "other")?;
    ensure!(said(&limited).contains("too many codes that were not accepted"), "{}", said(&limited));

    for cause in ["used code, whose hash begins", "unknown code, whose hash begins", "TooManyTries"]
    {
        ensure!(backend.log().contains(cause), "no {cause:?} in the log");
    }
    let audit = read(&mut station.backend_command("audit")?)?;
    ensure!(audit.matches("enrolment refused").count() == 5, "{audit}");
    backend.terminate(TIMEOUT)?;
    for (number, output) in [good, replayed, guessed, limited].iter().enumerate() {
        fs::write(station.path(&format!("said-{number}")), said(output))?;
    }
    // Such a search finds what is there.
    for form in forms(&used)?.iter().skip(5) {
        ensure!(
            contains(used.replace('-', "").as_bytes(), form) || contains(used.as_bytes(), form)
        );
    }
    let everything = files(station.folder())?;
    ensure!(everything.contains(&log) && everything.len() > 20, "{everything:?}");
    for path in everything {
        let bytes = fs::read(&path)?;
        for code in [&used, &unknown] {
            for form in forms(code)? {
                ensure!(!contains(&bytes, &form), "{} holds a secret: {form:?}", path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn keys_and_what_lies_beside_them_are_refused_when_others_may_use_them() -> Result<()> {
    let station = Station::new()?;
    let (sensor, backend) = (station.sensor_folder(), station.backend_folder());
    let cases = [
        (sensor.clone(), 0o770),
        (sensor.join("identity"), 0o770),
        (sensor.join("identity/sensor.key"), 0o640),
        (sensor.join("identity/sensor.pem"), 0o602),
        (sensor.join("identity/authority.pem"), 0o660),
        (sensor.join("identity/identity.json"), 0o666),
        (backend.clone(), 0o770),
        (backend.join("backend.toml"), 0o660),
        (backend.join("backend.sqlite"), 0o602),
        (backend.join("ca"), 0o720),
        (backend.join("ca/authority.key"), 0o640),
        (backend.join("ca/authority.pem"), 0o660),
        (backend.join("ca/server.key"), 0o604),
    ];
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip("giving files to another user needs root");
    }
    for (path, mode) in cases {
        let told = || -> Result<String> {
            let mut command = if path.starts_with(&sensor) {
                station.sensor_command("deliver")?
            } else {
                station.backend_command("serve")?
            };
            let output = command.output()?;
            ensure!(output.status.code() == Some(1), "{}: {}", path.display(), said(&output));
            Ok(said(&output))
        };
        let proper = fs::metadata(&path)?.permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let text = told()?;
        let path_text = path.display();
        ensure!(text.contains(&format!("{path_text} has mode {mode:04o}")), "{text}");
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        ensure!(text.contains(&format!("`chmod {wanted:04o} {path_text}`")), "{text}");
        fs::set_permissions(&path, proper)?;
        if is_root {
            chown(&path, Some(12_345), None)?;
            let text = told()?;
            ensure!(text.contains(&format!("{path_text} belongs to user 12345")), "{text}");
            ensure!(text.contains(&format!("`chown -R 0 {path_text}`")), "{text}");
            chown(&path, Some(0), None)?;
        }
    }
    let (_card, valid) = identity(&station)?;
    ensure!(valid, "all is as it was");
    station.serve()?.terminate(TIMEOUT)
}
