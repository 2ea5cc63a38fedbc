//! A database of one test, cloned from a template that the real `airflow db migrate` made.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgPool};
use uuid::Uuid;

use crate::prepared;

/// Dropped with the value.
#[derive(Debug)]
pub struct Database {
    pub name: String,
    pub url: String,
    pub pool: PgPool,
}

impl Database {
    /// Clones the template.
    ///
    /// # Panics
    /// When Postgres is away.
    pub async fn create() -> Self {
        let server = PgConnectOptions::from_str(&prepared("MODALFLOW_TEST_DATABASE_URL")).unwrap();
        let name = format!("t_{}", Uuid::new_v4().simple());
        let mut admin = sqlx::PgConnection::connect_with(&server)
            .await
            .expect("Postgres of tests/run");
        // One at a time: CREATE DATABASE needs the template to itself.
        sqlx::query("SELECT pg_advisory_lock(1)")
            .execute(&mut admin)
            .await
            .unwrap();
        sqlx::query(AssertSqlSafe(format!(
            "CREATE DATABASE {name} TEMPLATE airflow_template"
        )))
        .execute(&mut admin)
        .await
        .unwrap();
        let _ = admin.close().await;
        let url = with_database(&prepared("MODALFLOW_TEST_DATABASE_URL"), &name);
        let options = server.database(&name);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .unwrap();
        Self { name, url, pool }
    }

    /// Removes it; whoever is still connected is thrown out.
    pub async fn drop(self) {
        self.pool.close().await;
        let server = PgConnectOptions::from_str(&prepared("MODALFLOW_TEST_DATABASE_URL")).unwrap();
        if let Ok(mut admin) = sqlx::PgConnection::connect_with(&server).await {
            let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let _ = sqlx::query(AssertSqlSafe(statement))
                .execute(&mut admin)
                .await;
        }
    }
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let server = address
        .rsplit_once('/')
        .map_or(address, |(server, _)| server);
    let question = if parameters.is_empty() { "" } else { "?" };
    format!("{server}/{name}{question}{parameters}")
}
