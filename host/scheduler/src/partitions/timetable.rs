//! Which assets a DAG of partitions waits for, and through which mappers.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use model::{AssetCondition, TimetableData};
use serde_json::{Map, Value};

use super::mapper::Mapper;
use super::read;
use crate::python_dates::{Raised, repr};
use crate::timetables::Unreadable;

/// `airflow: PartitionedAssetTimetable`
#[derive(Debug, Clone)]
pub(crate) struct PartitionedAssets {
    pub(super) condition: AssetCondition,
    default: Named,
    by_name: BTreeMap<String, Named>,
    by_uri: BTreeMap<String, Named>,
}

/// A mapper, and how Airflow writes it.
#[derive(Debug, Clone)]
struct Named {
    mapper: Mapper,
    form: Value,
}

/// An asset that the condition names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Member<'a> {
    name: &'a str,
    uri: &'a str,
}

const CLASS: &str = "airflow.timetables.simple.PartitionedAssetTimetable";

impl PartitionedAssets {
    /// `None`: the timetable is another.
    pub(crate) fn of(timetable: &TimetableData) -> Result<Option<Self>, Unreadable> {
        if timetable.class != CLASS {
            return match timetable.class.starts_with("airflow.timetables.") {
                true => Ok(None),
                // It may inherit from it.
                false => Err(Unreadable::Class(timetable.class.clone())),
            };
        }
        let problem = |problem: &str| Unreadable::Data {
            class: CLASS.to_owned(),
            problem: problem.to_owned(),
        };
        let var = &timetable.var;
        let condition = read::condition(&var["asset_condition"])
            .ok_or_else(|| problem("its asset_condition is of an unknown form"))?;
        let mut assets = Self {
            condition,
            default: named(&var["default_partition_mapper"])?,
            by_name: BTreeMap::new(),
            by_uri: BTreeMap::new(),
        };
        let config = var["partition_mapper_config"]
            .as_array()
            .ok_or_else(|| problem("its partition_mapper_config is not a list"))?;
        for pair in config {
            let keys = read::condition(&pair[0]).ok_or_else(|| {
                problem("an asset of its partition_mapper_config is of an unknown form")
            })?;
            let mapper = named(&pair[1])?;
            for member in members(&keys) {
                // A reference has only one of them.
                if !member.name.is_empty() {
                    assets
                        .by_name
                        .insert(member.name.to_owned(), mapper.clone());
                }
                if !member.uri.is_empty() {
                    assets.by_uri.insert(member.uri.to_owned(), mapper.clone());
                }
            }
        }
        Ok(Some(assets))
    }

    /// `airflow: PartitionedAssetTimetable.get_partition_mapper`
    pub(super) fn mapper(&self, name: &str, uri: &str) -> &Mapper {
        &self.find(name, uri).mapper
    }

    /// By its URI only where it has no name.
    fn find(&self, name: &str, uri: &str) -> &Named {
        let found = if name.is_empty() {
            self.by_uri.get(uri)
        } else {
            self.by_name.get(name)
        };
        found.unwrap_or(&self.default)
    }

    /// What a queued partition is stamped with: partitions of other mappers are forgotten.
    /// `airflow: compute_rollup_fingerprint`
    pub(super) fn fingerprint(&self) -> Value {
        let entries = members(&self.condition).into_iter().map(|member| {
            let form = self.find(member.name, member.uri).form.clone();
            (format!("{}|{}", member.name, member.uri), form)
        });
        Value::Object(entries.collect::<Map<String, Value>>())
    }

    /// The date that a key names, if all mappers agree. `airflow: PartitionedAssetTimetable._decode_partition_date`
    pub(crate) fn decode(&self, key: &str) -> Result<Option<DateTime<Utc>>, Raised> {
        let mut anchors = BTreeSet::new();
        for member in members(&self.condition) {
            let mapper = self.mapper(member.name, member.uri);
            let anchor = mapper.to_partition_date(key).map_err(|raised| {
                Raised::value_error(format!(
                    "Partition key {} is invalid for this timetable's mappers: {}",
                    repr(key),
                    raised.text()
                ))
            })?;
            anchors.extend(anchor);
        }
        Ok((anchors.len() == 1).then(|| anchors.pop_first()).flatten())
    }
}

fn named(form: &Value) -> Result<Named, Unreadable> {
    let mapper = read::mapper(form)?;
    Ok(Named {
        mapper,
        form: read::canonical(form),
    })
}

/// Assets and references, without aliases. `airflow: BaseAsset.iter_assets, iter_asset_refs`
fn members(condition: &AssetCondition) -> BTreeSet<Member<'_>> {
    let mut found = BTreeSet::new();
    collect(condition, &mut found);
    found
}

fn collect<'a>(condition: &'a AssetCondition, found: &mut BTreeSet<Member<'a>>) {
    match condition {
        AssetCondition::Asset { name, uri } => {
            found.insert(Member { name, uri });
        }
        AssetCondition::NameRef { name } => {
            found.insert(Member { name, uri: "" });
        }
        AssetCondition::UriRef { uri } => {
            found.insert(Member { name: "", uri });
        }
        AssetCondition::Alias { .. } => {}
        AssetCondition::All(members) | AssetCondition::Any(members) => {
            members.iter().for_each(|member| collect(member, found));
        }
    }
}
