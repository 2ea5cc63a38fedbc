//! What should happen next: pure functions from a snapshot to a plan.
