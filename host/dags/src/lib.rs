//! DAG files: parsing in a child, validation by plugins, Airflow's own sync.
