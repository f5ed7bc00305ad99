//! Takes the command line; gives an exit code: 0 when nothing was lost and nothing fails any more, 1
//! when something was lost or fails to the end, 2 when the command or the configuration cannot be
//! used.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use sensor::{
    After, AfterCounting, AttachBy, AttachMode, Balance, BalanceError, Bounded, CPUS_MAX,
    Collector, Config, Cpu, DoctorOptions, Messages, Options, Outcome, OutputKind, PipelineError,
    PrivacyConfig, RevealError, RevealOptions, SUMMARY_NAME, Schema, ScreenError, SentError,
    SentOptions, Speed, Tab, TopError, TopOptions, parse_moment,
};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// What is logged when `RUST_LOG` does not say it: without the socket's own lines at each attempt to
/// reach a backend, of which the delivery tells the outcome.
const LOG_FILTER: &str = "info,quinn_udp=error";

/// Turns frames from a mirror port or a capture file into flow records. Never keeps, writes or
/// sends payload.
///
/// Exit code: 0 when nothing was lost and nothing fails any more, 1 when something was lost or fails to
/// the end, 2 when the command or the configuration cannot be used.
#[derive(Parser)]
#[command(name = "spanwatch-sensor", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Shared {
    /// Configuration file (TOML); flags override it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check configuration and flags, then stop.
    #[arg(long, global = true)]
    check_config: bool,
    /// Print the configuration in effect, with its documentation, then stop.
    #[arg(long, global = true)]
    print_config: bool,
    /// Folder of the sensor's identity and spool.
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Listen on one or more mirror ports until SIGINT, SIGTERM or SIGHUP.
    Run {
        /// Interface to listen on; may be given more than once.
        #[arg(long, value_name = "NAME")]
        interface: Vec<String>,
        /// What happens to a frame after it was counted.
        #[arg(long)]
        after: Option<AfterCounting>,
        /// How the kernel program is attached.
        #[arg(long)]
        mode: Option<AttachBy>,
        #[command(flatten)]
        flows: FlowArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Read capture files, on their own clock.
    ///
    /// Several are read in the order given, as one capture. Ctrl-C ends it early: what was read is
    /// counted and written, and the exit code is 1.
    Replay {
        /// Captures: pcap or pcapng, plain or in gzip or zstd; `-` is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How fast: `max`, `wire` (the capture's own pace), or a factor of that such as `10x`.
        #[arg(long, value_name = "SPEED", default_value_t)]
        speed: Speed,
        #[command(flatten)]
        flows: FlowArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Watch what comes: rates, flows, hosts, services, losses.
    ///
    /// On interfaces it counts as `run` does, and stores nothing unless an output is named. Capture
    /// files are read as if they came over the wire. `?` shows the keys.
    Top(TopArgs),
    /// Find what breaks a mirror port, and say what mends it.
    ///
    /// Asks kernel and driver how they are set, listens for some seconds, and judges both. Changes
    /// nothing: the commands are printed, not run. Exit code: 0 when there is no fault (there may be
    /// warnings), 1 when there are faults, 2 when nothing could be examined.
    Doctor(DoctorArgs),
    /// Exchange a one-time code for an identity.
    ///
    /// Where there is one whose certificate has expired, it gets a new certificate: the sensor keeps its name,
    /// its key and what waits in its spool.
    Enroll {
        /// The code, as the backend's operator gave it.
        code: String,
        /// Give up what waits in the spool under an earlier identity, which the new one cannot
        /// deliver: it is kept in the folder `superseded`, and the backend is told how many records
        /// are missing.
        #[arg(long)]
        abandon_waiting: bool,
    },
    /// Print who this sensor is, and how long its certificate is valid.
    ///
    /// May run beside a sensor. Exit code: 0 when the certificate is valid now, 1 when it is not, or
    /// when there is none.
    Identity {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send what waits in the spool to the backend, without capturing anything.
    ///
    /// A running sensor does this by itself; this is for a spool that no sensor uses at the moment:
    /// after a replay while the backend was down, before a box is retired, or when the disk is too
    /// full for a sensor to start. Exit code 0 only when nothing waits any more and nothing was
    /// refused or damaged.
    Deliver {
        /// Give up after this time, milliseconds. Without it: when the backend has acknowledged
        /// nothing for a minute.
        #[arg(long, value_name = "MS")]
        within_ms: Option<WithinMs>,
    },
    /// Show every batch that has left for the backend or waits, and every record in it.
    ///
    /// Reads the files in the state folder, which are what was sent, byte for byte; a sensor may run
    /// meanwhile. How much is kept: `uplink.sent_bytes_max`. Exit code: 0, 1 when a file is damaged, 2
    /// when there is nothing to read.
    Sent(SentArgs),
    /// Show which of your own addresses a pseudonym stands for.
    ///
    /// The backend and its reports have pseudonyms in the place of your clients' addresses. The keys are on this
    /// machine only; a sensor may run meanwhile. Without --epoch or --at, every key that is still kept is tried: the
    /// same pseudonym stands for another address in each key epoch, and reports say of which one it is. Exit code: 0, 1
    /// when one of the addresses could not be shown, 2 when there are no keys, or not the one that was asked for.
    Reveal(RevealArgs),
    /// Print the books as equations: from the port to the backend, whether every frame is accounted for.
    ///
    /// Exit code: 0 when they balance, 1 when they do not, 2 when they cannot be read.
    Balance {
        /// Summary file, as `--summary` wrote it. Without it: that of the sensor that runs with the
        /// state folder.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct SentArgs {
    /// Print a JSON object for each batch.
    #[arg(long)]
    json: bool,
    /// After each batch its records, as JSON lines.
    #[arg(long)]
    records: bool,
    /// In the records the addresses that pseudonyms stand for: not what was sent, but whom it was about.
    #[arg(long, requires = "records")]
    reveal: bool,
    /// Only this batch, as the list names it: boot epoch, hyphen, sequence.
    #[arg(long, value_name = "EPOCH-SEQUENCE", value_parser = batch_name)]
    batch: Option<(u64, u64)>,
}

#[derive(Args)]
struct RevealArgs {
    /// Pseudonyms, as a report or the backend shows them.
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// Only of this key epoch.
    #[arg(long, value_name = "N")]
    epoch: Option<u32>,
    /// Only of the key epoch at this time, such as 2026-11-21T10:00:00Z or 2026-11-21.
    #[arg(long, value_name = "TIME", value_parser = parse_moment, conflicts_with = "epoch")]
    at: Option<u64>,
    /// The other way: show the pseudonyms that own addresses were sent under.
    #[arg(long)]
    pseudonym: bool,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

fn batch_name(text: &str) -> Result<(u64, u64), String> {
    let numbers = text
        .split_once('-')
        .and_then(|(epoch, sequence)| Some((epoch.parse().ok()?, sequence.parse().ok()?)));
    numbers.ok_or_else(|| "expected two numbers, such as 1795258800-1".to_owned())
}

/// How long it is watched before one screen is printed, seconds.
type WatchSeconds = Bounded<1, 86_400>;

#[derive(Args)]
struct TopArgs {
    /// Interface to listen on; may be given more than once.
    #[arg(long, value_name = "NAME", conflicts_with = "files")]
    interface: Vec<String>,
    /// Captures to read in its place: pcap or pcapng, plain or in gzip or zstd; `-` is standard
    /// input.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How fast files are read: `wire` (the capture's own pace), `max`, or a factor such as `10x`.
    #[arg(long, value_name = "SPEED", default_value = "wire", conflicts_with = "interface")]
    speed: Speed,
    /// Print one screen as text, without a terminal, and end.
    #[arg(long)]
    once: bool,
    /// How long to watch before that, seconds; less where files end or a signal comes.
    #[arg(long, value_name = "N", default_value = "2", requires = "once")]
    seconds: WatchSeconds,
    /// What to look at first.
    #[arg(long, value_name = "LIST", default_value = "flows")]
    tab: Tab,
    /// Which flows to look at: addresses, prefixes, ports, protocols, any text; `!` means not.
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    filter: String,
    /// What happens to a frame after it was counted.
    #[arg(long, conflicts_with = "files")]
    after: Option<AfterCounting>,
    /// How the kernel program is attached.
    #[arg(long, conflicts_with = "files")]
    mode: Option<AttachBy>,
    /// Count a packet once that the mirror delivers twice.
    #[arg(long)]
    deduplicate: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// How long the doctor listens, seconds.
type ListenSeconds = Bounded<1, 3600>;

#[derive(Args)]
struct DoctorArgs {
    /// Interface to examine.
    #[arg(long, value_name = "NAME", required_unless_present = "file", conflicts_with = "file")]
    interface: Option<String>,
    /// Capture file to examine in its place, pcap or pcapng.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long to listen, seconds.
    #[arg(long, value_name = "N", default_value = "10", conflicts_with = "file")]
    seconds: ListenSeconds,
    /// Stop as soon as so many frames have been seen.
    #[arg(long, value_name = "N", conflicts_with = "file")]
    frames: Option<u64>,
    /// What happens to a frame after it was looked at.
    #[arg(long, conflicts_with = "file")]
    after: Option<AfterCounting>,
    /// How the kernel program is attached.
    #[arg(long, conflicts_with = "file")]
    mode: Option<AttachBy>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Longest time that a delivery may take, milliseconds: up to a week.
type WithinMs = Bounded<0, 604_800_000>;

#[derive(Args)]
struct FlowArgs {
    /// Processors that build the flows, such as 2,3: one thread and one part of the flow table each.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cpus: Vec<Cpu>,
    /// Count a packet once that the mirror delivers twice.
    #[arg(long)]
    deduplicate: bool,
}

#[derive(Args)]
struct OutputArgs {
    /// Where records go; may be given more than once.
    #[arg(long, value_name = "KIND")]
    output: Vec<OutputKind>,
    /// What the lines of --output json look like.
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<Schema>,
    /// File that --output json, csv or parquet writes; JSON and CSV go to standard output without it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Collector for --output ipfix, as udp://HOST:PORT or tcp://HOST:PORT.
    #[arg(long, value_name = "URL")]
    collector: Option<Collector>,
    /// File that keeps the books, replaced about once a second and at the end.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

impl OutputArgs {
    /// Lays these flags over the file's settings; refuses what does not go together.
    fn lay_over(&self, config: &mut Config) -> anyhow::Result<()> {
        let settings = &mut config.output;
        if !self.output.is_empty() {
            settings.kinds.clone_from(&self.output);
        }
        if let Some(schema) = self.schema {
            settings.json_schema = schema;
        }
        if self.collector.is_some() {
            settings.ipfix_collector.clone_from(&self.collector);
        }
        if let Some(file) = &self.out {
            settings.set_file(file)?;
        }
        settings.check()?;
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let messages = Messages::default();
    let is_top = matches!(cli.command, Some(Command::Top(_)));
    tracing_subscriber::fmt()
        // While a screen is shown, nothing may be written over it.
        .with_writer(if is_top {
            BoxMakeWriter::new(messages.clone())
        } else {
            BoxMakeWriter::new(io::stderr)
        })
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_unset| {
            // What the doctor finds stands in its report.
            let is_doctor = matches!(cli.command, Some(Command::Doctor(_)));
            if is_doctor { "error" } else { LOG_FILTER }.into()
        }))
        .with_target(false)
        .with_ansi(io::stderr().is_terminal() && !is_top)
        .init();
    let config = match configuration(&cli) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    match act(cli, &config, messages) {
        Ok(code) => code,
        Err(error) => {
            let is_usage = matches!(error.downcast_ref(), Some(PipelineError::NoInterface))
                || error.is::<BalanceError>()
                || error.is::<ScreenError>();
            fail(&error, if is_usage { 2 } else { 1 })
        }
    }
}

/// The file's settings with the flags laid over them.
fn configuration(cli: &Cli) -> anyhow::Result<Config> {
    let mut config = match &cli.shared.config {
        Some(file) => Config::read(file)?,
        None => Config::default(),
    };
    if let Some(state_dir) = &cli.shared.state_dir {
        config.uplink.state_dir.clone_from(state_dir);
    }
    let (flows, output) = match &cli.command {
        Some(Command::Run { interface, after, mode, flows, output }) => {
            if !interface.is_empty() {
                config.capture.interfaces.clone_from(interface);
            }
            config.capture.after = after.unwrap_or(config.capture.after);
            config.capture.mode = mode.unwrap_or(config.capture.mode);
            (Some(flows), Some(output))
        }
        Some(Command::Replay { files, flows, output, .. }) => {
            let from_stdin = files.iter().filter(|file| file.as_os_str() == "-").count();
            anyhow::ensure!(from_stdin <= 1, "standard input (-) can be read only once");
            (Some(flows), Some(output))
        }
        Some(Command::Top(args)) => {
            if !args.interface.is_empty() {
                config.capture.interfaces.clone_from(&args.interface);
            }
            config.capture.after = args.after.unwrap_or(config.capture.after);
            config.capture.mode = args.mode.unwrap_or(config.capture.mode);
            config.capture.deduplicate |= args.deduplicate;
            // Who only looks disturbs neither a file nor the link of a sensor that runs.
            config.output.kinds = vec![OutputKind::Null];
            (None, Some(&args.output))
        }
        Some(
            Command::Doctor(_)
            | Command::Enroll { .. }
            | Command::Identity { .. }
            | Command::Deliver { .. }
            | Command::Sent(_)
            | Command::Reveal(_)
            | Command::Balance { .. },
        )
        | None => (None, None),
    };
    config.capture.deduplicate |= flows.is_some_and(|flows| flows.deduplicate);
    if let Some(flows) = flows.filter(|flows| !flows.cpus.is_empty()) {
        anyhow::ensure!(
            flows.cpus.len() <= CPUS_MAX,
            "--cpus names {} processors, expected at most {CPUS_MAX}",
            flows.cpus.len()
        );
        config.flows.cpus.clone_from(&flows.cpus);
    }
    if let Some(output) = output {
        output.lay_over(&mut config)?;
    } else if cli.shared.check_config {
        config.output.check()?;
    }
    if let Some(Command::Top(args)) = &cli.command {
        let from_stdin = args.files.iter().filter(|file| file.as_os_str() == "-").count();
        anyhow::ensure!(from_stdin <= 1, "standard input (-) can be read only once");
        anyhow::ensure!(
            args.files.is_empty()
                || (args.output.output.is_empty() && args.output.summary.is_none()),
            "top stores nothing of files: use `replay` for --output and --summary"
        );
        anyhow::ensure!(
            config.output.to_stdout().is_none(),
            "this output needs --out FILE here: standard output is the screen"
        );
    }
    Ok(config)
}

fn act(cli: Cli, config: &Config, messages: Messages) -> anyhow::Result<ExitCode> {
    if cli.shared.print_config {
        io::stdout().write_all(config.to_documented_toml().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if cli.shared.check_config {
        let listens = match &cli.command {
            Some(Command::Run { .. }) => true,
            Some(Command::Top(args)) => args.files.is_empty(),
            _ => false,
        };
        if listens && config.capture.interfaces.is_empty() {
            return Err(PipelineError::NoInterface.into());
        }
        writeln!(io::stdout(), "the configuration can be used")?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = match cli.command {
        Some(Command::Run { output, .. }) => {
            let options = Options { summary_file: output.summary, ..Options::default() };
            sensor::run(config, &options)?
        }
        Some(Command::Replay { files, speed, output, .. }) => {
            // A bar and records on the same terminal would overwrite each other.
            let to_terminal = config.output.to_stdout().is_some() && io::stdout().is_terminal();
            let progress = io::stderr().is_terminal() && !to_terminal;
            let options = Options { summary_file: output.summary, progress, speed };
            sensor::replay(config, &options, &files)?
        }
        Some(Command::Top(args)) => return top(args, config, messages),
        Some(Command::Doctor(args)) => return doctor(args, config),
        Some(Command::Enroll { code, abandon_waiting }) => {
            return enroll(&code, abandon_waiting, config);
        }
        Some(Command::Identity { json }) => return identity(json, config),
        Some(Command::Deliver { within_ms }) => return deliver(within_ms, config),
        Some(Command::Sent(args)) => return show_sent(&args, config),
        Some(Command::Reveal(args)) => return Ok(reveal(&args, config)),
        Some(Command::Balance { file, json }) => return balance(file, json, config),
        None => anyhow::bail!("no command is given; see --help"),
    };
    Ok(report(&outcome))
}

fn top(args: TopArgs, config: &Config, messages: Messages) -> anyhow::Result<ExitCode> {
    let size = |name| std::env::var(name).ok().and_then(|size| size.parse().ok());
    let options = TopOptions {
        files: args.files,
        speed: args.speed,
        once: args.once.then(|| Duration::from_secs(args.seconds.get())),
        tab: args.tab,
        filter: args.filter,
        has_colours: std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
        printed: (size("COLUMNS"), size("LINES")),
        messages,
        summary_file: args.output.summary,
    };
    let topped = sensor::top(config, &options).map_err(|error| match error {
        TopError::Screen(error) => anyhow::Error::new(error),
        TopError::Pipeline(error) => error.into(),
        error @ TopError::File { .. } => error.into(),
    })?;
    let mut outcome = topped.outcome;
    if let Some(screen) = topped.printed {
        io::stdout().write_all(screen.as_bytes())?;
        outcome.text.clear();
    }
    Ok(report(&outcome))
}

fn doctor(args: DoctorArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let examined = match (args.interface, args.file) {
        (Some(interface), _) => sensor::doctor_interface(&DoctorOptions {
            interface,
            listen: Duration::from_secs(args.seconds.get()),
            frames: args.frames,
            after: match args.after.unwrap_or(config.capture.after) {
                AfterCounting::Auto => After::Auto,
                AfterCounting::Drop => After::Drop,
                AfterCounting::Pass => After::Pass,
            },
            mode: match args.mode.unwrap_or(config.capture.mode) {
                AttachBy::Auto => None,
                AttachBy::Native => Some(AttachMode::Native),
                AttachBy::Generic => Some(AttachMode::Generic),
            },
        }),
        (None, Some(file)) => sensor::doctor_file(&file),
        (None, None) => anyhow::bail!("name an interface or a file; see --help"),
    };
    let report = match examined {
        Ok(report) => report,
        Err(error) => return Ok(fail(&error.into(), 2)),
    };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let in_colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        out.write_all(report.text(in_colours).as_bytes())?;
    }
    Ok(if report.faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn enroll(code: &str, abandon_waiting: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let state_dir = &config.uplink.state_dir;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let enrolled = runtime
        .block_on(async {
            if abandon_waiting {
                uplink::enroll_abandoning(code, state_dir).await
            } else {
                uplink::enroll(code, state_dir).await
            }
        })
        .with_context(|| format!("not enrolled into {}", state_dir.display()))?;
    writeln!(
        io::stdout(),
        "enrolled as sensor {} of member {}; the backend is {}; the identity is in {}",
        enrolled.sensor,
        enrolled.member,
        enrolled.backend,
        state_dir.display()
    )?;
    if config.privacy.own_prefixes == PrivacyConfig::default().own_prefixes {
        writeln!(
            io::stdout(),
            "privacy.own_prefixes has the private ranges only: if clients here have public addresses, name these ranges \
             in the configuration before the sensor runs, or the backend gets them as they are"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn identity(json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let card = uplink::identity_card(&config.uplink.state_dir)?;
    let text = if json { serde_json::to_string_pretty(&card)? + "\n" } else { card.to_text() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if card.is_valid() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn deliver(within_ms: Option<WithinMs>, config: &Config) -> anyhow::Result<ExitCode> {
    let within = within_ms.map(|limit| Duration::from_millis(limit.get()));
    let delivered = sensor::deliver(config, within)?;
    writeln!(
        io::stdout(),
        "{} records acknowledged, {} rejected, {} wait in {}",
        delivered.records_acked,
        delivered.records_rejected,
        delivered.records_waiting,
        config.uplink.state_dir.display()
    )?;
    if let Some(fault) = &delivered.fault {
        anyhow::bail!("the delivery ended early: {fault}");
    }
    Ok(if delivered.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_sent(args: &SentArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let SentArgs { json, records, reveal, batch: only } = *args;
    let options = SentOptions { json, records, reveal, only };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match sensor::sent(&config.uplink.state_dir, &options, &mut out) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(_damaged) => Ok(ExitCode::FAILURE),
        // Whoever looks at the first lines only has seen enough.
        Err(SentError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ SentError::Write(_)) => Err(error.into()),
        Err(error) => Ok(fail(&error.into(), 2)),
    }
}

fn reveal(args: &RevealArgs, config: &Config) -> ExitCode {
    let RevealArgs { epoch, at: at_ms, pseudonym: pseudonyms, json, .. } = *args;
    let options = RevealOptions { epoch, at_ms, pseudonyms, json };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match sensor::reveal(&config.uplink.state_dir, &args.addresses, &options, &mut out) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_hidden) => ExitCode::FAILURE,
        Err(RevealError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.into(), 2),
    }
}

fn balance(file: Option<PathBuf>, json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let file = file.unwrap_or_else(|| config.uplink.state_dir.join(SUMMARY_NAME));
    let balance = Balance::read(&file)?;
    let text = if json {
        serde_json::to_string_pretty(&balance)? + "\n"
    } else {
        balance.to_text(Timestamp::now())
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if balance.balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(outcome: &Outcome) -> ExitCode {
    let mut text = outcome.text.clone();
    for fault in &outcome.faults {
        text.push_str("error: ");
        text.push_str(fault);
        text.push('\n');
    }
    // With standard error gone there is nobody left to tell.
    let _nobody = io::stderr().write_all(text.as_bytes());
    if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // With standard error gone there is nobody left to tell.
    let _nobody = writeln!(io::stderr(), "error: {}", told(error));
    ExitCode::from(code)
}

/// An error with its causes; one whose text the text before it ends with is not said twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}
