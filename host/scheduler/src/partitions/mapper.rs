//! From the key of an event to the keys of runs, and back. `airflow: airflow.partition_mappers`

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::rollup::WaitPolicy;
use super::temporal::Temporal;
use super::window::{Decoded, Window};
use crate::python_dates::{Raised, repr};

/// `airflow: PartitionMapper`
#[derive(Debug, Clone)]
pub(super) struct Mapper {
    pub(super) kind: Kind,
    pub(super) max_downstream_keys: Option<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Identity,
    /// Only these keys are keys. `airflow: AllowedKeyMapper`
    Allowed(Vec<String>),
    /// Every key becomes this one. `airflow: FixedKeyMapper`
    Fixed(String),
    /// One after the other. `airflow: ChainMapper`
    Chain(Vec<Mapper>),
    /// One for each part of the key. `airflow: ProductMapper`
    Product {
        mappers: Vec<Mapper>,
        delimiter: String,
    },
    Temporal(Temporal),
    /// Many keys become one, and its run waits for them. `airflow: RollupMapper`
    Rollup(Box<Rollup>),
    /// One key becomes many. `airflow: FanOutMapper`
    FanOut(Box<FanOut>),
}

#[derive(Debug, Clone)]
pub(super) struct Rollup {
    pub(super) upstream: Mapper,
    pub(super) window: Window,
    pub(super) wait_policy: WaitPolicy,
}

#[derive(Debug, Clone)]
pub(super) struct FanOut {
    pub(super) upstream: Mapper,
    pub(super) window: Window,
    pub(super) downstream: Mapper,
}

/// What a key becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    One(String),
    Many(Vec<String>),
}

impl Keys {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(key) => vec![key],
            Self::Many(keys) => keys,
        }
    }
}

impl Mapper {
    /// # Errors
    /// What the mapper raises in Airflow.
    pub(super) fn to_downstream(&self, key: &str) -> Result<Keys, Raised> {
        match &self.kind {
            Kind::Identity => Ok(Keys::One(key.to_owned())),
            Kind::Allowed(allowed) => {
                if allowed.iter().any(|other| other == key) {
                    return Ok(Keys::One(key.to_owned()));
                }
                let allowed: Vec<String> = allowed.iter().map(|key| repr(key)).collect();
                Err(Raised::value_error(format!(
                    "Key {} not in allowed keys [{}]",
                    repr(key),
                    allowed.join(", ")
                )))
            }
            Kind::Fixed(fixed) => Ok(Keys::One(fixed.clone())),
            Kind::Chain(mappers) => {
                let mut keys = vec![key.to_owned()];
                for mapper in mappers {
                    let mut next = Vec::new();
                    for key in &keys {
                        next.extend(mapper.to_downstream(key)?.into_vec());
                    }
                    keys = next;
                }
                Ok(match <[String; 1]>::try_from(keys) {
                    Ok([key]) => Keys::One(key),
                    Err(keys) => Keys::Many(keys),
                })
            }
            Kind::Product { mappers, delimiter } => product(mappers, delimiter, key),
            Kind::Temporal(temporal) => temporal.to_downstream(key).map(Keys::One),
            Kind::Rollup(rollup) => rollup.upstream.to_downstream(key),
            Kind::FanOut(fan_out) => fan_out.to_downstream(key),
        }
    }

    /// The date of the partition that a downstream key names; `None`: it has none.
    pub(super) fn to_partition_date(&self, key: &str) -> Result<Option<DateTime<Utc>>, Raised> {
        match &self.kind {
            Kind::Identity | Kind::Allowed(_) | Kind::Fixed(_) => Ok(None),
            Kind::Chain(mappers) => match mappers.last() {
                Some(last) => last.to_partition_date(key),
                None => Ok(None),
            },
            Kind::Product { mappers, delimiter } => {
                let segments = split(key, delimiter)?;
                if segments.len() != mappers.len() {
                    return Ok(None);
                }
                let mut anchors = Vec::new();
                for (mapper, segment) in mappers.iter().zip(segments) {
                    anchors.extend(mapper.to_partition_date(segment)?);
                }
                Ok(<[DateTime<Utc>; 1]>::try_from(anchors)
                    .ok()
                    .map(|[only]| only))
            }
            Kind::Temporal(temporal) => temporal.to_partition_date(key).map(Some),
            Kind::Rollup(rollup) => rollup.upstream.to_partition_date(key),
            Kind::FanOut(fan_out) => fan_out.downstream.to_partition_date(key),
        }
    }

