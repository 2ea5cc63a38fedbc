//! An environment on Modal: what is deployed there ([`deploy`]), and what the deployed functions do ([`container`]).

pub(crate) mod blueprint;
pub(crate) mod container;
pub(crate) mod deploy;
pub(crate) mod destroy;
pub(crate) mod emit;
pub(crate) mod error;
pub(crate) mod plan;
pub(crate) mod remote;
