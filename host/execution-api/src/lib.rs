//! The Execution API that Airflow's workers speak, over axum.