    /// Only an unchanged key keeps the producer's date. `airflow: PartitionMapper.carry_partition_date`
    pub(super) fn carries_partition_date(&self) -> bool {
        matches!(self.kind, Kind::Identity)
    }

    /// What a downstream key stands for.
    fn decode_downstream(&self, key: &str) -> Result<Decoded, Raised> {
        match &self.kind {
            Kind::Temporal(temporal) => temporal.decode_downstream(key).map(Decoded::Moment),
            Kind::Identity
            | Kind::Allowed(_)
            | Kind::Fixed(_)
            | Kind::Chain(_)
            | Kind::Product { .. }
            | Kind::Rollup(_)
            | Kind::FanOut(_) => Ok(Decoded::Text(key.to_owned())),
        }
    }

    /// `airflow: PartitionMapper.encode_upstream`
    fn encode_upstream(&self, decoded: Decoded) -> Result<String, Raised> {
        match (&self.kind, decoded) {
            (Kind::Temporal(temporal), Decoded::Moment(moment)) => {
                temporal.encode_upstream(&moment)
            }
            (_, Decoded::Text(text)) => Ok(text),
            (_, Decoded::Moment(moment)) => Ok(moment.isoformat()),
        }
    }

    /// `airflow: _format_with`
    fn format(&self, decoded: Decoded) -> Result<String, Raised> {
        match (&self.kind, decoded) {
            (Kind::Temporal(temporal), Decoded::Moment(moment)) => temporal.format(&moment),
            (Kind::Temporal(_), Decoded::Text(_)) => Err(Raised::of(
                "AttributeError",
                "'str' object has no attribute 'strftime'",
            )),
            (_, Decoded::Text(text)) => Ok(text),
            (_, Decoded::Moment(moment)) => Ok(moment.isoformat()),
        }
    }

    /// Whether its downstream keys stand for moments.
    pub(super) fn is_of_moments(&self) -> bool {
        matches!(self.kind, Kind::Temporal(_))
    }

    /// The class's name.
    pub(super) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Identity => "IdentityMapper",
            Kind::Allowed(_) => "AllowedKeyMapper",
            Kind::Fixed(_) => "FixedKeyMapper",
            Kind::Chain(_) => "ChainMapper",
            Kind::Product { .. } => "ProductMapper",
            Kind::Temporal(temporal) => temporal.grain.name(),
            Kind::Rollup(_) => "RollupMapper",
            Kind::FanOut(_) => "FanOutMapper",
        }
    }
}

impl Rollup {
    /// All keys of events that the run of this key waits for. `airflow: RollupMapper.to_upstream`
    pub(super) fn to_upstream(&self, key: &str) -> Result<BTreeSet<String>, Raised> {
        let anchor = self.upstream.decode_downstream(key)?;
        self.window
            .members(&anchor)?
            .into_iter()
            .map(|member| self.upstream.encode_upstream(member))
            .collect()
    }
}

impl FanOut {
    fn to_downstream(&self, key: &str) -> Result<Keys, Raised> {
        let Keys::One(coarse) = self.upstream.to_downstream(key)? else {
            return Err(Raised::of(
                "TypeError",
                "FanOutMapper.upstream_mapper must produce a single key from to_downstream; chained fan-out \
                 (mapper that itself returns multiple keys) is not supported.",
            ));
        };
        let anchor = self.upstream.decode_downstream(&coarse)?;
        let members = self.window.members(&anchor)?.into_iter();
        members
            .map(|member| self.downstream.format(member))
            .collect::<Result<_, _>>()
            .map(Keys::Many)
    }
}

fn product(mappers: &[Mapper], delimiter: &str, key: &str) -> Result<Keys, Raised> {
    let segments = split(key, delimiter)?;
    if segments.len() != mappers.len() {
        return Err(Raised::value_error(format!(
            "Expected {} segments in key, got {}",
            mappers.len(),
            segments.len()
        )));
    }
    let mut parts = Vec::with_capacity(segments.len());
    for (mapper, segment) in mappers.iter().zip(segments) {
        match mapper.to_downstream(segment)? {
            Keys::One(part) => parts.push(part),
            Keys::Many(_) => {
                return Err(Raised::of(
                    "TypeError",
                    format!(
                        "ProductMapper child mappers must return a single key, but {} returned multiple keys",
                        mapper.name()
                    ),
                ));
            }
        }
    }
    Ok(Keys::One(parts.join(delimiter)))
}

fn split<'a>(key: &'a str, delimiter: &str) -> Result<Vec<&'a str>, Raised> {
    if delimiter.is_empty() {
        return Err(Raised::value_error("empty separator"));
    }
    Ok(key.split(delimiter).collect())
}
