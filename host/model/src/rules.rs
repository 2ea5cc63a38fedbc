//! Trigger rules and weight rules, as Airflow spells them.

use std::fmt;
use std::str::FromStr;

use crate::UnknownName;

/// Which upstream states let a task run. `airflow: TriggerRule`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TriggerRule {
    AllSuccess,
    AllFailed,
    AllDone,
    AllDoneMinOneSuccess,
    AllDoneSetupSuccess,
    OneSuccess,
    OneFailed,
    OneDone,
    NoneFailed,
    NoneFailedMinOneSuccess,
    NoneSkipped,
    AllSkipped,
    Always,
}

impl TriggerRule {
    pub const ALL: &'static [Self] = &[
        Self::AllSuccess,
        Self::AllFailed,
        Self::AllDone,
        Self::AllDoneMinOneSuccess,
        Self::AllDoneSetupSuccess,
        Self::OneSuccess,
        Self::OneFailed,
        Self::OneDone,
        Self::NoneFailed,
        Self::NoneFailedMinOneSuccess,
        Self::NoneSkipped,
        Self::AllSkipped,
        Self::Always,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllSuccess => "all_success",
            Self::AllFailed => "all_failed",
            Self::AllDone => "all_done",
            Self::AllDoneMinOneSuccess => "all_done_min_one_success",
            Self::AllDoneSetupSuccess => "all_done_setup_success",
            Self::OneSuccess => "one_success",
            Self::OneFailed => "one_failed",
            Self::OneDone => "one_done",
            Self::NoneFailed => "none_failed",
            Self::NoneFailedMinOneSuccess => "none_failed_min_one_success",
            Self::NoneSkipped => "none_skipped",
            Self::AllSkipped => "all_skipped",
            Self::Always => "always",
        }
    }
}

impl fmt::Display for TriggerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TriggerRule {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .iter()
            .copied()
            .find(|rule| rule.as_str() == name)
            .ok_or_else(|| UnknownName {
                kind: "trigger rule",
                name: name.to_owned(),
            })
    }
}

/// How the priority weight of a task instance comes about. `airflow: WeightRule`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightRule {
    /// Own weight plus that of all tasks downstream.
    Downstream,
    /// Own weight plus that of all tasks upstream.
    Upstream,
    /// Own weight alone.
    Absolute,
    /// A Python class of the user.
    Custom(String),
}

impl WeightRule {
    /// Any text is a rule: what Airflow does not ship is the import path of a class.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "downstream" | "airflow.task.priority_strategy._DownstreamPriorityWeightStrategy" => {
                Self::Downstream
            }
            "upstream" | "airflow.task.priority_strategy._UpstreamPriorityWeightStrategy" => {
                Self::Upstream
            }
            "absolute" | "airflow.task.priority_strategy._AbsolutePriorityWeightStrategy" => {
                Self::Absolute
            }
            class => Self::Custom(class.to_owned()),
        }
    }
}
