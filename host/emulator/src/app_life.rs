//! How apps end: by somebody's word, or by themselves when their client is gone. What they leave behind is forgotten later.

use modal_api::wire::{self, AppState};

use crate::{
    app_parts,
    apps::AppRow,
    core::{Core, Ending, Inner},
    rows::Change,
};

/// An app that lives with its client ends when it has not been heard of for so long. The official client speaks every 15 s.
const SILENT_LIFE: f64 = 90.0;
/// How often apps are looked at that end by themselves.
const ROUND: f64 = 15.0;
/// Stopped apps stay in listings for so long.
const KEPT_FOR: f64 = 7.0 * 24.0 * 3600.0;

/// The containers of an app's functions.
pub(crate) fn containers_of(inner: &Inner, app_id: &str) -> Vec<String> {
    let rows = &inner.state.rows;
    let containers = inner.state.containers.iter();
    containers
        .filter(|(_, container)| {
            app_parts::app_of(rows, &container.function_id).is_some_and(|id| id == app_id)
        })
        .map(|(task_id, _)| task_id.clone())
        .collect()
}

/// When to look after apps that may end by themselves.
pub(crate) fn next_look(inner: &Inner, now: f64) -> f64 {
    let rows = inner.state.rows.scan::<AppRow>(b"");
    let may_end = |state| {
        matches!(
            state,
            AppState::Ephemeral | AppState::Initializing | AppState::DetachedDisconnected
        )
    };
    if rows.into_iter().any(|(_, row)| may_end(row.state())) {
        now + ROUND
    } else {
        f64::MAX
    }
}

impl Core {
    /// Ends an app with all that waits and runs in it.
    pub(crate) fn stop_app(&self, inner: &mut Inner, app_id: &str, by: &str) {
        use wire::generic_result::GenericStatus;
        let at = self.clock.moment();
        let Some(mut row) = inner.state.rows.get::<AppRow>(app_id) else {
            return;
        };
        if row.is_stopped() {
            return;
        }
        row.set_state(AppState::Stopped);
        row.stopped_at = at.wall;
        by.clone_into(&mut row.stopped_by);
        let mut change = Change::default();
        change.put(app_id, &row);
        inner.note(change.into_event());
        inner.heard_of.remove(app_id);
        self.logs_bell.notify_waiters();

        let functions = app_parts::functions_of(&inner.state.rows, app_id);
        for function_id in &functions {
            inner.functions.remove(function_id);
            for input_id in unfinished(inner, function_id) {
                let text = "the app was stopped".to_owned();
                inner.note_ended(&input_id, Ending::new(GenericStatus::Terminated, text), at);
            }
        }
        let reason = "its app was stopped";
        self.send_away(inner, reason, |container| {
            functions.contains(&container.function_id)
        });
    }

    /// Ends the containers that are meant: idle ones are asked to leave, the others are killed.
    pub(crate) fn send_away(
        &self,
        inner: &mut Inner,
        reason: &str,
        is_meant: impl Fn(&crate::state::Container) -> bool,
    ) {
        let now = self.clock.now();
        let meant = inner
            .state
            .containers
            .iter()
            .filter(|(_, one)| is_meant(one));
        let meant: Vec<String> = meant.map(|(id, _)| id.clone()).collect();
        for task_id in meant {
            let is_at_the_door = inner.live.get_mut(&task_id).is_some_and(|live| {
                live.leaving_since.get_or_insert(now);
                live.work_bell.notify_waiters();
                live.polls > 0
            });
            if !is_at_the_door {
                self.doom(inner, &task_id, reason.to_owned());
            }
        }
        self.look_at(inner, now);
    }

    /// Ends apps whose client is gone, and forgets those that ended long ago.
    pub(crate) fn end_apps(&self, inner: &mut Inner, now: f64) {
        let wall = self.clock.wall();
        let mut over = Vec::new();
        let mut forgotten = Change::default();
        for (app_id, row) in inner.state.rows.scan::<AppRow>(b"") {
            let app_id = String::from_utf8_lossy(app_id).into_owned();
            match row.state() {
                AppState::Ephemeral | AppState::Initializing => {
                    let heard = inner.heard_of.get(&app_id).copied().unwrap_or(0.0);
                    if heard.max(self.started_at) + SILENT_LIFE < now {
                        over.push(app_id);
                    }
                }
                AppState::DetachedDisconnected => {
                    let functions = app_parts::functions_of(&inner.state.rows, &app_id);
                    if functions
                        .iter()
                        .all(|function_id| unfinished(inner, function_id).is_empty())
                    {
                        over.push(app_id);
                    }
                }
                AppState::Stopped if row.stopped_at + KEPT_FOR < wall => {
                    app_parts::forget(&inner.state.rows, &app_id, &mut forgotten);
                    self.logs.forget(&app_id);
                }
                _ => {}
            }
        }
        if !forgotten.is_empty() {
            inner.note(forgotten.into_event());
        }
        for app_id in over {
            self.stop_app(inner, &app_id, "");
        }
    }
}

fn unfinished(inner: &Inner, function_id: &str) -> Vec<String> {
    use crate::state::Phase;
    let calls = inner.state.calls.values();
    calls
        .filter(|call| call.function_id == function_id && call.unfinished() > 0)
        .flat_map(|call| &call.inputs)
        .filter(|id| {
            inner
                .state
                .inputs
                .get(*id)
                .is_some_and(|input| !matches!(input.phase, Phase::Ended(_)))
        })
        .cloned()
        .collect()
}
