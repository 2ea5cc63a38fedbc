//! An API on a database of its own, filled with the DAGs and runs of `tests/record`.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use execution_api::{ApiState, Lifetimes, Limits, Secrets, Tokens};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tower::ServiceExt;
use uuid::Uuid;

use crate::backend::Backend;

/// As in `tests/record/record.py`.
pub(crate) const SECRET: &[u8] =
    b"a secret for tests that is at least sixty-four bytes long, as HS512 wants it to be";
const FERNET_KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";

pub(crate) struct Api {
    pub(crate) pool: PgPool,
    pub(crate) tokens: Tokens,
    pub(crate) backend: Arc<Backend>,
    router: Router,
    wakes: Arc<AtomicUsize>,
    database: String,
    _spool: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// `200 {"a":1}`
    pub(crate) fn line(&self) -> String {
        let body = String::from_utf8_lossy(&self.bytes);
        format!("{} {body}", self.status.as_u16())
            .trim_end()
            .to_owned()
    }
}

fn server() -> PgConnectOptions {
    let url = std::env::var("MODALFLOW_TEST_DATABASE_URL")
        .expect("MODALFLOW_TEST_DATABASE_URL: run these tests with tests/run, which sets it");
    PgConnectOptions::from_str(&url).unwrap()
}

/// The id of a task instance of the fixture.
pub(crate) fn ti(number: u64) -> Uuid {
    format!("00000000-0000-7000-8000-{number:012}")
        .parse()
        .unwrap()
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let database = format!("t_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect_with(&server()).await.unwrap();
        // One at a time: CREATE DATABASE needs the template to itself.
        sqlx::query("SELECT pg_advisory_lock(1)")
            .execute(&mut admin)
            .await
            .unwrap();
        let create = format!("CREATE DATABASE {database} TEMPLATE airflow_template");
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut admin)
            .await
            .unwrap();
        admin.close().await.unwrap();
        let options = server().database(&database);
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_with(options)
            .await
            .unwrap();
        metadata::schema::ensure(&pool).await.unwrap();
        // Tables come in the order of their names, not of their references.
        let fixture = format!(
            "SET session_replication_role = replica;\n{}SET session_replication_role = origin;",
            include_str!("../data/fixture.sql")
        );
        sqlx::raw_sql(AssertSqlSafe(fixture))
            .execute(&pool)
            .await
            .unwrap();

        let tokens = Tokens::new(SECRET, Lifetimes::default());
        let wakes = Arc::new(AtomicUsize::new(0));
        let backend = Arc::new(Backend::default());
        let spool = tempfile::tempdir().unwrap();
        let counter = Arc::clone(&wakes);
        let state = ApiState {
            pool: pool.clone(),
            tokens: tokens.clone(),
            xcoms: Arc::clone(&backend) as Arc<dyn plugin_host::XcomBackend>,
            wake: Arc::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
            secrets: Secrets::new(FERNET_KEY).unwrap(),
            limits,
            spool_dir: spool.path().to_owned(),
            dags: Arc::default(),
            timetables: Arc::new(execution_api::NoTimetables),
        };
        let router = execution_api::router(state);
        Self {
            pool,
            tokens,
            backend,
            router,
            wakes,
            database,
            _spool: spool,
        }
    }

    /// How often a tick was asked for.
    pub(crate) fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }

    /// One request; `token` may be empty for none.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_str(method).unwrap())
            .uri(format!("/{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body
            .collect()
            .await
            .map(|all| all.to_bytes().to_vec())
            .unwrap_or_default();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    /// A request of the task instance with this number.
    pub(crate) async fn ask_as(&self, number: u64, method: &str, path: &str, body: &str) -> Answer {
        let token = self.tokens.execution(ti(number));
        let path = path.replace("{ti}", &ti(number).to_string());
        self.ask(method, &path, &token, &[], body.to_owned()).await
    }

    pub(crate) async fn run_sql(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// The first column of the only row, as text.
    pub(crate) async fn text(&self, query: &str) -> Option<String> {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT ({query})::text")))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn stop(self) {
        self.pool.close().await;
        let mut admin = PgConnection::connect_with(&server()).await.unwrap();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        sqlx::query(AssertSqlSafe(drop))
            .execute(&mut admin)
            .await
            .unwrap();
    }
}
