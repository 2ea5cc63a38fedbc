//! Commands about DAGs.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use clap::{Args, Subcommand};

use super::{EnvArguments, OutputArguments};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DagsCommand {
    /// Validate DAG files and upload them
    Create(DagFilesArguments),
    /// Validate new versions of DAG files and upload them
    Update(DagFilesArguments),
    /// List DAGs and files that could not be imported
    List(ListArguments),
    /// Remove the file of a DAG; its history stays
    Delete(DagArguments),
    /// Make a run of a DAG
    Trigger(TriggerArguments),
    /// Start no new work of a DAG
    Pause(DagArguments),
    /// Let a paused DAG run again
    Unpause(DagArguments),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DagFilesArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// A DAG file; several may follow
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub(in crate::cli) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DagArguments {
    #[command(flatten)]
    pub(in crate::cli) env: EnvArguments,
    /// The DAG
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) dag_id: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TriggerArguments {
    #[command(flatten)]
    pub(in crate::cli) dag: DagArguments,
    /// Parameters of the run, a JSON object
    #[arg(short, long, value_name = "JSON")]
    pub(in crate::cli) conf: Option<String>,
    /// Id of the run; without it Airflow's default
    #[arg(short, long, value_name = "ID")]
    pub(in crate::cli) run_id: Option<String>,
    /// Logical date of the run, e.g. 2026-01-31 or 2026-01-31T12:00:00+01:00 (without zone: UTC)
    #[arg(short, long, value_name = "DATE", value_parser = date)]
    pub(in crate::cli) logical_date: Option<DateTime<Utc>>,
    /// The partition that the run is about, for a DAG with partitions
    #[arg(short = 'k', long, value_name = "KEY")]
    pub(in crate::cli) partition_key: Option<String>,
    /// Wait until the run has ended; exit with 1 unless it succeeded
    #[arg(short, long)]
    pub(in crate::cli) wait: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}

fn date(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Ok(date.to_utc());
    }
    for format in [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
    ] {
        if let Ok(date) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(date.and_utc());
        }
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .map(|date| date.and_utc())
        .ok_or_else(|| "a date like 2026-01-31 or 2026-01-31T12:00:00+01:00 is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn a_date_without_a_zone_is_in_utc() {
        let read = |text| date(text).map_or_else(|error| error, |date| date.to_rfc3339());
        insta::assert_snapshot!(
            ["2026-01-31", "2026-01-31T12:30", "2026-01-31T12:00:00+01:00", "soon"].map(read).join("\n"),
            @r"
        2026-01-31T00:00:00+00:00
        2026-01-31T12:30:00+00:00
        2026-01-31T11:00:00+00:00
        a date like 2026-01-31 or 2026-01-31T12:00:00+01:00 is expected
        "
        );
    }
}
