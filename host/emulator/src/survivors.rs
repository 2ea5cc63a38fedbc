//! Containers of an earlier life of the emulator: counted on before anything is dispatched, then followed again or seen off.

use std::{fs, sync::Arc};

use crate::{
    core::{Core, Inner, Live},
    fates::Exit,
    lifecycle, process,
    state::{Phase, ProcessKey},
};

/// Counts on the containers of the last life, before anything is dispatched: else others would be started in their place. Answers
/// which they are, each with its process.
pub(crate) fn adopt(inner: &mut Inner, now: f64) -> Vec<(String, Option<ProcessKey>)> {
    let mut known = Vec::new();
    for (task_id, container) in &inner.state.containers {
        let mut live = Live::new(now);
        // One that works has asked before, and may have no room to ask again.
        live.has_asked = !container.running.is_empty();
        live.is_spent = container.stop_requested;
        live.in_doubt = container.running.iter().cloned().collect();
        let cancelled = container.running.iter().filter(|id| {
            matches!(
                inner.state.inputs.get(*id).map(|input| &input.phase),
                Some(Phase::Running {
                    cancelled: true,
                    ..
                })
            )
        });
        live.cancellations = cancelled.map(|id| (id.clone(), None)).collect();
        inner.live.insert(task_id.clone(), live);
        known.push((task_id.clone(), container.process));
    }
    known
}

/// Sorts the containers of the last life: those that live are followed again, the others have ended.
pub(crate) async fn take_back(
    core: &Arc<Core>,
    known: Vec<(String, Option<ProcessKey>)>,
) -> Vec<(String, ProcessKey)> {
    {
        let mut guard = core.lock();
        let inner = &mut *guard;
        for (task_id, _) in &known {
            let (Some(container), Some(live)) = (
                inner.state.containers.get(task_id),
                inner.live.get_mut(task_id),
            ) else {
                continue;
            };
            // Servers are asked themselves.
            live.has_asked |= inner.servers.contains_key(&container.function_id);
            live.is_spent |= !container.running.is_empty()
                && inner
                    .functions
                    .get(&container.function_id)
                    .is_some_and(|function| function.spec.single_use);
        }
    }
    let mut adopted = Vec::new();
    for (task_id, process) in known {
        match process {
            Some(process) if process::is_alive(process) => {
                tracing::info!(task_id, pid = process.pid, "container has survived");
                adopted.push((task_id, process));
            }
            Some(_) | None => {
                // Without a process: started, but the end came before it was written down which one it was.
                process::kill_all(task_id.clone()).await;
                let _ = fs::remove_file(core.socket_path(&task_id));
                lifecycle::end(core, task_id, Exit::Unseen).await;
            }
        }
    }
    adopted
}
