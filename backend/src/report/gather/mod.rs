//! Takes a member and a period; gives what a report says about them, from lake and database. Never judges: what
//! is an attack, the findings say; here is only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::SessionContext;
use detect::{Finding, KeyScope, Kind, Prefix};
use flow::Books;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::database::{BatchRow, Database, Member};
use crate::ingest::now_ms;
use crate::lake::{TIME_MS_MAX, address_bytes, address_from_bytes, hex, key_scopes};
use crate::report::model::{
    Coverage, Interval, Period, PeriodName, PortRow, ReportInput, Sent, SourceRow, TargetRow,
};

const MS_A_DAY: u64 = 86_400_000;
/// Days of a week and of the usual month, as reports count them.
const WEEK_MS: u64 = 7 * MS_A_DAY;
/// Rows that a page shows of each list.
const ROWS_MAX: usize = 10;
/// An answer of an own host: a completed handshake, or a datagram back.
const ANSWERED: &str = "(handshake = 'established' OR (protocol <> 6 AND responder_packets > 0))";

/// What the caller asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Weekly when nothing is said.
    pub monthly: bool,
    /// First moment, milliseconds since the Unix epoch.
    pub from_ms: Option<u64>,
    /// First moment after it.
    pub to_ms: Option<u64>,
}

/// A day (`2026-11-21`) or a moment (`2026-11-21T10:00:00Z`) as milliseconds since the Unix epoch, UTC.
///
/// # Errors
///
/// When the text is neither.
pub fn parse_time(text: &str) -> anyhow::Result<u64> {
    let timestamp = match Date::from_str(text) {
        Ok(date) if !text.contains('T') => date.to_zoned(TimeZone::UTC)?.timestamp(),
        _ => Timestamp::from_str(text).with_context(|| {
            format!(
                "{text:?} is neither a day, as 2026-11-21, nor a moment, as 2026-11-21T10:00:00Z"
            )
        })?,
    };
    u64::try_from(timestamp.as_millisecond())
        .ok()
        .filter(|ms| *ms <= TIME_MS_MAX)
        .with_context(|| format!("{text:?} is not between the years 1970 and 9999"))
}

/// Gathers everything that one report says.
///
/// # Errors
///
/// When there is no such member, the period is empty, or lake or database gives no answer.
pub async fn gather(
    database: &Database,
    session: &SessionContext,
    member: &str,
    asked: Asked,
) -> anyhow::Result<ReportInput> {
    let member = database.member(member).await?;
    let generated_ms = now_ms();
    let newest_ms = database.newest_ms(member.id.as_str()).await?.unwrap_or(generated_ms);
    let period = period(asked, newest_ms)?;
    let id = member.id.as_str();
    let batches = database.batches_between(id, period.from_ms, period.to_ms).await?;
    let findings = findings(database, id, period.from_ms, period.to_ms).await?;
    let filter = Filter::new(&member, period)?;
    let pseudonyms = pseudonyms(session, &member, period, &findings).await?;
    Ok(ReportInput {
        member_name: member.name.clone(),
        member: id.to_owned(),
        force: None,
        report_id: report_id(id, period)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generated_ms,
        period,
        coverage: coverage(database, &member, &batches).await?,
        campaigns_before: campaigns_before(database, id, period).await?,
        sources: sources(session, &filter, &findings, &pseudonyms).await?,
        ports: ports(session, &filter).await?,
        targets: targets(session, &filter).await?,
        sent: Sent {
            batches: batches.len() as u64,
            bytes: Some(batches.iter().map(|batch| batch.bytes).sum()),
            records: batches.iter().map(|batch| batch.records).sum(),
            keys: keys(&batches),
            batches_in_clear: batches.iter().filter(|batch| batch.key_epoch.is_none()).count()
                as u64,
        },
        pseudonyms,
        findings,
    })
}

