//! Tokens by a clock that stands where it is put.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Lifetimes, Refused, Scope, Tokens};

fn tokens() -> Tokens {
    let lifetimes = Lifetimes {
        workload: Duration::from_secs(3600),
        execution: Duration::from_secs(600),
    };
    Tokens::new(b"key", lifetimes)
}

#[test]
fn tokens_live_for_their_time_and_are_refreshed_near_its_end() {
    let tokens = tokens();
    let minted: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let id = Uuid::nil();
    let mut lines = Vec::new();
    for scope in [Scope::Execution, Scope::Workload] {
        let token = tokens.mint(id, scope, minted);
        for seconds in [-11, -10, 0, 479, 480, 599, 609, 610, 3609, 3610] {
            let now = minted + TimeDelta::seconds(seconds);
            let outcome = match tokens.verify(&token, now) {
                Ok(claims) if tokens.refreshed(&claims, now).is_some() => {
                    "taken and refreshed".to_owned()
                }
                Ok(_) => "taken".to_owned(),
                Err(refused) => refused.to_string(),
            };
            lines.push(format!("{} after {seconds} s: {outcome}", scope.as_str()));
        }
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    execution after -11 s: Invalid auth token
    execution after -10 s: taken
    execution after 0 s: taken
    execution after 479 s: taken
    execution after 480 s: taken and refreshed
    execution after 599 s: taken and refreshed
    execution after 609 s: taken and refreshed
    execution after 610 s: Invalid auth token
    execution after 3609 s: Invalid auth token
    execution after 3610 s: Invalid auth token
    workload after -11 s: Invalid auth token
    workload after -10 s: taken
    workload after 0 s: taken
    workload after 479 s: taken
    workload after 480 s: taken
    workload after 599 s: taken
    workload after 609 s: taken
    workload after 610 s: taken
    workload after 3609 s: taken
    workload after 3610 s: Invalid auth token
    ");
}

#[test]
fn a_refreshed_token_speaks_for_the_same_task() {
    let tokens = tokens();
    let minted: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let id = Uuid::from_u128(7);
    let now = minted + TimeDelta::seconds(590);
    let old = tokens
        .verify(&tokens.mint(id, Scope::Execution, minted), now)
        .unwrap();
    let new = tokens
        .verify(&tokens.refreshed(&old, now).unwrap(), now)
        .unwrap();
    assert_eq!((new.subject, new.scope), (id, Scope::Execution));
    let other = Tokens::new(b"other key", Lifetimes::default());
    assert_eq!(
        other.verify(&tokens.mint(id, Scope::Execution, minted), minted),
        Err(Refused::Invalid)
    );
}
