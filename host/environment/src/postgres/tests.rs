//! Embedded Postgres, for real.