/// The keys whose pseudonyms batches have, each once.
fn keys(batches: &[BatchRow]) -> Vec<KeyScope> {
    let key = |batch: &BatchRow| {
        batch.key_epoch.map(|key_epoch| KeyScope { sensor: batch.sensor.clone(), key_epoch })
    };
    batches.iter().filter_map(key).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The end is the newest data, so that a report of yesterday's capture is not empty.
fn period(asked: Asked, newest_ms: u64) -> anyhow::Result<Period> {
    let to_ms = asked.to_ms.unwrap_or((newest_ms + 1).min(TIME_MS_MAX));
    let name = match (asked.from_ms, asked.to_ms, asked.monthly) {
        (None, None, false) => PeriodName::Weekly,
        (None, None, true) => PeriodName::Monthly,
        _ => PeriodName::Custom,
    };
    let from_ms = match asked.from_ms {
        Some(from_ms) => from_ms,
        None if asked.monthly => month_before(to_ms)?,
        None => to_ms.saturating_sub(WEEK_MS),
    };
    ensure!(
        from_ms < to_ms,
        "the period is empty: it starts at {} and ends at {}",
        timestamp(from_ms)?,
        timestamp(to_ms)?
    );
    Ok(Period { name, from_ms, to_ms })
}

fn timestamp(ms: u64) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_millisecond(i64::try_from(ms)?)?)
}

fn month_before(to_ms: u64) -> anyhow::Result<u64> {
    let end = timestamp(to_ms)?.to_zoned(TimeZone::UTC);
    let start = end.checked_sub(jiff::Span::new().months(1))?.timestamp().as_millisecond();
    Ok(u64::try_from(start).unwrap_or(0))
}

/// The same member and period give the same name.
fn report_id(member: &str, period: Period) -> anyhow::Result<String> {
    let text = |ms| anyhow::Ok(timestamp(ms)?.strftime("%Y%m%dT%H%M%SZ").to_string());
    Ok(format!("{member}-{}-{}", text(period.from_ms)?, text(period.to_ms)?))
}

async fn findings(
    database: &Database,
    member: &str,
    from_ms: u64,
    to_ms: u64,
) -> anyhow::Result<Vec<Finding>> {
    let stored = database.findings_between(Some(member), from_ms, to_ms).await?;
    Ok(stored.into_iter().map(|stored| stored.finding).collect())
}

/// `None` when nothing was received of the time before: then there is nothing to compare with.
async fn campaigns_before(
    database: &Database,
    member: &str,
    period: Period,
) -> anyhow::Result<Option<Vec<(Kind, u64)>>> {
    let from_ms = period.from_ms.saturating_sub(period.to_ms - period.from_ms);
    if database.batches_between(member, from_ms, period.from_ms).await?.is_empty() {
        return Ok(None);
    }
    let found = findings(database, member, from_ms, period.from_ms).await?;
    let count = |kind| found.iter().filter(|finding| finding.kind == kind).count() as u64;
    Ok(Some(Kind::ALL.into_iter().map(|kind| (kind, count(kind))).collect()))
}

/// What was seen: a run of consecutive batches of one boot epoch is time in which that sensor was up without a
/// break; its totals at the run's end, less those before the period, are what it was given.
async fn coverage(
    database: &Database,
    member: &Member,
    batches: &[BatchRow],
) -> anyhow::Result<Coverage> {
    let sensors = database.sensors().await?;
    let mut coverage = Coverage {
        sensors: sensors.iter().filter(|sensor| sensor.member == member.id).count() as u64,
        own_prefixes: member.own_prefixes.clone(),
        frames_missed: Some(0),
        ..Coverage::default()
    };
    let mut heard: Vec<&str> = batches.iter().map(|batch| batch.sensor.as_str()).collect();
    heard.dedup();
    coverage.sensors_heard = heard.len() as u64;
    let epochs = batches.chunk_by(|a, b| a.sensor == b.sensor && a.boot_epoch == b.boot_epoch);
    for epoch in epochs {
        for run in epoch.chunk_by(|a, b| a.sequence + 1 == b.sequence) {
            let from = run.iter().map(|batch| batch.start_ms).min();
            let to = run.iter().map(|batch| batch.end_ms).max();
            if let (Some(from_ms), Some(to_ms)) = (from, to) {
                coverage.observed.push(Interval { from_ms, to_ms: to_ms + 1 });
            }
        }
        let [first, ..] = epoch else { continue };
        let Some(last) = epoch.last() else { continue };
        let before = database.batch_before(first).await?;
        let before = before.map_or_else(start_of_epoch, |batch| batch.books);
        add_books(&mut coverage, &before, &last.books);
    }
    if batches.is_empty() {
        coverage.frames_missed = None;
    }
    Ok(coverage)
}

