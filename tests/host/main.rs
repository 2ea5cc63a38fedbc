//! The whole house under `serve`: real DAGs in real workers, crashes in between.
