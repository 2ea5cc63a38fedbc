//! Connection strings of Postgres, taken apart and put together for the three that read them: libpq and sqlx,
//! SQLAlchemy with psycopg2, SQLAlchemy with asyncpg.

use std::fmt;

use crate::{Error, Result};

/// A Postgres URL in the one form we pass on, `postgresql://…`.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// All of it after `postgresql://`.
    rest: String,
}

impl ConnectionString {
    /// Takes `postgresql://`, `postgres://` and SQLAlchemy's `postgresql+driver://`.
    pub fn parse(text: &str) -> Result<ConnectionString> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Error::ConnectionString {
                problem: "it has no scheme, postgresql://".to_owned(),
            });
        };
        let dialect = scheme.split('+').next().unwrap_or(scheme);
        if !matches!(dialect, "postgresql" | "postgres") {
            return Err(Error::NotPostgres {
                scheme: dialect.to_owned(),
            });
        }
        let parsed = ConnectionString {
            rest: rest.to_owned(),
        };
        // sqlx reads it with its own parser; a mistake should be told now, not at the first connection.
        parsed
            .url()
            .parse::<sqlx::postgres::PgConnectOptions>()
            .map_err(|error| Error::ConnectionString {
                problem: match error {
                    sqlx::Error::Configuration(inner) => inner.to_string(),
                    other => other.to_string(),
                },
            })?;
        Ok(parsed)
    }

    /// `user`, `password` and `database` at the socket in `directory`.
    ///
    /// The host in front is never used, as `host=` overrules it, but URL parsers of the WHATWG school (sqlx's)
    /// refuse a user without a host.
    pub(super) fn socket(user: &str, password: &str, database: &str, directory: &str) -> Self {
        ConnectionString {
            rest: format!(
                "{user}:{password}@localhost/{database}?host={}",
                percent_encode(directory)
            ),
        }
    }

    /// For libpq, sqlx and psycopg2 itself.
    pub fn url(&self) -> String {
        format!("postgresql://{}", self.rest)
    }

    /// For SQLAlchemy's synchronous engine.
    pub fn psycopg2(&self) -> String {
        format!("postgresql+psycopg2://{}", self.rest)
    }

    /// For SQLAlchemy's asynchronous engine: asyncpg calls libpq's `sslmode` `ssl` and fails on what else it
    /// does not know.
    pub fn asyncpg(&self) -> String {
        let (authority, query) = self.rest.split_once('?').unwrap_or((&self.rest, ""));
        let kept: Vec<String> = query
            .split('&')
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                match key {
                    "sslmode" => Some(format!("ssl={value}")),
                    "host" | "port" | "user" | "password" => Some(pair.to_owned()),
                    _ => None,
                }
            })
            .collect();
        let mark = if kept.is_empty() { "" } else { "?" };
        format!("postgresql+asyncpg://{authority}{mark}{}", kept.join("&"))
    }

    /// Whether only this machine can follow it: a Unix socket, or an address of the loopback interface.
    pub fn is_local(&self) -> bool {
        let Ok(options) = self.url().parse::<sqlx::postgres::PgConnectOptions>() else {
            return false;
        };
        let host = options.get_host();
        options.get_socket().is_some()
            || host.is_empty()
            || host.starts_with('/')
            || host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    }

    /// Where it leads, without the password: for messages.
    pub fn place(&self) -> String {
        let (authority, query) = self.rest.split_once('?').unwrap_or((&self.rest, ""));
        let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let host = query.split('&').find(|pair| pair.starts_with("host="));
        let user = credentials.split(':').next().unwrap_or("");
        let at = if user.is_empty() { "" } else { "@" };
        let mark = if host.is_some() { "?" } else { "" };
        format!("postgresql://{user}{at}{place}{mark}{}", host.unwrap_or(""))
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// Everything but letters, digits and `/-._~`.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_only_this_machine_can_follow_is_known() {
        for (url, is_local) in [
            ("postgresql://u:p@db.example:5432/d", false),
            ("postgresql://u:p@10.0.0.7/d", false),
            ("postgresql://localhost/d", true),
            ("postgresql://u@127.0.0.1:55432/d", true),
            ("postgresql://u@[::1]/d", true),
            ("postgresql://u@localhost/d?host=/run/postgresql", true),
        ] {
            assert_eq!(
                ConnectionString::parse(url).unwrap().is_local(),
                is_local,
                "{url}"
            );
        }
    }

    #[test]
    fn one_database_three_readers_and_no_password_in_messages() {
        let shown: Vec<String> = [
            ConnectionString::parse(
                "postgresql+psycopg2://u:p%40w@h:5433/d?sslmode=require&application_name=x",
            )
            .unwrap(),
            ConnectionString::parse("postgres://h/d").unwrap(),
            ConnectionString::socket("u", "pw", "d", "/a b/c"),
        ]
        .iter()
        .map(|c| format!("{}\n{}\n{}\n{c:?}", c.url(), c.psycopg2(), c.asyncpg()))
        .collect();
        insta::assert_snapshot!(shown.join("\n\n"), @r"
        postgresql://u:p%40w@h:5433/d?sslmode=require&application_name=x
        postgresql+psycopg2://u:p%40w@h:5433/d?sslmode=require&application_name=x
        postgresql+asyncpg://u:p%40w@h:5433/d?ssl=require
        postgresql://u@h:5433/d

        postgresql://h/d
        postgresql+psycopg2://h/d
        postgresql+asyncpg://h/d
        postgresql://h/d

        postgresql://u:pw@localhost/d?host=/a%20b/c
        postgresql+psycopg2://u:pw@localhost/d?host=/a%20b/c
        postgresql+asyncpg://u:pw@localhost/d?host=/a%20b/c
        postgresql://u@localhost/d?host=/a%20b/c
        ");
    }
}
