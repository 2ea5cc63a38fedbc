//! What a route takes from a request: who asks, the body, the query.

mod body;
mod caller;
mod complaints;
mod fields;
mod params;

pub(crate) use body::Body;
pub(crate) use caller::{Caller, OwnTask, StartingTask};
pub(crate) use complaints::Complaints;
pub(crate) use fields::{Fields, raw_body};
pub(crate) use params::Params;
