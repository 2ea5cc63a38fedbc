//! How many task instances a mapped task has. `airflow: get_mapped_ti_count`

use model::{ExpandInput, GroupIndex, MappedArgument, SerializedDag, SerializedTask, XComArg};

/// Who knows the lengths of what tasks returned.
pub(crate) trait Lengths {
    /// The length of the task's return value: of an unmapped task from `task_map`, of a mapped one the
    /// number of its results once all are finished. `None`: not known now. `airflow: get_task_map_length`
    fn length(&self, task_id: &str) -> Option<i64>;
}

/// How many task instances there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    NotMapped,
    /// Some XCom is missing.
    Unknown,
    Known(i64),
}

impl Count {
    pub(crate) fn known(self) -> Option<i64> {
        match self {
            Self::Known(count) => Some(count),
            Self::NotMapped | Self::Unknown => None,
        }
    }
}

/// Own length times those of all mapped groups around the task.
pub(crate) fn count(dag: &SerializedDag, task: &SerializedTask, lengths: &impl Lengths) -> Count {
    let group = dag.mapped_groups(task).next();
    let own = task
        .expand_input
        .as_ref()
        .map(|input| input_length(input, lengths));
    let around = group.map(|group| group_count(dag, group, lengths));
    match (own, around) {
        (None, None) => Count::NotMapped,
        (own, around) => match (own.unwrap_or(Some(1)), around.unwrap_or(Some(1))) {
            (Some(own), Some(around)) => Count::Known(own.saturating_mul(around)),
            (None, _) | (_, None) => Count::Unknown,
        },
    }
}

/// The lengths of a mapped group and of all mapped groups around it, multiplied.
pub(crate) fn group_count(
    dag: &SerializedDag,
    group: GroupIndex,
    lengths: &impl Lengths,
) -> Option<i64> {
    dag.mapped_groups_from(Some(group))
        .filter_map(|group| dag.groups[group].expand_input.as_ref())
        .map(|input| input_length(input, lengths))
        .try_fold(1_i64, |product, length| {
            length.map(|length| product.saturating_mul(length))
        })
}

fn input_length(input: &ExpandInput, lengths: &impl Lengths) -> Option<i64> {
    match input {
        ExpandInput::DictOfLists(arguments) if arguments.is_empty() => Some(0),
        ExpandInput::DictOfLists(arguments) => arguments
            .iter()
            .map(|(_, argument)| argument_length(argument, lengths))
            .try_fold(1_i64, |product, length| {
                length.map(|length| product.saturating_mul(length))
            }),
        ExpandInput::ListOfDicts(argument) => argument_length(argument, lengths),
    }
}

fn argument_length(argument: &MappedArgument, lengths: &impl Lengths) -> Option<i64> {
    match argument {
        MappedArgument::Literal { length, .. } => i64::try_from(*length).ok(),
        MappedArgument::XCom(arg) => xcom_length(arg, lengths),
        MappedArgument::Unsized { .. } => None,
    }
}

fn xcom_length(arg: &XComArg, lengths: &impl Lengths) -> Option<i64> {
    match arg {
        XComArg::Plain { task_id, .. } => lengths.length(task_id),
        XComArg::Map(arg) => xcom_length(arg, lengths),
        XComArg::Zip { args, filled } => {
            let all = all_lengths(args, lengths)?;
            let ends = if *filled {
                all.iter().max()
            } else {
                all.iter().min()
            };
            ends.copied()
        }
        XComArg::Concat(args) => Some(all_lengths(args, lengths)?.iter().sum()),
    }
}

fn all_lengths(args: &[XComArg], lengths: &impl Lengths) -> Option<Vec<i64>> {
    args.iter().map(|arg| xcom_length(arg, lengths)).collect()
}