/// A sensor's totals when it started.
fn start_of_epoch() -> Books {
    Books { nic_received: Some(0), nic_missed: Some(0), ..Books::default() }
}

fn add_books(coverage: &mut Coverage, before: &Books, after: &Books) {
    let more = |pick: fn(&Books) -> u64| pick(after).saturating_sub(pick(before));
    coverage.frames_seen += more(|books| books.frames_seen);
    coverage.packets_not_ip += more(|books| books.packets_not_ip);
    coverage.packets_malformed += more(|books| books.packets_malformed);
    coverage.packets_folded += more(|books| books.packets_folded);
    coverage.packets_duplicate += more(|books| books.packets_duplicate);
    coverage.records_evicted += more(|books| books.records_evicted);
    coverage.records_kept_internal += more(|books| books.records_kept_internal);
    coverage.records_kept_trusted += more(|books| books.records_kept_trusted);
    let missed =
        after.nic_missed.zip(before.nic_missed).map(|(after, before)| after.saturating_sub(before));
    coverage.frames_missed =
        coverage.frames_missed.zip(missed).map(|(total, missed)| total.saturating_add(missed));
}

/// SQL conditions of one member, one period, and traffic from outside to own addresses.
struct Filter {
    rows: String,
    inbound: String,
}

impl Filter {
    /// All texts in the SQL are made here from checked values; identifiers have only a-z, 0-9 and hyphens.
    fn new(member: &Member, period: Period) -> anyhow::Result<Self> {
        let prefixes: Vec<Prefix> = if member.own_prefixes.is_empty() {
            Prefix::private()
        } else {
            member.own_prefixes.iter().map(|text| text.parse()).collect::<Result<_, _>>()?
        };
        let own = |column: &str| -> anyhow::Result<String> {
            let mut terms = Vec::new();
            for prefix in &prefixes {
                let (low, high) = bounds(*prefix)?;
                terms.push(format!(
                    "({column} >= X'{}' AND {column} <= X'{}')",
                    hex(&low),
                    hex(&high)
                ));
            }
            Ok(format!("({})", terms.join(" OR ")))
        };
        let Period { from_ms, to_ms, .. } = period;
        let rows = format!(
            "member = '{}' AND day >= CAST({} AS DATE) AND day <= CAST({} AS DATE) \
             AND start_time >= to_timestamp_millis({from_ms}) \
             AND start_time < to_timestamp_millis({to_ms})",
            member.id,
            from_ms / MS_A_DAY,
            to_ms / MS_A_DAY,
        );
        // A pseudonym is of an own client, whatever ranges are known here.
        let inbound = format!(
            "({} OR responder_pseudonym) AND NOT ({} OR initiator_pseudonym)",
            own("responder")?,
            own("initiator")?
        );
        Ok(Self { rows, inbound })
    }
}

/// First and last address of a range, as the lake holds addresses.
fn bounds(prefix: Prefix) -> anyhow::Result<([u8; 16], [u8; 16])> {
    let text = String::from(prefix);
    let (network, length) = text.split_once('/').context("an address range has a slash")?;
    let network: IpAddr = network.parse()?;
    let length: u32 = length.parse()?;
    // An IPv4 range of n bits is an IPv4-mapped one of 96 + n.
    let length = if network.is_ipv4() { 96 + length } else { length };
    let low = u128::from_be_bytes(address_bytes(network));
    let host = u128::MAX.checked_shr(length).unwrap_or(0);
    Ok((low.to_be_bytes(), (low | host).to_be_bytes()))
}

async fn ask(session: &SessionContext, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    Ok(session.sql(sql).await?.collect().await?)
}

