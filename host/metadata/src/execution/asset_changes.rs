//! Asset events of a task that succeeded, and the DAGs that they put into the queue.
//! `airflow: TaskInstance.register_asset_changes_in_db, assets.manager.AssetManager`

use chrono::{DateTime, Utc};
use model::TaskInstanceKey;
use sqlx::PgConnection;

use crate::Error;

/// An outlet of the task, as its worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlet {
    Asset { name: String, uri: String },
    NameRef { name: String },
    UriRef { uri: String },
    Alias { name: String },
}

/// An event that the task emitted for an asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub name: String,
    pub uri: String,
    /// JSON object as text.
    pub extra: String,
    pub partition_key: Option<String>,
    /// Emitted through this alias, for an asset that may be new.
    pub alias: Option<Alias>,
}

/// The alias through which an event was emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// JSON object as text: the extra of the asset, should it be new.
    pub asset_extra: String,
}

/// An event that DAGs of partitions listen to. What it queues for them, their mappers tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub event_id: i32,
    pub asset_id: i32,
    pub asset_name: String,
    pub asset_uri: String,
    pub partition_key: Option<String>,
    /// Of the run, if the key is the run's.
    pub partition_date: Option<DateTime<Utc>>,
    /// By name.
    pub dag_ids: Vec<String>,
}

/// Writes the events of all active outlets and queues the DAGs without partitions that wait for them, within the
/// transaction that makes the task successful. Answers which events DAGs of partitions wait for.
///
/// # Errors
/// The database's errors.
pub async fn register(
    db: &mut PgConnection,
    source: &TaskInstanceKey,
    outlets: &[Outlet],
    emitted: &[Emitted],
    now: DateTime<Utc>,
) -> Result<Vec<Heard>, Error> {
    let mut heard = Vec::new();
    if outlets.is_empty() {
        return Ok(heard);
    }
    let run: Option<Partition> = sqlx::query_as(
        "SELECT partition_key, partition_date FROM dag_run WHERE dag_id = $1 AND run_id = $2",
    )
    .bind(&source.dag_id)
    .bind(&source.run_id)
    .fetch_optional(&mut *db)
    .await?;
    let run = run.unwrap_or_default();
    let mut assets = Vec::new();
    for outlet in outlets {
        // airflow: an inactive one is a warning in the server's log, and no event.
        assets.extend(active(&mut *db, outlet).await?);
    }
    // Tasks that end at once lock the rows of the queue in the same order.
    assets.sort_by_key(|asset| asset.id);
    for asset in assets {
        let own: Vec<&Emitted> = emitted
            .iter()
            .filter(|event| {
                event.alias.is_none() && event.name == asset.name && event.uri == asset.uri
            })
            .collect();
        if own.is_empty() {
            let event = Event {
                extra: "{}",
                partition: &run,
                aliases: &[],
            };
            heard.extend(write(&mut *db, source, &asset, &event, now).await?);
        }
        for event in own {
            let event = Event {
                extra: &event.extra,
                partition: &run.or_own(event.partition_key.as_deref()),
                aliases: &[],
            };
            heard.extend(write(&mut *db, source, &asset, &event, now).await?);
        }
    }
    let emitted = distinct_aliased(outlets, emitted);
    for (event, alias, names) in emitted {
        let asset = find_or_create(&mut *db, event, alias, now).await?;
        let event = Event {
            extra: &event.extra,
            partition: &run,
            aliases: &names,
        };
        heard.extend(write(&mut *db, source, &asset, &event, now).await?);
    }
    Ok(heard)
}

