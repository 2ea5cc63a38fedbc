//! What is said about a task when its runner has ended: a log line if it died, and the state if the runner has not reported it.
//! This is where Airflow's own supervisor stays silent: there a killed task with retries left is found after its heartbeat timeout.

use model::TaskInstanceState;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    Fate, Limits,
    client::Session,
    conversation::{Ending, Progress, report},
    fork_server::Ended,
    log_line::timestamp,
    task_log::TaskLog,
    vigil::Stop,
};

const DOCUMENTATION: &str = "https://airflow.apache.org/docs/apache-airflow/stable/troubleshooting.html#process-terminated-by-signal";

pub(crate) struct LastWords<'a> {
    pub(crate) ti_id: &'a str,
    pub(crate) session: &'a Session,
    pub(crate) limits: &'a Limits,
    pub(crate) log: &'a TaskLog,
    pub(crate) should_retry: bool,
}

impl LastWords<'_> {
    /// Explains the end and sees to it that the server knows it.
    // airflow: ActivitySubprocess.update_task_state_if_needed, final_state, _check_subprocess_exit
    pub(crate) async fn report(
        &self,
        ended: Option<Ended>,
        stop: Option<Stop>,
        progress: Progress,
    ) -> (Fate, Option<String>) {
        let silent = matches!(progress.ending, Ending::Open);
        let is_given_up = silent && stop == Some(Stop::Cancelled);
        let detail = self.explain(ended, stop, silent && !is_given_up).await;
        if is_given_up {
            // The end of the call says who is to blame.
            return (Fate::Stopped, detail);
        }
        let (state, body) = match progress.ending {
            Ending::Confirmed { state } => return (fate(&state), detail),
            Ending::Refused { reason, .. } => return (Fate::Superseded, Some(reason)),
            Ending::Unconfirmed { state, body } => (state, body),
            Ending::AtExit(end) => {
                let end_date = end.end_date.unwrap_or_else(timestamp);
                let body = json!({"state": end.state, "end_date": end_date, "rendered_map_index": end.rendered_map_index});
                (end.state, body)
            }
            Ending::Open if self.should_retry => {
                let body = json!({
                    "state": "up_for_retry",
                    "end_date": timestamp(),
                    "rendered_map_index": progress.rendered_map_index,
                    "retry_delay_seconds": null,
                    "retry_reason": detail.as_deref().map(|detail| detail.chars().take(500).collect::<String>()),
                });
                ("up_for_retry".to_owned(), body)
            }
            Ending::Open => {
                let body = json!({"state": "failed", "end_date": timestamp(), "rendered_map_index": progress.rendered_map_index});
                ("failed".to_owned(), body)
            }
        };
        match report(self.session, self.ti_id, &state, &body, self.limits).await {
            Ok(Ending::Refused { reason, .. }) => (Fate::Superseded, Some(reason)),
            Ok(_) => (fate(&state), detail),
            Err(error) => (
                Fate::Unreported,
                Some(format!(
                    "the state {state} could not be reported: {error}: {}",
                    error.detail()
                )),
            ),
        }
    }

    /// A line in the task's log about an end that was not in order; its text.
    async fn explain(
        &self,
        ended: Option<Ended>,
        stop: Option<Stop>,
        silent: bool,
    ) -> Option<String> {
        let Some(ended) = ended else {
            let event = "The process that forks tasks has ended, and the task with it.";
            self.log.say("critical", event, &[]).await;
            return Some(event.to_owned());
        };
        if ended.code == 0 && !silent {
            return None;
        }
        let mut fields = vec![("max_rss_mib", Value::from(ended.max_rss_kib / 1024))];
        let (level, event) = match ended.code {
            0 => (
                "error",
                "Process exited without saying how the task has ended.".to_owned(),
            ),
            code @ 1.. => {
                fields.push(("exit_code", code.into()));
                (
                    "warning",
                    format!("Process exited abnormally with exit code {code}."),
                )
            }
            code => {
                let signal = Signal::try_from(-code).map_or_else(
                    |_| format!("signal {}", -code),
                    |signal| signal.as_str().to_owned(),
                );
                fields.push(("signal", code.into()));
                fields.push(("signal_name", signal.clone().into()));
                if stop.is_some() {
                    (
                        "error",
                        format!("Process terminated by {signal}, as it was told to."),
                    )
                } else if signal == "SIGKILL" {
                    let hint = "Likely out of memory error (OOM)";
                    (
                        "critical",
                        format!(
                            "Process terminated by signal {signal}. {hint}. For more information, see {DOCUMENTATION}."
                        ),
                    )
                } else {
                    (
                        "error",
                        format!(
                            "Process terminated by signal {signal}. For more information, see {DOCUMENTATION}."
                        ),
                    )
                }
            }
        };
        if silent {
            let state = if self.should_retry {
                "up_for_retry"
            } else {
                "failed"
            };
            fields.push(("state", state.into()));
        }
        self.log.say(level, &event, &fields).await;
        let memory = ended.max_rss_kib / 1024;
        Some(format!("{event} It used {memory} MiB of memory at most."))
    }
}

fn fate(state: &str) -> Fate {
    state
        .parse::<TaskInstanceState>()
        .map_or(Fate::Superseded, Fate::Reported)
}
