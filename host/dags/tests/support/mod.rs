//! A DAG folder, a database with Airflow's schema, and the room between them.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dags::{Dags, Outcome, Settings, SyncReport, Which, quiet};
use plugin_host::{DagValidator, DagView, Error, Finding, Rule, Severity, ValidationRequest};
use sqlx::{Connection, PgConnection, PgPool, Row};

pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) db: PgPool,
    pub(crate) dags: Dags,
    url: String,
    name: String,
}

fn needed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run the tests with tests/run, which sets it")
    })
}

pub(crate) fn python() -> PathBuf {
    needed("MODALFLOW_TEST_PYTHON").into()
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(|_| {}, Arc::new(Rules)).await
    }

    pub(crate) async fn with(
        change: impl FnOnce(&mut Settings),
        validator: Arc<dyn DagValidator>,
    ) -> World {
        let url = needed("MODALFLOW_TEST_DATABASE_URL");
        let name = format!("dags_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let create = format!("CREATE DATABASE {name} TEMPLATE airflow_template");
        for _ in 0..50 {
            // Another test may be copying the template just now.
            match sqlx::raw_sql(sqlx::AssertSqlSafe(create.clone()))
                .execute(&mut admin)
                .await
            {
                Ok(_) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        let own = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
        let db = metadata::connect(&own, 5).await.unwrap();
        metadata::schema::ensure(&db).await.unwrap();
        let root = tempfile::tempdir().unwrap();
        for directory in ["volume/dags", "airflow"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let mut settings = Settings::new(
            root.path().join("volume/dags"),
            root.path().join("dags-room"),
            python(),
        );
        settings.sync_environment = vec![
            (
                "AIRFLOW_HOME".to_owned(),
                root.path().join("airflow").display().to_string(),
            ),
            (
                "AIRFLOW__CORE__LOAD_EXAMPLES".to_owned(),
                "False".to_owned(),
            ),
            (
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN".to_owned(),
                own.replacen("postgresql://", "postgresql+psycopg2://", 1),
            ),
        ];
        change(&mut settings);
        let dags = Dags::new(settings, db.clone(), validator);
        World {
            root,
            db,
            dags,
            url,
            name,
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("volume/dags")
    }

    pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A file outside of the folder, as a user has it.
    pub(crate) fn source(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join("source").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) async fn sync(&self) -> SyncReport {
        self.dags.sync(Which::Changed, &quiet).await.unwrap()
    }

    /// Columns of the query's rows, a line a row.
    pub(crate) async fn rows(&self, query: &'static str) -> String {
        let rows = sqlx::query(query).fetch_all(&self.db).await.unwrap();
        let lines: Vec<String> = rows
            .iter()
            .map(|row| {
                let cells: Vec<String> =
                    (0..row.len()).map(|at| row.get::<String, _>(at)).collect();
                cells.join(" | ")
            })
            .collect();
        lines.join("\n")
    }

    pub(crate) async fn dag_rows(&self) -> String {
        self.rows(
            "SELECT dag_id, relative_fileloc, CASE WHEN is_stale THEN 'stale' ELSE 'active' END,
                    CASE WHEN has_import_errors THEN 'import error' ELSE 'fine' END
             FROM dag ORDER BY dag_id COLLATE \"C\"",
        )
        .await
    }

    pub(crate) async fn import_errors(&self) -> String {
        self.rows(
            "SELECT filename, stacktrace FROM import_error ORDER BY filename COLLATE \"C\", id",
        )
        .await
    }

    pub(crate) async fn end(self) {
        drop(self.dags);
        self.db.close().await;
        let mut admin = PgConnection::connect(&self.url).await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
            .execute(&mut admin)
            .await
            .unwrap();
    }
}

/// One DAG, one task.
pub(crate) fn dag(dag_id: &str) -> String {
    format!(
        "from airflow.sdk import DAG, task\nwith DAG({dag_id:?}, schedule='@daily'):\n    @task\n    def say(): print(1)\n    say()\n"
    )
}

pub(crate) fn show(report: &SyncReport) -> String {
    let lines: Vec<String> = report
        .files
        .iter()
        .map(|file| {
            let outcome = match &file.outcome {
                Outcome::Parsed { dag_ids } => format!("parsed {dag_ids:?}"),
                Outcome::Unchanged { dag_ids, error } => match error {
                    None => format!("unchanged {dag_ids:?}"),
                    Some(error) => format!("unchanged, failed: {}", error.lines().next().unwrap()),
                },
                Outcome::Failed { message } => {
                    format!("failed: {}", message.lines().last().unwrap())
                }
                Outcome::Gone => "gone".to_owned(),
            };
            format!("{}: {outcome} {}", file.path, file.warnings.join("; "))
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Paths and numbers that differ from machine to machine.
pub(crate) fn filtered(text: &str, root: &Path) -> String {
    let root = root.canonicalize().unwrap();
    text.replace(&root.display().to_string(), "[root]")
}

/// A DAG called `forbidden` is; one called `doubtful` is warned of.
pub(crate) struct Rules;

#[async_trait]
impl DagValidator for Rules {
    async fn rules(&self) -> Result<Vec<Rule>, Error> {
        Ok(Vec::new())
    }

    async fn validate(
        &self,
        _: ValidationRequest,
        dag: DagView,
        _: Option<DagView>,
    ) -> Result<Vec<Finding>, Error> {
        let severity = match dag.serialized["dag"]["dag_id"].as_str() {
            Some("forbidden") => Severity::Error,
            Some("doubtful") => Severity::Warning,
            _ => return Ok(Vec::new()),
        };
        Ok(vec![Finding {
            code: "DAG001".to_owned(),
            severity,
            message: "this name is taken ill".to_owned(),
            task_id: Some("say".to_owned()),
            line: Some(2),
            help: Some("choose another".to_owned()),
        }])
    }
}