/// Events emitted through an alias of the outlets: equal ones are one event with several aliases.
fn distinct_aliased<'a>(
    outlets: &[Outlet],
    emitted: &'a [Emitted],
) -> Vec<(&'a Emitted, &'a Alias, Vec<String>)> {
    let is_outlet = |alias: &Alias| {
        outlets
            .iter()
            .any(|outlet| matches!(outlet, Outlet::Alias { name } if *name == alias.name))
    };
    let mut distinct: Vec<(&Emitted, &Alias, Vec<String>)> = Vec::new();
    for event in emitted {
        let Some(alias) = event.alias.as_ref().filter(|alias| is_outlet(alias)) else {
            continue;
        };
        let same = distinct.iter_mut().find(|(other, of, _)| {
            (&other.name, &other.uri, &other.extra, &of.asset_extra)
                == (&event.name, &event.uri, &event.extra, &alias.asset_extra)
        });
        match same {
            Some((_, _, names)) if names.contains(&alias.name) => {}
            Some((_, _, names)) => names.push(alias.name.clone()),
            None => distinct.push((event, alias, vec![alias.name.clone()])),
        }
    }
    distinct
}

/// What a run or an event is about.
#[derive(Debug, Clone, Default, PartialEq, sqlx::FromRow)]
struct Partition {
    partition_key: Option<String>,
    partition_date: Option<DateTime<Utc>>,
}

impl Partition {
    /// An event's own key; the run's date is the date of the run's key alone.
    fn or_own(&self, own: Option<&str>) -> Self {
        match own {
            Some(key) if self.partition_key.as_deref() != Some(key) => Self {
                partition_key: Some(key.to_owned()),
                partition_date: None,
            },
            Some(_) | None => self.clone(),
        }
    }
}

#[derive(sqlx::FromRow)]
struct Asset {
    id: i32,
    name: String,
    uri: String,
}

struct Event<'a> {
    extra: &'a str,
    partition: &'a Partition,
    aliases: &'a [String],
}

async fn active(db: &mut PgConnection, outlet: &Outlet) -> Result<Option<Asset>, Error> {
    let (name, uri) = match outlet {
        Outlet::Asset { name, uri } => (Some(name), Some(uri)),
        Outlet::NameRef { name } => (Some(name), None),
        Outlet::UriRef { uri } => (None, Some(uri)),
        Outlet::Alias { .. } => return Ok(None),
    };
    Ok(sqlx::query_as(
        "SELECT a.id, a.name, a.uri \
           FROM asset a JOIN asset_active active ON active.name = a.name AND active.uri = a.uri \
          WHERE ($1::text IS NULL OR a.name = $1) AND ($2::text IS NULL OR a.uri = $2) \
          LIMIT 1",
    )
    .bind(name)
    .bind(uri)
    .fetch_optional(db)
    .await?)
}

