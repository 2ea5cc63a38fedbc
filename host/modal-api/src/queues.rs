//! Queues: values in the order they came, in partitions that do not see each other. Values are bytes; [`crate::pickle`] makes those
//! of Python.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    Client, Creation, Error, ListedObject, listing::Page, names, outcome::instant, retry::Policy,
    wire,
};

/// The longest that one call waits; the official client asks again after it as well.
const MAX_WAIT: Duration = Duration::from_secs(50);
/// How long a partition lives after it was last written to, unless said otherwise.
const PARTITION_LIFE: i32 = 24 * 3600;

impl Client {
    /// Looks a queue up or makes it, and answers its id.
    pub async fn queue_get_or_create(
        &self,
        name: &str,
        environment: &str,
        creation: Creation,
    ) -> Result<String, Error> {
        names::object("queue", name)?;
        let request = wire::QueueGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: environment.to_owned(),
            object_creation_type: creation.wire().into(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.queue_get_or_create(request).await
            })
            .await
            .map_err(|error| {
                error.looking_for(
                    "queue",
                    name,
                    environment,
                    "`modal queue list` shows the queues, `modal queue create` makes one",
                )
            })?;
        Ok(answer.queue_id)
    }

    /// Appends values; an empty partition is the default one.
    pub async fn queue_put(
        &self,
        queue_id: &str,
        partition: &str,
        values: Vec<Bytes>,
    ) -> Result<(), Error> {
        let request = wire::QueuePutRequest {
            queue_id: queue_id.to_owned(),
            values,
            partition_key: Bytes::copy_from_slice(partition.as_bytes()),
            partition_ttl_seconds: PARTITION_LIFE,
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.queue_put(request).await
            })
            .await
    }

    /// Takes up to `most` values, and waits up to `wait` (at most 50 s) for the first.
    pub async fn queue_get(
        &self,
        queue_id: &str,
        partition: &str,
        most: i32,
        wait: Duration,
    ) -> Result<Vec<Bytes>, Error> {
        let wait = wait.min(MAX_WAIT);
        let request = wire::QueueGetRequest {
            queue_id: queue_id.to_owned(),
            timeout: wait.as_secs_f32(),
            n_values: most,
            partition_key: Bytes::copy_from_slice(partition.as_bytes()),
        };
        let answer = self
            .caller
            .call(
                Policy::long_poll(wait),
                Uuid::new_v4(),
                request,
                async |mut stub, request| stub.queue_get(request).await,
            )
            .await?;
        Ok(answer.values)
    }

    /// How many values wait in a partition, or with none in all of them.
    pub async fn queue_len(&self, queue_id: &str, partition: Option<&str>) -> Result<i32, Error> {
        let request = wire::QueueLenRequest {
            queue_id: queue_id.to_owned(),
            partition_key: Bytes::copy_from_slice(partition.unwrap_or_default().as_bytes()),
            total: partition.is_none(),
        };
        let answer = self
            .caller
            .short(request, async |mut stub, request| {
                stub.queue_len(request).await
            })
            .await?;
        Ok(answer.len)
    }

    /// The values of a partition without taking them, from the oldest on.
    pub async fn queue_peek(&self, queue_id: &str, partition: &str) -> Result<Vec<Bytes>, Error> {
        let mut values = Vec::new();
        let mut last_entry_id = String::new();
        loop {
            let request = wire::QueueNextItemsRequest {
                queue_id: queue_id.to_owned(),
                partition_key: Bytes::copy_from_slice(partition.as_bytes()),
                last_entry_id: last_entry_id.clone(),
                item_poll_timeout: 0.0,
            };
            let answer = self
                .caller
                .short(request, async |mut stub, request| {
                    stub.queue_next_items(request).await
                })
                .await?;
            let Some(last) = answer.items.last() else {
                return Ok(values);
            };
            last.entry_id.clone_into(&mut last_entry_id);
            values.extend(answer.items.into_iter().map(|item| item.value));
        }
    }

    /// Empties a partition, or with none all of them.
    pub async fn queue_clear(&self, queue_id: &str, partition: Option<&str>) -> Result<(), Error> {
        let request = wire::QueueClearRequest {
            queue_id: queue_id.to_owned(),
            partition_key: Bytes::copy_from_slice(partition.unwrap_or_default().as_bytes()),
            all_partitions: partition.is_none(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.queue_clear(request).await
            })
            .await
    }

    pub async fn queue_delete(&self, queue_id: &str) -> Result<(), Error> {
        let request = wire::QueueDeleteRequest {
            queue_id: queue_id.to_owned(),
        };
        self.caller
            .short(request, async |mut stub, request| {
                stub.queue_delete(request).await
            })
            .await
    }

    pub async fn queue_list(&self, environment: &str) -> Result<Vec<ListedObject>, Error> {
        let mut page = Page::default();
        let mut all = Vec::new();
        while let Some(pagination) = page.next() {
            let request = wire::QueueListRequest {
                environment_name: environment.to_owned(),
                total_size_limit: 1,
                pagination: Some(pagination),
            };
            let answer = self
                .caller
                .short(request, async |mut stub, request| {
                    stub.queue_list(request).await
                })
                .await?;
            page.seen(answer.queues.iter().map(|queue| queue.created_at));
            all.extend(answer.queues.into_iter().map(|queue| ListedObject {
                id: queue.queue_id,
                name: queue.name,
                created_at: instant(queue.created_at),
            }));
        }
        Ok(all)
    }
}
