//! When a failed try is due again.

use chrono::{DateTime, TimeDelta, Utc};
use model::{SerializedTask, TaskInstance};
use num_bigint::BigUint;
use sha1::{Digest, Sha1};

/// A day, in seconds: no backoff is longer. `airflow: MAX_RETRY_DELAY`
const MAX_RETRY_DELAY: f64 = 86_400.0;

/// Airflow stores no retry time: it follows from the try's end. `airflow: TaskInstance.next_retry_datetime`
#[must_use]
pub fn next_retry_at(
    task: &SerializedTask,
    ti: &TaskInstance,
    dag_id: &str,
    logical_date: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    // A try without an end can't have failed; the epoch makes it due at once, as its state demands.
    let end = ti.end_date.unwrap_or(DateTime::UNIX_EPOCH);
    if let Some(seconds) = ti.retry_delay_override {
        return later(end, seconds);
    }
    let multiplier = task.retry_exponential_backoff;
    if multiplier <= 0.0 || multiplier == 1.0 {
        return later(end, task.retry_delay);
    }
    let least = (task.retry_delay * multiplier.powf(f64::from(ti.try_number - 1)))
        .ceil()
        .max(1.0);
    let mut seconds = if least >= MAX_RETRY_DELAY {
        // The jitter only adds to it.
        MAX_RETRY_DELAY
    } else {
        (least + jitter(task, ti, dag_id, logical_date, least)).min(MAX_RETRY_DELAY)
    };
    if let Some(max) = task.max_retry_delay.filter(|&max| max != 0.0) {
        seconds = seconds.min(max);
    }
    later(end, seconds)
}

/// A number below `least` that follows from the try's name, the same on every machine.
fn jitter(
    task: &SerializedTask,
    ti: &TaskInstance,
    dag_id: &str,
    logical_date: Option<DateTime<Utc>>,
    least: f64,
) -> f64 {
    let name = format!(
        "{dag_id}#{}#{}#{}",
        task.task_id,
        python_text(logical_date),
        ti.try_number
    );
    let digest = BigUint::from_bytes_be(&Sha1::digest(name.as_bytes()));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 1 and below MAX_RETRY_DELAY"
    )]
    let modulus = least as u64;
    (digest % modulus)
        .iter_u64_digits()
        .next()
        .map_or(0.0, |digit| {
            #[expect(clippy::cast_precision_loss, reason = "below MAX_RETRY_DELAY")]
            let digit = digit as f64;
            digit
        })
}

/// `str(datetime)` of Python, which is part of the hash.
fn python_text(date: Option<DateTime<Utc>>) -> String {
    match date {
        None => "None".to_owned(),
        Some(date) if date.timestamp_subsec_micros() == 0 => {
            date.format("%Y-%m-%d %H:%M:%S+00:00").to_string()
        }
        Some(date) => date.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string(),
    }
}

fn later(date: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let micros = (seconds * 1e6).round() as i64;
    date.checked_add_signed(TimeDelta::microseconds(micros))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
