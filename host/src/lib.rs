//! The host: the only part that touches the world.