fn addresses(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<IpAddr>> {
    let column = cast(rows.column(column), &DataType::Binary)?;
    let column = column.as_binary::<i32>();
    (0..column.len())
        .map(|row| address_from_bytes(column.value(row)).context("an address has 16 bytes"))
        .collect()
}

fn numbers(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<u64>> {
    let column: ArrayRef = cast(rows.column(column), &DataType::Int64)?;
    column.as_primitive::<Int64Type>().values().iter().map(|n| Ok(u64::try_from(*n)?)).collect()
}

/// Sensor and number of the key where a column is a pseudonym, else NULL: what rows of equal addresses have to have in
/// common to be of one host.
fn scope_columns(column: &str) -> [String; 2] {
    ["sensor", "key_epoch"].map(|part| format!("CASE WHEN {column}_pseudonym THEN {part} END"))
}

/// The addresses in findings that are pseudonyms, each with its key.
async fn pseudonyms(
    session: &SessionContext,
    member: &Member,
    period: Period,
    findings: &[Finding],
) -> anyhow::Result<BTreeSet<(IpAddr, KeyScope)>> {
    let mut found = BTreeSet::new();
    let named: Vec<&Finding> = findings.iter().filter(|it| it.key_scope.is_some()).collect();
    let addresses_named = named.iter().flat_map(|it| [it.source, it.target]).flatten();
    let list: BTreeSet<String> =
        addresses_named.map(|address| format!("X'{}'", hex(&address_bytes(address)))).collect();
    let Some(first_ms) = named.iter().map(|it| it.first_ms).min().filter(|_| !list.is_empty())
    else {
        return Ok(found);
    };
    // What a finding rests on may lie outside of the period.
    let last_ms = named.iter().map(|it| it.last_ms).max().unwrap_or(first_ms);
    let wide = Period {
        from_ms: period.from_ms.min(first_ms),
        to_ms: period.to_ms.max(last_ms.saturating_add(1)).min(TIME_MS_MAX),
        ..period
    };
    let rows = Filter::new(member, wide)?.rows;
    let list = list.into_iter().collect::<Vec<_>>().join(", ");
    for column in ["initiator", "responder"] {
        let sql = format!(
            "SELECT DISTINCT {column}, sensor, key_epoch FROM flows \
             WHERE {rows} AND {column}_pseudonym AND {column} IN ({list})"
        );
        for rows in ask(session, &sql).await? {
            let scopes = key_scopes(&rows)?.into_iter();
            let pairs = addresses(&rows, 0)?.into_iter().zip(scopes);
            found.extend(pairs.filter_map(|(address, scope)| Some((address, scope?))));
        }
    }
    Ok(found)
}

/// The sources that findings name, with what they did. An own host that calls out, and a host whose answers were
/// provoked in its name, are no attackers.
async fn sources(
    session: &SessionContext,
    filter: &Filter,
    findings: &[Finding],
    pseudonyms: &BTreeSet<(IpAddr, KeyScope)>,
) -> anyhow::Result<Vec<SourceRow>> {
    let mut rows: BTreeMap<(IpAddr, Option<KeyScope>), SourceRow> = BTreeMap::new();
    for finding in findings {
        let Some(address) = finding.source else { continue };
        if matches!(finding.kind, Kind::Beacon | Kind::Backscatter) {
            continue;
        }
        // A pseudonym under another key is another host.
        let is_known = |scope: &KeyScope| pseudonyms.contains(&(address, scope.clone()));
        let pseudonym = finding.key_scope.clone().filter(is_known);
        let row = rows.entry((address, pseudonym.clone())).or_insert_with(|| SourceRow {
            address,
            pseudonym,
            attempts: 0,
            targets: 0,
            kinds: Vec::new(),
            may_be_forged: true,
            first_ms: finding.first_ms,
            last_ms: finding.last_ms,
        });
        row.attempts += finding.records;
        row.targets = row.targets.max(finding.targets);
        row.may_be_forged &= finding.spoofable;
        row.first_ms = row.first_ms.min(finding.first_ms);
        row.last_ms = row.last_ms.max(finding.last_ms);
        if !row.kinds.contains(&finding.kind) {
            row.kinds.push(finding.kind);
        }
    }
    let mut rows: Vec<SourceRow> = rows.into_values().collect();
    rows.sort_by(|a, b| {
        let by_name = || (a.address, &a.pseudonym).cmp(&(b.address, &b.pseudonym));
        b.attempts.cmp(&a.attempts).then_with(by_name)
    });
    rows.truncate(ROWS_MAX);
    if rows.is_empty() {
        return Ok(rows);
    }
    let list: Vec<String> =
        rows.iter().map(|row| format!("X'{}'", hex(&address_bytes(row.address)))).collect();
    let [sensor, key_epoch] = scope_columns("initiator");
    let sql = format!(
        "SELECT initiator, count(DISTINCT responder), {sensor} AS sensor, {key_epoch} AS key_epoch \
         FROM flows WHERE {} AND initiator IN ({}) GROUP BY initiator, {sensor}, {key_epoch}",
        filter.rows,
        list.join(", ")
    );
    for found in ask(session, &sql).await? {
        let scopes = key_scopes(&found)?;
        let counted = addresses(&found, 0)?.into_iter().zip(numbers(&found, 1)?).zip(scopes);
        for ((address, targets), scope) in counted {
            let is_it = |row: &&mut SourceRow| row.address == address && row.pseudonym == scope;
            if let Some(row) = rows.iter_mut().find(is_it) {
                row.targets = targets;
            }
        }
    }
    Ok(rows)
}

async fn ports(session: &SessionContext, filter: &Filter) -> anyhow::Result<Vec<PortRow>> {
    let sql = format!(
        "SELECT responder_port, protocol, count(*) AS attempts, \
         sum(CASE WHEN {ANSWERED} THEN 1 ELSE 0 END), count(DISTINCT initiator) \
         FROM flows WHERE {} AND {} AND responder_port IS NOT NULL AND protocol IN (6, 17) \
         GROUP BY responder_port, protocol \
         ORDER BY attempts DESC, responder_port, protocol LIMIT {ROWS_MAX}",
        filter.rows, filter.inbound
    );
    let mut ports = Vec::new();
    for rows in ask(session, &sql).await? {
        let columns: Vec<Vec<u64>> =
            (0..5).map(|column| numbers(&rows, column)).collect::<Result<_, _>>()?;
        let [port, protocol, attempts, answered, sources] = columns.as_slice() else {
            bail!("the query for ports gave {} columns", columns.len());
        };
        for row in 0..rows.num_rows() {
            ports.push(PortRow {
                port: u16::try_from(port[row])?,
                protocol: u8::try_from(protocol[row])?,
                attempts: attempts[row],
                answered: answered[row],
                sources: sources[row],
            });
        }
    }
    Ok(ports)
}

async fn targets(session: &SessionContext, filter: &Filter) -> anyhow::Result<Vec<TargetRow>> {
    let [sensor, key_epoch] = scope_columns("responder");
    let sql = format!(
        "SELECT responder, count(*) AS attempts, count(DISTINCT initiator), \
         count(DISTINCT CASE WHEN {ANSWERED} AND protocol IN (6, 17) THEN responder_port END), \
         {sensor} AS sensor, {key_epoch} AS key_epoch \
         FROM flows WHERE {} AND {} GROUP BY responder, {sensor}, {key_epoch} \
         ORDER BY attempts DESC, responder LIMIT {ROWS_MAX}",
        filter.rows, filter.inbound
    );
    let mut targets = Vec::new();
    for rows in ask(session, &sql).await? {
        let address = addresses(&rows, 0)?;
        let [attempts, sources, ports] =
            [numbers(&rows, 1)?, numbers(&rows, 2)?, numbers(&rows, 3)?];
        let scopes = key_scopes(&rows)?;
        for row in 0..rows.num_rows() {
            targets.push(TargetRow {
                address: address[row],
                pseudonym: scopes[row].clone(),
                attempts: attempts[row],
                sources: sources[row],
                ports_answering: ports[row],
            });
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests;
