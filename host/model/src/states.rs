//! The states and kinds that Airflow stores as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that Airflow 3.3.2 does not know in this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} has no value {name:?}")]
pub struct UnknownName {
    /// Which enum was asked, in Airflow's words.
    pub kind: &'static str,
    /// What was found.
    pub name: String,
}

macro_rules! named {
    ($(#[$meta:meta])* $kind:ident ($what:literal) { $($(#[$vmeta:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $kind { $($(#[$vmeta])* #[serde(rename = $name)] $variant,)+ }

        impl $kind {
            /// Every value, in Airflow's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text that Airflow stores.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $kind {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    other => Err(UnknownName { kind: $what, name: other.to_owned() }),
                }
            }
        }
    };
}

named! {
    /// State of a task instance; *no state* is `None` around it. `airflow: TaskInstanceState`
    TaskInstanceState ("task instance state") {
        Removed = "removed",
        Scheduled = "scheduled",
        Queued = "queued",
        Running = "running",
        Success = "success",
        Restarting = "restarting",
        Failed = "failed",
        UpForRetry = "up_for_retry",
        UpForReschedule = "up_for_reschedule",
        UpstreamFailed = "upstream_failed",
        Skipped = "skipped",
        Deferred = "deferred",
        AwaitingInput = "awaiting_input",
    }
}

impl TaskInstanceState {
    /// `airflow: State.finished`
    #[must_use]
    pub const fn is_finished(self) -> bool {
        match self {
            Self::Success | Self::Failed | Self::Skipped | Self::UpstreamFailed | Self::Removed => {
                true
            }
            Self::Scheduled
            | Self::Queued
            | Self::Running
            | Self::Restarting
            | Self::UpForRetry
            | Self::UpForReschedule
            | Self::Deferred
            | Self::AwaitingInput => false,
        }
    }
}

named! {
    /// State of a run. `airflow: DagRunState`
    DagRunState ("dag run state") {
        Queued = "queued",
        Running = "running",
        Success = "success",
        Failed = "failed",
    }
}

impl DagRunState {
    /// `airflow: State.finished_dr_states`
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

named! {
    /// Why a run exists; stored in lower case. `airflow: DagRunType`
    DagRunType ("dag run type") {
        Backfill = "backfill",
        Scheduled = "scheduled",
        Manual = "manual",
        OperatorTriggered = "operator_triggered",
        AssetTriggered = "asset_triggered",
        AssetMaterialization = "asset_materialization",
    }
}

named! {
    /// Who made a run; stored as the enum's NAME in upper case. `airflow: DagRunTriggeredByType`
    DagRunTriggeredBy ("dag run trigger") {
        Cli = "CLI",
        Operator = "OPERATOR",
        RestApi = "REST_API",
        Ui = "UI",
        Test = "TEST",
        Timetable = "TIMETABLE",
        Asset = "ASSET",
        Backfill = "BACKFILL",
    }
}
