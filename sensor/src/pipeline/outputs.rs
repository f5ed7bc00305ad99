//! Takes the settings of the outputs; opens those that are asked for. The uplink, which has more to it than
//! an output, is opened beside this.

use std::path::Path;
use std::time::Duration;

use super::{PipelineError, wall_ms};
use crate::config::{Bounded, Config, OutputConfig, OutputConfigError, OutputKind, Schema};
use crate::sink::{
    Files, IpfixSettings, IpfixSink, NullSink, ParquetSink, Rotation, Sink, TextSink,
};

/// How long a replay waits for a collector that takes nothing before it gives records up.
const REPLAY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stopping sensor goes on sending to a collector.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// Opens the output of this kind; `None` for the uplink. `can_wait` is whether the flows come from something
/// that can wait for a collector, as a capture file can and a mirror port cannot.
pub(super) fn open(
    kind: OutputKind,
    config: &Config,
    can_wait: bool,
) -> Result<Option<Box<dyn Sink>>, PipelineError> {
    let settings = &config.output;
    Ok(Some(match kind {
        OutputKind::Json => {
            let files = files(settings.json_file.as_deref(), settings, false)?;
            Box::new(match settings.json_schema {
                Schema::Native => TextSink::native(files),
                Schema::Ecs => TextSink::ecs(files, &config.capture.interfaces),
                Schema::Zeek => TextSink::zeek(files),
            })
        }
        OutputKind::Csv => {
            Box::new(TextSink::csv(files(settings.csv_file.as_deref(), settings, false)?))
        }
        OutputKind::Parquet => {
            let files = files(settings.parquet_file.as_deref(), settings, true)?;
            let group_records_max = usize::try_from(settings.parquet_group_records.get())
                .expect("the range of the setting ends at 1,048,576");
            Box::new(ParquetSink::new(files, group_records_max).map_err(PipelineError::Output)?)
        }
        OutputKind::Ipfix => Box::new(ipfix(settings, can_wait)?),
        OutputKind::Null => Box::new(NullSink),
        OutputKind::Uplink => return Ok(None),
    }))
}

fn files(
    path: Option<&Path>,
    settings: &OutputConfig,
    whole: bool,
) -> Result<Files, PipelineError> {
    let rotation = Rotation {
        file_bytes_max: settings.rotate_bytes.map(Bounded::get),
        file_period_ms: settings.rotate_ms.map(Bounded::get),
        files_max: settings.files_max.map(Bounded::get),
    };
    Files::open(path, rotation, whole, wall_ms()).map_err(|source| PipelineError::Create {
        file: path.unwrap_or(Path::new("standard output")).to_owned(),
        source,
    })
}

fn ipfix(settings: &OutputConfig, can_wait: bool) -> Result<IpfixSink, PipelineError> {
    let Some(collector) = settings.ipfix_collector.clone() else {
        return Err(PipelineError::OutputConfig(OutputConfigError::NoCollector));
    };
    let settings = IpfixSettings {
        collector: collector.clone(),
        domain: u32::try_from(settings.ipfix_domain.get())
            .expect("the range of the setting ends at 4,294,967,295"),
        message_bytes_max: usize::try_from(settings.ipfix_message_bytes_max.get())
            .expect("the range of the setting ends at 65,507"),
        template_interval: Duration::from_millis(settings.ipfix_template_ms.get()),
        template_messages: settings.ipfix_template_messages.get(),
        patience: if can_wait { REPLAY_PATIENCE } else { Duration::ZERO },
        closing_time: CLOSING_TIME,
    };
    IpfixSink::start(settings).map_err(|source| PipelineError::Collector { collector, source })
}
