//! Takes the database; gives members and sensors as lists, for people as a table and for programs as JSON. What has
//! not happened is `never`, what is not known `unknown`, in JSON both `null`.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::database::{AuditLine, Database, HeardHealth, Sensor};
use crate::ingest::now_ms;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberLine {
    /// Identifier.
    pub id: String,
    /// Name as given.
    pub name: String,
    /// When it was added, milliseconds since the Unix epoch; so are all times here.
    pub added_ms: u64,
    /// When its newest batch was received.
    pub last_received_ms: Option<u64>,
    /// Sensors that may deliver.
    pub sensors: u64,
    /// Sensors that were revoked.
    pub sensors_revoked: u64,
}

/// One sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SensorLine {
    /// Identifier.
    pub id: String,
    /// Whose it is.
    pub member: String,
    /// The member's name.
    pub member_name: String,
    /// When it was enrolled.
    pub enrolled_ms: u64,
    /// When its certificate ends.
    pub certificate_ends_ms: Option<u64>,
    /// When its certificate was renewed last.
    pub renewed_ms: Option<u64>,
    /// `valid`, `renewal overdue`, `expired`, `revoked`, or `unknown` where the end of its certificate is.
    pub state: &'static str,
    /// When its newest batch was received.
    pub last_received_ms: Option<u64>,
    /// Highest sequence of its newest boot epoch.
    pub last_sequence: Option<u64>,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
    /// What it last told of itself over the link.
    pub health: Option<HeardHealth>,
}

/// All members, by identifier.
///
/// # Errors
///
/// When the database refuses.
pub async fn members(database: &Database) -> anyhow::Result<Vec<MemberLine>> {
    let sensors = sensors(database).await?;
    let lines = database.members().await?.into_iter().map(|member| {
        let id = member.id.to_string();
        let own = || sensors.iter().filter(|sensor| sensor.member == id);
        let revoked = own().filter(|sensor| sensor.revoked_ms.is_some()).count() as u64;
        MemberLine {
            name: member.name,
            added_ms: member.created_ms,
            last_received_ms: own().filter_map(|sensor| sensor.last_received_ms).max(),
            sensors: own().count() as u64 - revoked,
            sensors_revoked: revoked,
            id: id.clone(),
        }
    });
    Ok(lines.collect())
}

/// All sensors, by identifier.
///
/// # Errors
///
/// When the database refuses.
pub async fn sensors(database: &Database) -> anyhow::Result<Vec<SensorLine>> {
    let members = database.members().await?;
    let states = database.sensor_states().await?;
    let now_ms = now_ms();
    let lines = database.sensors().await?.into_iter().map(|sensor| {
        let state = states.iter().find(|state| state.sensor == sensor.id.as_str());
        let member = members.iter().find(|member| member.id == sensor.member);
        SensorLine {
            id: sensor.id.to_string(),
            member: sensor.member.to_string(),
            member_name: member.map_or_else(String::new, |member| member.name.clone()),
            enrolled_ms: sensor.enrolled_ms,
            state: right(&sensor, now_ms),
            certificate_ends_ms: sensor.certificate_ends_ms,
            renewed_ms: sensor.renewed_ms,
            last_received_ms: state.and_then(|state| state.last_received_ms),
            last_sequence: state.and_then(|state| state.last_sequence),
            revoked_ms: sensor.revoked_ms,
            health: state.and_then(|state| state.health.clone()),
        }
    });
    Ok(lines.collect())
}

/// What a sensor may do now. Sensors renew when a third of the life is left, and try again and again: with less than a
/// fifth, something keeps them from it.
fn right(sensor: &Sensor, now_ms: u64) -> &'static str {
    let begins_ms = sensor.certificate_begins_ms.unwrap_or(sensor.enrolled_ms);
    match (sensor.revoked_ms, sensor.certificate_ends_ms) {
        (Some(_), _) => "revoked",
        (None, None) => "unknown",
        (None, Some(ends_ms)) if now_ms > ends_ms => "expired",
        (None, Some(ends_ms)) if ends_ms - now_ms < ends_ms.saturating_sub(begins_ms) / 5 => {
            "renewal overdue"
        }
        (None, Some(_)) => "valid",
    }
}

/// Prints members as a table.
///
/// # Errors
///
/// When the output is closed.
pub fn print_members(lines: &[MemberLine], out: &mut impl Write) -> std::io::Result<()> {
    let head = ["member", "name", "added", "sensors", "last batch received"];
    let rows = lines.iter().map(|line| {
        let sensors = match line.sensors_revoked {
            0 => line.sensors.to_string(),
            revoked => format!("{} ({revoked} revoked)", line.sensors),
        };
        let last = line.last_received_ms.map_or_else(never, time);
        [line.id.clone(), line.name.clone(), time(line.added_ms), sensors, last]
    });
    print(head, &rows.collect::<Vec<_>>(), out)
}

