//! When to try again, as Modal's own clients do: three more attempts with doubling delays, and as often as the server asks for it.

use std::time::{Duration, Instant};

use prost::Message;
use tonic::{Code, Status};

use crate::wire;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(1);
const LEAST_THROTTLE: Duration = Duration::from_millis(100);

/// How patient one call is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Limit of one attempt.
    pub(crate) attempt_timeout: Duration,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// After the first attempt and so many more.
    AfterRetries(u32),
    /// When the server has been away for so long.
    After(Duration),
}

impl Policy {
    pub(crate) const SHORT: Self = Self {
        attempt_timeout: Duration::from_secs(30),
        end: End::AfterRetries(3),
    };

    pub(crate) fn long_poll(wait: Duration) -> Self {
        Self {
            attempt_timeout: wait + Duration::from_secs(5),
            ..Self::SHORT
        }
    }
}

/// The attempts of one logical call.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: Policy,
    started: Instant,
    pub(crate) retries: u32,
    pub(crate) throttled: u32,
}

impl Attempts {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            started: Instant::now(),
            retries: 0,
            throttled: 0,
        }
    }

    /// The pause before the next attempt, or none if this failure is final.
    pub(crate) fn next_delay(&mut self, status: &Status) -> Option<Duration> {
        if let Some(asked) = throttle(status) {
            self.throttled += 1;
            return Some(asked.max(LEAST_THROTTLE));
        }
        if !matches!(
            status.code(),
            Code::DeadlineExceeded
                | Code::Unavailable
                | Code::Cancelled
                | Code::Internal
                | Code::Unknown
        ) {
            return None;
        }
        let again = match self.policy.end {
            End::AfterRetries(most) => self.retries < most,
            End::After(patience) => self.started.elapsed() < patience,
        };
        let delay = FIRST_DELAY
            .saturating_mul(1 << self.retries.min(10))
            .min(MAX_DELAY);
        self.retries += 1;
        again.then_some(delay)
    }
}

/// The server's wish, from `grpc-status-details-bin`.
fn throttle(status: &Status) -> Option<Duration> {
    let details = wire::RpcStatus::decode(status.details()).ok()?.details;
    let policy = details
        .into_iter()
        .find(|any| any.type_url.rsplit('/').next() == Some("modal.client.RPCRetryPolicy"))?;
    let seconds = wire::RpcRetryPolicy::decode(policy.value.as_slice())
        .ok()?
        .retry_after_secs;
    Duration::try_from_secs_f32(seconds).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tonic::{Code, Status};

    use super::{Attempts, Policy};
    use crate::wire;

    fn delays(status: &Status, most: usize) -> String {
        let mut attempts = Attempts::new(Policy::SHORT);
        let delays: Vec<_> = std::iter::from_fn(|| attempts.next_delay(status))
            .take(most)
            .collect();
        format!("{delays:?}")
    }

    #[test]
    fn a_passing_failure_is_tried_three_times_more() {
        assert_eq!(
            delays(&Status::unavailable("gone"), 9),
            "[100ms, 200ms, 400ms]"
        );
    }

    #[test]
    fn a_refusal_is_final() {
        for code in [
            Code::NotFound,
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::Unauthenticated,
            Code::Unimplemented,
        ] {
            assert_eq!(delays(&Status::new(code, ""), 9), "[]");
        }
    }

    #[test]
    fn the_server_may_ask_for_any_number_of_attempts() {
        let policy = wire::RpcRetryPolicy {
            retry_after_secs: 0.5,
        };
        let details = wire::RpcStatus {
            code: Code::ResourceExhausted as i32,
            message: String::new(),
            details: vec![prost_types::Any {
                type_url: "type.modal.com/modal.client.RPCRetryPolicy".to_owned(),
                value: policy.encode_to_vec(),
            }],
        };
        let status = Status::with_details(
            Code::ResourceExhausted,
            "slow down",
            details.encode_to_vec().into(),
        );
        assert_eq!(delays(&status, 5), "[500ms, 500ms, 500ms, 500ms, 500ms]");
    }
}
