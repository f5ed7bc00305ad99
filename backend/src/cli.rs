//! Takes the command line; gives the work to the module that does it and prints what it says. Results go to
//! standard output, notices to standard error. Never decides anything.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use detect::Prefix;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use uplink::{EnrolmentCode, MemberId};

use crate::database::Database;
use crate::folder::{Accepted, Folder};
use crate::ingest::now_ms;
use crate::listing;
use crate::query::{self, Format};
use crate::report::{self, Asked};
use crate::serve;
use crate::status::Status;
use crate::verify;

/// What the process takes beside a query's own memory: the program, stacks, buffers of the files it reads.
const MEMORY_BESIDE_BYTES: u64 = 2 << 30;
const MS_AN_HOUR: u64 = 3_600_000;

/// Receives flow records from Spanwatch sensors, stores them, finds attacks, and reports.
#[derive(Debug, Parser)]
#[command(name = "spanwatch-backend", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Data {
    /// The data folder that `init` made.
    #[arg(long = "data", value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a data folder: settings, keys, database, empty lake.
    Init {
        /// Where to make it.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where the link listens.
        #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7443")]
        listen: SocketAddr,
        /// What sensors connect to; part of every one-time code.
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
    },
    /// Receive, store and judge until Ctrl-C.
    Serve(Data),
    /// Members, and codes for their sensors.
    #[command(subcommand)]
    Member(MemberCommand),
    /// Enrolled sensors.
    #[command(subcommand)]
    Sensor(SensorCommand),
    /// Print who was let in, who was refused, and who was revoked; the newest lines, oldest first.
    Audit {
        #[command(flatten)]
        data: Data,
        /// Most lines to print.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Ask the lake: the table is `flows`, `ip(initiator)` makes an address readable.
    Query {
        #[command(flatten)]
        data: Data,
        /// One SQL query.
        sql: String,
        /// How to print rows.
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
        /// Most rows to print; 0 is no limit.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Print what was found.
    Findings {
        #[command(flatten)]
        data: Data,
        /// Of this member only.
        #[arg(long)]
        member: Option<String>,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Write a member's report as one HTML file.
    Report {
        #[command(flatten)]
        data: Data,
        /// Whose report.
        #[arg(long)]
        member: String,
        /// How long, up to the newest data.
        #[arg(long, value_enum, default_value = "weekly")]
        period: PeriodArgument,
        /// First day or moment, UTC.
        #[arg(long, value_name = "TIME", value_parser = report::parse_time)]
        from: Option<u64>,
        /// Day or moment after the last one, UTC.
        #[arg(long, value_name = "TIME", value_parser = report::parse_time)]
        to: Option<u64>,
        /// The file to write; one that is there is replaced.
        #[arg(long, value_name = "FILE.html")]
        out: PathBuf,
    },
    /// Go on with a lake that was restored from an older copy: the database forgets what the lake does not have.
    ///
    /// The rows that are missing in the lake were acknowledged, so no sensor has them any more. Findings that they
    /// made stay.
    AcceptLake(Data),
    /// Check the sealed batches that are kept as evidence, and name the first break.
    ///
    /// Every batch has to be whole, signed by its sensor's key, and follow from the one before it; every one that was
    /// stored has to be there. What a sensor's spool gave up, as it says itself, is no break. Exit code: 0, or 1 when
    /// there is a break. A `serve` may run meanwhile.
    Verify {
        #[command(flatten)]
        data: Data,
        /// Only this sensor.
        #[arg(long, value_name = "ID")]
        sensor: Option<String>,
        /// These files in place of the folder's evidence: some of it, or batches from a sensor's spool.
        #[arg(long, value_name = "FILE", num_args = 1..)]
        from: Vec<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what is stored, by numbers.
    Status {
        #[command(flatten)]
        data: Data,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Add a member and print a one-time code for its first sensor; it is shown only now.
    Add {
        #[command(flatten)]
        data: Data,
        /// Name, as people say it.
        #[arg(long)]
        name: String,
        /// An address range of its own, as 192.0.2.0/24; may be given again. None: the private ranges.
        #[arg(long = "own-prefix", value_name = "CIDR")]
        own_prefixes: Vec<Prefix>,
        #[command(flatten)]
        code: CodeArguments,
    },
    /// Print a one-time code for a further sensor of a member.
    Code {
        #[command(flatten)]
        data: Data,
        /// The member's identifier.
        #[arg(long)]
        member: String,
        #[command(flatten)]
        code: CodeArguments,
    },
    /// List the members.
    List(ListArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    data: Data,
    /// As a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CodeArguments {
    /// How long the code can be used.
    #[arg(long, value_name = "HOURS", default_value_t = 72,
          value_parser = clap::value_parser!(u64).range(1..=8_760))]
    code_valid_hours: u64,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SensorCommand {
    /// End a sensor's right to deliver, at once and for good.
    Revoke {
        #[command(flatten)]
        data: Data,
        /// The sensor's identifier.
        sensor: String,
    },
    /// List the sensors of all members.
    List(ListArguments),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PeriodArgument {
    Weekly,
    Monthly,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// Says what could not be done, and why.
    pub async fn run(self, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
        match self.command {
            Command::Init { data, listen, address } => {
                Folder::create(&data, listen, &address).await?;
                writeln!(out, "made {}; next: spanwatch-backend serve --data {0}", data.display())?;
                Ok(())
            }
            Command::Serve(data) => {
                let folder = Folder::open(&data.folder)?;
                serve::serve(&folder, out, stop_signal()?).await
            }
            Command::Member(command) => member(command, out).await,
            Command::Sensor(command) => sensor(command, out).await,
            Command::Audit { data, limit, json } => {
                let lines = Folder::open(&data.folder)?.database().await?.audit(limit).await?;
                if json {
                    return print_json(&lines, out);
                }
                Ok(listing::print_audit(&lines, out)?)
            }
            Command::Query { data, sql, format, limit } => {
                let folder = Folder::open(&data.folder)?;
                let limits = folder.limits(&folder.config()?);
                limit_memory(limits.memory_bytes_max)?;
                let rows = query::start(&folder.lake().await?, &limits, &sql).await?;
                let limit = (limit > 0).then_some(limit);
                let printed = rows.print(format, limit, out).await?;
                if printed.cut {
                    let rows = printed.rows;
                    notice(&format!("cut after {rows} rows; --limit 0 prints all"))?;
                }
                Ok(())
            }
            Command::Findings { data, member, json } => {
                let database = Folder::open(&data.folder)?.database().await?;
                findings(&database, member.as_deref(), json, out).await
            }
            Command::Report { data, member, period, from, to, out: file } => {
                let folder = Folder::open(&data.folder)?;
                let asked = Asked {
                    monthly: matches!(period, PeriodArgument::Monthly),
                    from_ms: from,
                    to_ms: to,
                };
                let (database, lake) = folder.stores().await?;
                let session = lake.session(&folder.limits(&folder.config()?)).await?;
                let input = report::gather(&database, &session, &member, asked).await?;
                let html = report::render(&input)?;
                std::fs::write(&file, html).with_context(|| file.display().to_string())?;
                writeln!(out, "wrote {}", file.display())?;
                Ok(())
            }
            Command::AcceptLake(data) => {
                let accepted = Folder::open(&data.folder)?.accept_lake().await?;
                print_accepted(accepted, out)
            }
            Command::Verify { data, sensor, from, json } => {
                let folder = Folder::open(&data.folder)?;
                let asked = verify::Asked { sensor, files: from };
                let verdict =
                    verify::verify(&folder.database().await?, &folder.evidence(), &asked).await?;
                if json {
                    print_json(&verdict, out)?;
                } else {
                    verify::print(&verdict, out)?;
                }
                anyhow::ensure!(verdict.breaks() == 0, "the evidence is broken");
                Ok(())
            }
            Command::Status { data, json } => {
                let status = Status::read(&Folder::open(&data.folder)?).await?;
                print_status(&status, json, out)
            }
        }
    }
}

/// The last bound of a query's memory: the engine does not account for every value that it makes. Beyond it this
/// process ends, not another one of the machine.
fn limit_memory(memory_bytes_max: usize) -> anyhow::Result<()> {
    let bytes = (memory_bytes_max as u64).saturating_mul(2).saturating_add(MEMORY_BESIDE_BYTES);
    let bytes = Some(getrlimit(Resource::Data).maximum.map_or(bytes, |held| held.min(bytes)));
    setrlimit(Resource::Data, Rlimit { current: bytes, maximum: bytes })
        .context("the memory of the query could not be limited")
}

/// Resolves at the first SIGINT or SIGTERM.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn notice(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

async fn member(command: MemberCommand, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    match command {
        MemberCommand::Add { data, name, own_prefixes, code } => {
            let folder = Folder::open(&data.folder)?;
            let database = folder.database().await?;
            let prefixes: Vec<String> = own_prefixes.into_iter().map(String::from).collect();
            let member = database.add_member(&name, &prefixes, now_ms()).await?;
            give_code(&folder, &database, &member.id, &code, out).await
        }
        MemberCommand::Code { data, member, code } => {
            let folder = Folder::open(&data.folder)?;
            let database = folder.database().await?;
            let member = database.member(&member).await?;
            give_code(&folder, &database, &member.id, &code, out).await
        }
        MemberCommand::List(ListArguments { data, json }) => {
            let database = Folder::open(&data.folder)?.database().await?;
            let lines = listing::members(&database).await?;
            if json {
                return print_json(&lines, out);
            }
            Ok(listing::print_members(&lines, out)?)
        }
    }
}

async fn sensor(command: SensorCommand, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    match command {
        SensorCommand::Revoke { data, sensor } => {
            let database = Folder::open(&data.folder)?.database().await?;
            let now_ms = now_ms();
            let revoked_ms = database.revoke_sensor(&sensor, now_ms).await?;
            if revoked_ms < now_ms {
                let time = listing::time(revoked_ms);
                return Ok(writeln!(out, "{sensor} was revoked at {time}; nothing was changed")?);
            }
            Ok(writeln!(
                out,
                "{sensor} may no longer deliver; a running `serve` closes its connection within seconds"
            )?)
        }
        SensorCommand::List(ListArguments { data, json }) => {
            let database = Folder::open(&data.folder)?.database().await?;
            let lines = listing::sensors(&database).await?;
            if json {
                return print_json(&lines, out);
            }
            Ok(listing::print_sensors(&lines, out)?)
        }
    }
}

fn print_accepted(accepted: Option<Accepted>, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(Accepted { lake_version, database_version, forgotten }) = accepted else {
        return Ok(writeln!(out, "the lake is not older than the database; nothing was changed")?);
    };
    Ok(writeln!(
        out,
        "the database was at version {database_version} and is at {lake_version} as the lake is; it forgot {} \
         batches with {} records that the lake does not have",
        forgotten.batches, forgotten.records
    )?)
}

fn print_json(value: &impl Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}

async fn give_code(
    folder: &Folder,
    database: &Database,
    member: &MemberId,
    arguments: &CodeArguments,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    let code = EnrolmentCode::new(&folder.config()?.address, folder.authority()?.pin())?;
    let now = now_ms();
    let expires_ms = now + arguments.code_valid_hours * MS_AN_HOUR;
    database.add_code(member, code.secret_hash(), now, expires_ms).await?;
    let code = code.to_string();
    if arguments.json {
        let member = member.as_str();
        writeln!(out, "{}", json!({ "member": member, "code": code, "expires_ms": expires_ms }))?;
    } else {
        let hours = arguments.code_valid_hours;
        writeln!(out, "member {member}\ncode   {code}\nvalid for {hours} hours, shown only now")?;
    }
    Ok(())
}

async fn findings(
    database: &Database,
    member: Option<&str>,
    json: bool,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    if let Some(member) = member {
        // A mistyped name is an error, not a member without findings.
        database.member(member).await?;
    }
    let found = database.findings_between(member, 0, u64::MAX).await?;
    if json {
        return print_json(&found, out);
    }
    for stored in &found {
        let finding = &stored.finding;
        let (severity, kind) = (finding.severity, finding.kind);
        writeln!(out, "{severity:<13} {kind:<17} {} {}", stored.member, finding.summary)?;
    }
    if found.is_empty() && std::io::stdout().is_terminal() {
        notice("no findings")?;
    }
    Ok(())
}

fn print_status(status: &Status, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        return print_json(status, out);
    }
    writeln!(out, "rows stored        {}", status.rows_stored)?;
    writeln!(
        out,
        "lake               version {}, {} files",
        status.lake_version, status.lake_files
    )?;
    writeln!(
        out,
        "batches            {} stored, {} duplicate, {} rejected",
        status.batches_stored, status.batches_duplicate, status.batches_rejected
    )?;
    writeln!(out, "findings           {}", status.findings)?;
    writeln!(out, "members            {}", status.members.join(", "))?;
    for sensor in &status.sensors {
        let unknown = || "unknown".to_owned();
        writeln!(
            out,
            "sensor {}{}: last sequence {}, {} batches, {} records",
            sensor.sensor,
            if sensor.revoked { " (revoked)" } else { "" },
            sensor.last_sequence.map_or_else(unknown, |sequence| sequence.to_string()),
            sensor.batches_stored,
            sensor.records_stored
        )?;
        writeln!(out, "  {}", listing::health_line(sensor.health.as_ref(), now_ms()))?;
    }
    Ok(())
}