/// Prints sensors as a table.
///
/// # Errors
///
/// When the output is closed.
pub fn print_sensors(lines: &[SensorLine], out: &mut impl Write) -> std::io::Result<()> {
    let head = [
        "sensor",
        "member",
        "enrolled",
        "state",
        "certificate ends",
        "last batch received",
        "last sequence",
        "last heard",
        "batches waiting",
        "revoked",
    ];
    let rows = lines.iter().map(|line| {
        [
            line.id.clone(),
            line.member_name.clone(),
            time(line.enrolled_ms),
            line.state.to_owned(),
            line.certificate_ends_ms.map_or_else(|| "unknown".to_owned(), time),
            line.last_received_ms.map_or_else(never, time),
            line.last_sequence.map_or_else(never, |sequence| sequence.to_string()),
            line.health.as_ref().map_or_else(never, |heard| time(heard.heard_ms)),
            known(line.health.as_ref().and_then(|heard| heard.report.health.batches_waiting)),
            line.revoked_ms.map_or_else(never, time),
        ]
    });
    print(head, &rows.collect::<Vec<_>>(), out)
}

/// Prints the audit as a table.
///
/// # Errors
///
/// When the output is closed.
pub fn print_audit(lines: &[AuditLine], out: &mut impl Write) -> std::io::Result<()> {
    let head = ["time", "event", "member", "sensor", "remote", "detail"];
    let rows = lines.iter().map(|line| {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            time(line.at_ms),
            line.event.clone(),
            or_dash(&line.member),
            or_dash(&line.sensor),
            or_dash(&line.remote),
            line.detail.clone(),
        ]
    });
    print(head, &rows.collect::<Vec<_>>(), out)
}

/// What a sensor last told, as one line for people.
#[must_use]
pub fn health_line(heard: Option<&HeardHealth>, now_ms: u64) -> String {
    let Some(HeardHealth { heard_ms, report }) = heard else {
        return "has told nothing of itself yet".to_owned();
    };
    let ago_s = now_ms.saturating_sub(*heard_ms) / 1000;
    let health = &report.health;
    let clock = report.clock_offset_ms.map_or_else(
        || "clock unknown".to_owned(),
        |ahead| {
            let way = if ahead < 0 { "behind" } else { "ahead" };
            format!("clock {} ms {way}", ahead.unsigned_abs())
        },
    );
    format!(
        "heard {ago_s} s ago: version {}; spool {} batches, {} records, {} of {} bytes, {} batches evicted; \
         {clock}; link {} of {} packets lost; port {} frames missed, {} packets folded",
        health.sensor_version.as_deref().unwrap_or("unknown"),
        known(health.batches_waiting),
        known(health.records_waiting),
        known(health.spool_bytes),
        known(health.spool_bytes_max),
        known(health.batches_evicted),
        known(health.link_packets_lost),
        known(health.link_packets_sent),
        known(health.frames_missed),
        known(health.packets_folded),
    )
}

fn known(number: Option<u64>) -> String {
    number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
}

fn never() -> String {
    "never".to_owned()
}

/// UTC, to the second.
pub(crate) fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms"), |time| format!("{time:.0}"))
}

/// Columns as wide as their longest cell, two spaces between.
fn print<const N: usize>(
    head: [&str; N],
    rows: &[[String; N]],
    out: &mut impl Write,
) -> std::io::Result<()> {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_that_ought_to_have_renewed_stands_out() {
        let day_ms = 86_400_000;
        let mut sensor = Sensor {
            id: "town-hall-1".parse().expect("a name"),
            member: "town-hall".parse().expect("a name"),
            enrolled_ms: 0,
            revoked_ms: None,
            certificate_begins_ms: Some(0),
            certificate_ends_ms: Some(30 * day_ms),
            renewed_ms: None,
        };
        let days = [0, 23, 24, 25, 30, 31].map(|day| right(&sensor, day * day_ms));
        let wanted = ["valid", "valid", "valid", "renewal overdue", "renewal overdue", "expired"];
        assert_eq!(days, wanted);
        sensor.certificate_ends_ms = None;
        assert_eq!(right(&sensor, 1), "unknown");
        sensor.revoked_ms = Some(7);
        assert_eq!(right(&sensor, 1), "revoked");
    }
}
