//! Which tokens are taken.