async fn find_or_create(
    db: &mut PgConnection,
    event: &Emitted,
    alias: &Alias,
    now: DateTime<Utc>,
) -> Result<Asset, Error> {
    // DO UPDATE, so that the row comes back and stays locked against its removal until we commit.
    let asset = sqlx::query_as(
        "INSERT INTO asset (name, uri, \"group\", extra, created_at, updated_at) \
         VALUES ($1, $2, 'asset', $3::json, $4, $4) \
         ON CONFLICT (name, uri) DO UPDATE SET updated_at = asset.updated_at \
         RETURNING id, name, uri",
    )
    .bind(&event.name)
    .bind(&event.uri)
    .bind(&alias.asset_extra)
    .bind(now)
    .fetch_one(&mut *db)
    .await?;
    // Unless the name or the URI is another asset's. airflow: SchedulerJobRunner._update_asset_orphanage, a minute later
    sqlx::query("INSERT INTO asset_active (name, uri) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&event.name)
        .bind(&event.uri)
        .execute(db)
        .await?;
    Ok(asset)
}

/// One event of one asset, and what it puts into the queue. `airflow: AssetManager.register_asset_change`
async fn write(
    db: &mut PgConnection,
    source: &TaskInstanceKey,
    asset: &Asset,
    event: &Event<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Heard>, Error> {
    let event_id: i32 = sqlx::query_scalar(
        "INSERT INTO asset_event (asset_id, extra, source_task_id, source_dag_id, source_run_id, \
                source_map_index, timestamp, partition_key) \
         VALUES ($1, $2::json, $3, $4, $5, $6, $7, $8) \
         RETURNING id",
    )
    .bind(asset.id)
    .bind(event.extra)
    .bind(&source.task_id)
    .bind(&source.dag_id)
    .bind(&source.run_id)
    .bind(source.map_index)
    .bind(now)
    .bind(&event.partition.partition_key)
    .fetch_one(&mut *db)
    .await?;
    for alias in event.aliases {
        link_alias(&mut *db, asset.id, event_id, alias).await?;
    }
    let dag_ids = queue_dags(db, asset, event, now).await?;
    Ok((!dag_ids.is_empty()).then(|| Heard {
        event_id,
        asset_id: asset.id,
        asset_name: asset.name.clone(),
        asset_uri: asset.uri.clone(),
        partition_key: event.partition.partition_key.clone(),
        partition_date: event.partition.partition_date,
        dag_ids,
    }))
}

async fn link_alias(
    db: &mut PgConnection,
    asset_id: i32,
    event_id: i32,
    alias: &str,
) -> Result<(), Error> {
    sqlx::query(
        "WITH alias AS ( \
           INSERT INTO asset_alias (name, \"group\") VALUES ($1, 'asset') \
           ON CONFLICT (name) DO UPDATE SET \"group\" = asset_alias.\"group\" \
           RETURNING id \
         ), linked AS ( \
           INSERT INTO asset_alias_asset (alias_id, asset_id) SELECT id, $2 FROM alias \
           ON CONFLICT DO NOTHING \
         ) \
         INSERT INTO asset_alias_asset_event (alias_id, event_id) SELECT id, $3 FROM alias",
    )
    .bind(alias)
    .bind(asset_id)
    .bind(event_id)
    .execute(db)
    .await?;
    Ok(())
}

/// DAGs scheduled on the asset, by its identity, its name, its URI or an alias, unless they are paused. An event of a
/// partition queues no DAG without partitions. Answers which DAGs of partitions wait for the event.
async fn queue_dags(
    db: &mut PgConnection,
    asset: &Asset,
    event: &Event<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<String>, Error> {
    // DO UPDATE with nothing new waits for a tick that consumes the row just now, and then queues the DAG again:
    // with DO NOTHING this event would be noticed by nobody until the next one.
    Ok(sqlx::query_scalar(
        "WITH waiting AS ( \
           SELECT d.dag_id, d.timetable_partitioned \
             FROM dag d \
            WHERE NOT d.is_paused \
              AND (EXISTS (SELECT 1 FROM dag_schedule_asset_reference r \
                            WHERE r.dag_id = d.dag_id AND r.asset_id = $1) \
                OR EXISTS (SELECT 1 FROM dag_schedule_asset_name_reference r \
                            WHERE r.dag_id = d.dag_id AND r.name = $2) \
                OR EXISTS (SELECT 1 FROM dag_schedule_asset_uri_reference r \
                            WHERE r.dag_id = d.dag_id AND r.uri = $3) \
                OR EXISTS (SELECT 1 FROM dag_schedule_asset_alias_reference r \
                             JOIN asset_alias l ON l.id = r.alias_id \
                            WHERE r.dag_id = d.dag_id AND l.name = ANY($4))) \
         ), queued AS ( \
           INSERT INTO asset_dag_run_queue (asset_id, target_dag_id, created_at) \
           SELECT $1, dag_id, $5 FROM waiting WHERE NOT timetable_partitioned AND $6::text IS NULL \
            ORDER BY dag_id \
           ON CONFLICT (asset_id, target_dag_id) DO UPDATE SET created_at = asset_dag_run_queue.created_at \
         ) \
         SELECT dag_id FROM waiting WHERE timetable_partitioned ORDER BY dag_id",
    )
    .bind(asset.id)
    .bind(&asset.name)
    .bind(&asset.uri)
    .bind(event.aliases)
    .bind(now)
    .bind(&event.partition.partition_key)
    .fetch_all(db)
    .await?)
}
