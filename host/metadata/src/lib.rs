//! Postgres in Airflow's own schema: all SQL text lives here.
