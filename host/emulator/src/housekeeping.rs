//! What happens because time passes: limits, containers that do not come up or do not leave, old calls, long log files.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    app_life, ask, blobs,
    clock::until,
    core::{Core, Inner},
    definitions, dicts, log_file, mounts, objects, partitions, process,
    state::Phase,
    streams, volumes,
};

/// How often to look while there are containers.
pub(crate) const ROUND: f64 = 5.0;
/// How often to look when there is nothing but old calls.
const SLOW_ROUND: f64 = 3600.0;
/// How often old rows and files are looked for, at most.
const CLEAN_ROUND: f64 = 60.0;
/// A machine that sleeps stops timers as well: after this time the clock is looked at.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
const LEAVING_LIMIT: f64 = 30.0;
pub(crate) const KEPT_FOR: f64 = 7.0 * 24.0 * 3600.0;

/// Runs until it is dropped.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let now = core.clock.now();
        let Chores { next, logs, used } = look(&core, now);
        if let Some(used) = used {
            // What a mount has begun to use in the meantime was looked for: it is not old.
            core.contents.clean(|hash| used.contains(hash));
        }
        for (path, limit) in logs {
            if let Err(error) = log_file::keep_below(&path, limit) {
                tracing::debug!(%error, path = %path.display(), "log file not looked at");
            }
        }
        tokio::select! {
            () = wait(&core, next) => {}
            () = core.alarm.notified() => {}
        }
    }
}

/// Until a moment, or until the wall clock has jumped: then schedules are due earlier.
async fn wait(core: &Core, moment: f64) {
    let ahead = || core.clock.wall() - core.clock.now();
    let before = ahead();
    loop {
        let left = until(moment, core.clock.now());
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        if left <= LONGEST_SLEEP || ahead() > before + 1.0 {
            return;
        }
    }
}

/// What is left to do without the lock.
struct Chores {
    /// When to look again.
    next: f64,
    /// Log files and the size that each may have.
    logs: Vec<(PathBuf, u64)>,
    /// The contents that are needed, if it is time to remove the others.
    used: Option<HashSet<String>>,
}

/// Does what is due.
fn look(core: &Core, now: f64) -> Chores {
    let mut guard = core.lock();
    let inner = &mut *guard;
    core.end_overdue_inputs(inner, now);
    doom_late_containers(core, inner, now);
    core.end_apps(inner, now);
    core.rest_servers(inner, now);
    let wall = core.clock.wall();
    let next_call = core.fire_schedules(inner, wall) - (wall - now);
    inner.state.forget_ended_before(wall - KEPT_FOR);
    let mut used = None;
    if inner.clean_at <= now {
        inner.clean_at = now + CLEAN_ROUND;
        forget_rows(core, inner, now);
        used = Some(mounts::used_contents(&inner.state.rows));
    }
    compact(inner);
    let functions: Vec<_> = inner.functions.keys().cloned().collect();
    // Set first: a dispatch that has to wait for something may bring it forward.
    inner.next_look = next_look(inner, now)
        .min(next_call)
        .min(app_life::next_look(inner, now));
    for function_id in functions {
        core.dispatch(inner, &function_id);
    }
    let [_, before] = inner.oom_kills;
    inner.oom_kills = [before, process::kernel_oom_kills()];
    let logs = inner
        .state
        .containers
        .values()
        .map(|container| (container.log_path.clone(), container.max_log_bytes))
        .collect();
    Chores {
        next: inner.next_look,
        logs,
        used,
    }
}

fn doom_late_containers(core: &Core, inner: &mut Inner, now: f64) {
    let mut late = Vec::new();
    for (task_id, container) in &inner.state.containers {
        let Some(live) = inner.live.get(task_id) else {
            continue;
        };
        let limit = inner
            .functions
            .get(&container.function_id)
            .map(|function| function.spec.startup_timeout.as_secs_f64());
        if !live.has_asked && limit.is_some_and(|limit| live.started_at + limit <= now) {
            late.push((
                task_id.clone(),
                format!(
                    "it did not ask for inputs within {} s",
                    limit.unwrap_or_default()
                ),
            ));
        } else if live
            .leaving_since
            .is_some_and(|since| since + LEAVING_LIMIT <= now)
        {
            late.push((
                task_id.clone(),
                format!("it did not leave within {LEAVING_LIMIT} s"),
            ));
        }
    }
    for (task_id, reason) in late {
        core.doom(inner, &task_id, reason);
    }
}

fn next_look(inner: &Inner, now: f64) -> f64 {
    if inner.state.containers.is_empty() {
        return now + SLOW_ROUND;
    }
    let deadlines = inner
        .state
        .containers
        .values()
        .flat_map(|container| &container.running)
        .filter_map(|input_id| match inner.state.inputs.get(input_id)?.phase {
            Phase::Running { deadline, .. } => Some(deadline),
            Phase::Waiting { .. } | Phase::Ended(_) => None,
        });
    let startups = inner
        .state
        .containers
        .iter()
        .filter_map(|(task_id, container)| {
            let live = inner.live.get(task_id).filter(|live| !live.has_asked)?;
            Some(
                live.started_at
                    + inner
                        .functions
                        .get(&container.function_id)?
                        .spec
                        .startup_timeout
                        .as_secs_f64(),
            )
        });
    deadlines
        .chain(startups)
        .fold(now + ROUND, f64::min)
        .max(now)
}

fn forget_rows(core: &Core, inner: &mut Inner, now: f64) {
    let silent = objects::forget_silent(inner, core.started_at, now);
    let answered = ask::forget_answers(inner, now);
    let old_entries = dicts::forget_old(inner, now);
    let old_items = partitions::forget_old(inner, now);
    let old_blobs = blobs::forget_old(core, inner, now);
    let old_chunks = streams::forget_old(inner);
    for change in [
        silent,
        answered,
        old_entries,
        old_items,
        old_blobs,
        old_chunks,
    ] {
        if !change.is_empty() {
            inner.note(change.into_event());
        }
    }
    volumes::clean(core, inner);
    definitions::clean(core, inner);
}

fn compact(inner: &mut Inner) {
    if !inner.journal.has_outgrown_its_state() {
        return;
    }
    let events = inner.state.events();
    if let Err(error) = inner.journal.rewrite(events.into_iter()) {
        tracing::warn!(%error, "journal could not be rewritten: it goes on growing");
    }
}
