//! The table of trigger rules: from counts of upstream states to what a rule demands. `airflow: TriggerRuleDep`

use model::{TaskInstanceState, TriggerRule};

/// Finished upstream task instances by state, of those that matter to one task instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Upstream {
    /// How many there are, finished or not.
    pub(super) total: i64,
    pub(super) success: i64,
    pub(super) skipped: i64,
    pub(super) failed: i64,
    pub(super) upstream_failed: i64,
    pub(super) removed: i64,
    /// Of the above, those of setup tasks.
    pub(super) setups: i64,
    pub(super) success_setups: i64,
    pub(super) skipped_setups: i64,
}

impl Upstream {
    pub(super) fn done(&self) -> i64 {
        self.success + self.skipped + self.failed + self.upstream_failed + self.removed
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.success += other.success;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.upstream_failed += other.upstream_failed;
        self.removed += other.removed;
        self.setups += other.setups;
        self.success_setups += other.success_setups;
        self.skipped_setups += other.skipped_setups;
    }
}

/// What a rule says about a task instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// The state that it must take, whether it is its turn or not.
    pub(super) force: Option<TaskInstanceState>,
    /// It may run.
    pub(super) passes: bool,
}

pub(super) fn demand(rule: TriggerRule, upstream: &Upstream, map_index: i32) -> Demand {
    use TaskInstanceState::{Removed, Skipped, UpstreamFailed};

    let Upstream {
        total: n,
        success: s,
        skipped: k,
        failed: f,
        upstream_failed: u,
        removed: r,
        setups,
        success_setups,
        skipped_setups,
    } = *upstream;
    let done = upstream.done() >= n;
    let (force, passes) = match rule {
        TriggerRule::AllSuccess => (
            if u > 0 || f > 0 {
                Some(UpstreamFailed)
            } else if k > 0 {
                Some(Skipped)
            } else if r > 0 && s > 0 && map_index > -1 && i64::from(map_index) >= s {
                Some(Removed)
            } else {
                None
            },
            n - s - r <= 0,
        ),
        TriggerRule::AllFailed => ((s > 0 || k > 0).then_some(Skipped), n - f - u - r <= 0),
        TriggerRule::AllDone => (None, done),
        TriggerRule::AllDoneMinOneSuccess => (
            if k > 0 {
                Some(Skipped)
            } else if s + f + u + r >= n - k && s == 0 {
                Some(UpstreamFailed)
            } else {
                None
            },
            k == 0 && s + f + u >= n - k - r && s > 0,
        ),
        TriggerRule::AllDoneSetupSuccess => (
            if done && setups > 0 && skipped_setups >= setups {
                Some(Skipped)
            } else if done && setups > 0 && success_setups == 0 {
                Some(UpstreamFailed)
            } else {
                None
            },
            done && (setups == 0 || success_setups > 0),
        ),
        TriggerRule::OneSuccess => (
            if done && upstream.done() == k {
                Some(Skipped)
            } else if done && s <= 0 {
                Some(UpstreamFailed)
            } else {
                None
            },
            s > 0,
        ),
        TriggerRule::OneFailed => (
            (done && f == 0 && u == 0).then_some(Skipped),
            f > 0 || u > 0,
        ),
        TriggerRule::OneDone => ((done && f == 0 && s == 0).then_some(Skipped), s + f > 0),
        TriggerRule::NoneFailed => (
            (u > 0 || f > 0).then_some(UpstreamFailed),
            n - s - k - r <= 0,
        ),
        TriggerRule::NoneFailedMinOneSuccess => (
            if u > 0 || f > 0 {
                Some(UpstreamFailed)
            } else if k == n {
                Some(Skipped)
            } else if done && s == 0 {
                Some(UpstreamFailed)
            } else {
                None
            },
            n - s - k - r <= 0 && s > 0,
        ),
        TriggerRule::NoneSkipped => ((k > 0).then_some(Skipped), done && k == 0),
        TriggerRule::AllSkipped => ((s > 0 || f > 0 || u > 0).then_some(Skipped), n - k <= 0),
        TriggerRule::Always => (None, true),
    };
    Demand { force, passes }
}

/// Setups that are not direct upstream tasks must have succeeded, whatever the rule.
/// `airflow: _evaluate_setup_constraint`
pub(super) fn setup_demand(setups: &Upstream, map_index: i32) -> Demand {
    let Upstream {
        total,
        success,
        skipped,
        failed,
        upstream_failed,
        removed,
        ..
    } = *setups;
    let expanded = map_index > -1;
    let force = if upstream_failed > 0 || failed > 0 {
        Some(TaskInstanceState::UpstreamFailed)
    } else if skipped > 0 {
        Some(TaskInstanceState::Skipped)
    } else if removed > 0 && success > 0 && expanded && i64::from(map_index) >= success {
        Some(TaskInstanceState::Removed)
    } else {
        None
    };
    let gone = if expanded { removed } else { 0 };
    Demand {
        force,
        passes: total - success - gone <= 0,
    }
}
