//! What a DAG file gets that asks for a Variable or a Connection while it is parsed: the host looks it up and decrypts
//! it, so that the parser needs neither the database nor the key.

use async_trait::async_trait;
use dags::Answers;
use execution_api::Secrets;
use metadata::execution::{connections, variables};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Looks into the environment's database.
pub(crate) struct FromDatabase {
    pub(crate) pool: PgPool,
    pub(crate) secrets: Secrets,
}

#[async_trait]
impl Answers for FromDatabase {
    async fn variable(&self, key: &str) -> Result<Option<String>, String> {
        let mut db = self
            .pool
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let stored = variables::find(&mut db, key)
            .await
            .map_err(|error| error.to_string())?;
        stored
            .map(|stored| {
                self.open(
                    stored.val,
                    stored.is_encrypted,
                    &format!("Variable {key:?}"),
                )
            })
            .transpose()
    }

    async fn connection(&self, conn_id: &str) -> Result<Option<Value>, String> {
        let mut db = self
            .pool
            .acquire()
            .await
            .map_err(|error| error.to_string())?;
        let stored = connections::find(&mut db, conn_id)
            .await
            .map_err(|error| error.to_string())?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let what = format!("Connection {conn_id:?}");
        let open = |text: Option<String>, is_encrypted| {
            text.map(|text| self.open(text, is_encrypted, &what))
                .transpose()
        };
        Ok(Some(json!({
            "conn_id": stored.conn_id,
            "conn_type": stored.conn_type,
            "host": stored.host,
            "schema": stored.schema,
            "login": stored.login,
            "password": open(stored.password, stored.is_encrypted)?,
            "port": stored.port,
            "extra": open(stored.extra, stored.is_extra_encrypted)?,
        })))
    }
}

impl FromDatabase {
    fn open(&self, text: String, is_encrypted: bool, what: &str) -> Result<String, String> {
        if !is_encrypted || text.is_empty() {
            return Ok(text);
        }
        self.secrets.decrypt(&text).ok_or_else(|| {
            format!("{what} was encrypted with a Fernet key that this environment does not have")
        })
    }
}
