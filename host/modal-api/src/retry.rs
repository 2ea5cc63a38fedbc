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
    /// Pause after the first failure; each further one is twice as long.
    pub(crate) first_delay: Duration,
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
        first_delay: FIRST_DELAY,
        end: End::AfterRetries(3),
    };
    /// Calls that make the server work: definitions, builds, publishing.
    pub(crate) const LONG: Self = Self {
        attempt_timeout: Duration::from_secs(300),
        ..Self::SHORT
    };
    /// Files. The official client gives their store more time between attempts as well.
    pub(crate) const FILES: Self = Self {
        first_delay: MAX_DELAY,
        ..Self::LONG
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
    /// How long the server may put this call off in all; none: without limit, zero: not at all.
    throttle_limit: Option<Duration>,
    started: Instant,
    pub(crate) retries: u32,
    pub(crate) throttled: u32,
}

impl Attempts {
    pub(crate) fn new(policy: Policy, throttle_limit: Option<Duration>) -> Self {
        Self {
            policy,
            throttle_limit,
            started: Instant::now(),
            retries: 0,
            throttled: 0,
        }
    }

    /// The pause before the next attempt, or none if this failure is final.
    pub(crate) fn next_delay(&mut self, status: &Status) -> Option<Duration> {
        // modal: _retry_transient_errors. A limit of zero turns the server's wish off, any other one ends the call early.
        let asked = (self.throttle_limit != Some(Duration::ZERO))
            .then(|| throttle(status))
            .flatten();
        if let Some(asked) = asked {
            let delay = asked.max(LEAST_THROTTLE);
            let in_time = self
                .throttle_limit
                .is_none_or(|limit| self.started.elapsed() + delay < limit);
            self.throttled += 1;
            return in_time.then_some(delay);
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
        let delay = self
            .policy
            .first_delay
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
    use std::time::Duration;

    use prost::Message;
    use tonic::{Code, Status};

    use super::{Attempts, Policy};
    use crate::wire;

    fn delays(status: &Status, most: usize) -> String {
        limited(status, most, None)
    }

    fn limited(status: &Status, most: usize, limit: Option<Duration>) -> String {
        let mut attempts = Attempts::new(Policy::SHORT, limit);
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

    fn throttled() -> Status {
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
        Status::with_details(
            Code::ResourceExhausted,
            "slow down",
            details.encode_to_vec().into(),
        )
    }

    #[test]
    fn the_server_may_ask_for_any_number_of_attempts() {
        assert_eq!(
            delays(&throttled(), 5),
            "[500ms, 500ms, 500ms, 500ms, 500ms]"
        );
    }

    #[test]
    fn the_servers_wish_may_be_limited_or_turned_off() {
        let limit = |millis| Some(Duration::from_millis(millis));
        assert_eq!(limited(&throttled(), 5, limit(400)), "[]");
        assert_eq!(limited(&throttled(), 5, limit(0)), "[]");
        assert_eq!(limited(&throttled(), 2, limit(60_000)), "[500ms, 500ms]");
    }
}
