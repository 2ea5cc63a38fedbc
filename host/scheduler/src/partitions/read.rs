//! From Airflow's serialized form to mappers, windows and wait policies. `airflow: decode_partition_mapper`

use std::collections::BTreeSet;

use model::AssetCondition;
use serde_json::{Value, json};

use super::mapper::{FanOut, Kind, Mapper, Rollup};
use super::rollup::WaitPolicy;
use super::temporal::{Grain, Temporal, key_pattern};
use super::window::{Direction, Span, Window};
use crate::timetables::{Unreadable, Zone};

const MAPPERS: &str = "airflow.partition_mappers.";

/// The assets of a timetable. `airflow: encode_asset_like`
pub(super) fn condition(form: &Value) -> Option<AssetCondition> {
    let text = |name: &str| form.get(name)?.as_str().map(str::to_owned);
    let members = || -> Option<Vec<AssetCondition>> {
        form.get("objects")?
            .as_array()?
            .iter()
            .map(condition)
            .collect()
    };
    match form.get("__type")?.as_str()? {
        "asset" => Some(AssetCondition::Asset {
            name: text("name")?,
            uri: text("uri")?,
        }),
        "asset_ref" => match (text("name"), text("uri")) {
            (Some(name), _) => Some(AssetCondition::NameRef { name }),
            (None, Some(uri)) => Some(AssetCondition::UriRef { uri }),
            (None, None) => None,
        },
        "asset_alias" => Some(AssetCondition::Alias {
            name: text("name")?,
        }),
        "asset_all" => members().map(AssetCondition::All),
        "asset_any" => members().map(AssetCondition::Any),
        _ => None,
    }
}

pub(super) fn mapper(form: &Value) -> Result<Mapper, Unreadable> {
    let data = Data::of(form)?;
    let kind = match data.name().unwrap_or_default() {
        "identity.IdentityMapper" => Kind::Identity,
        "allowed_key.AllowedKeyMapper" => Kind::Allowed(data.texts("allowed_keys")?),
        "fixed_key.FixedKeyMapper" => match data.text("downstream_key")? {
            "" => return Err(data.problem("its downstream_key is empty")),
            key => Kind::Fixed(key.to_owned()),
        },
        "chain.ChainMapper" => Kind::Chain(data.mappers()?),
        "product.ProductMapper" => Kind::Product {
            mappers: data.mappers()?,
            delimiter: data.var["delimiter"].as_str().unwrap_or("|").to_owned(),
        },
        "base.RollupMapper" => {
            let rollup = Rollup {
                upstream: mapper(data.get("upstream_mapper")?)?,
                window: window(data.get("window")?)?,
                wait_policy: wait_policy(data.get("wait_policy")?)?,
            };
            if rollup.upstream.is_of_moments() != rollup.window.is_of_moments() {
                return Err(data.problem(format!(
                    "its window and its upstream mapper {} are not of one type",
                    rollup.upstream.name()
                )));
            }
            Kind::Rollup(Box::new(rollup))
        }
        "temporal.FanOutMapper" => Kind::FanOut(Box::new(FanOut {
            upstream: mapper(data.get("upstream_mapper")?)?,
            window: window(data.get("window")?)?,
            downstream: mapper(data.get("downstream_mapper")?)?,
        })),
        name => match grain(name) {
            Some(grain) => Kind::Temporal(temporal(&data, grain)?),
            None => return Err(Unreadable::Class(data.class.to_owned())),
        },
    };
    let max_downstream_keys = match data.var.get("max_downstream_keys") {
        None | Some(Value::Null) => None,
        Some(most) => Some(
            most.as_u64()
                .and_then(|most| u32::try_from(most).ok())
                .filter(|most| *most >= 1)
                .ok_or_else(|| data.problem("its max_downstream_keys is not a positive number"))?,
        ),
    };
    Ok(Mapper {
        kind,
        max_downstream_keys,
    })
}

fn grain(name: &str) -> Option<Grain> {
    let name = name.strip_prefix("temporal.")?;
    Grain::ALL.into_iter().find(|grain| grain.name() == name)
}

fn temporal(data: &Data<'_>, grain: Grain) -> Result<Temporal, Unreadable> {
    let zone = data
        .var
        .get("timezone")
        .cloned()
        .unwrap_or_else(|| json!("UTC"));
    let output_format = match data.text("output_format")? {
        "" => grain.default_output_format(),
        format => format,
    };
    let key_pattern = match grain {
        Grain::Week | Grain::Quarter => {
            Some(key_pattern(output_format, grain).map_err(|problem| data.problem(problem))?)
        }
        Grain::Hour | Grain::Day | Grain::Month | Grain::Year => None,
    };
    Ok(Temporal {
        grain,
        zone: Zone::read(&zone).map_err(|problem| data.problem(problem))?,
        input_format: data.text("input_format")?.to_owned(),
        output_format: output_format.to_owned(),
        key_pattern,
    })
}

fn window(form: &Value) -> Result<Window, Unreadable> {
    let data = Data::of(form)?;
    let name = data
        .name()
        .and_then(|name| name.strip_prefix("window."))
        .unwrap_or_default();
    if name == "SegmentWindow" {
        let segments: BTreeSet<String> = data.texts("segments")?.into_iter().collect();
        if segments.is_empty() || segments.contains("") {
            return Err(data.problem("its segments are not keys"));
        }
        return Ok(Window::Segments(segments));
    }
    let Some(span) = Span::ALL.into_iter().find(|span| span.name() == name) else {
        return Err(Unreadable::Class(data.class.to_owned()));
    };
    let direction = match data.text("direction")? {
        "forward" => Direction::Forward,
        "backward" => Direction::Backward,
        other => return Err(data.problem(format!("there is no direction {other:?}"))),
    };
    Ok(Window::Time { span, direction })
}

fn wait_policy(form: &Value) -> Result<WaitPolicy, Unreadable> {
    let data = Data::of(form)?;
    match data.name().unwrap_or_default() {
        "wait_policy.WaitForAll" => Ok(WaitPolicy::All),
        "wait_policy.MinimumCount" => match data.get("n")?.as_i64() {
            None | Some(0) => Err(data.problem("its n is not a number other than 0")),
            Some(least) => Ok(WaitPolicy::Minimum(least)),
        },
        _ => Err(Unreadable::Class(data.class.to_owned())),
    }
}

/// The form as Airflow writes it anew after it has read it: so two of one meaning are equal.
pub(super) fn canonical(form: &Value) -> Value {
    let (Some(class), Some(var)) = (form["__type"].as_str(), form["__var"].as_object()) else {
        return form.clone();
    };
    if !class.starts_with(MAPPERS) {
        return form.clone();
    }
    let mut written = serde_json::Map::new();
    for (name, value) in var {
        let value = match (name.as_str(), value) {
            ("max_downstream_keys", Value::Null) => continue,
            ("timezone", Value::Number(seconds)) if seconds.as_i64() == Some(0) => json!("UTC"),
            ("timezone", Value::String(zone)) if zone.eq_ignore_ascii_case("utc") => json!("UTC"),
            ("output_format", Value::String(format)) if format.is_empty() => {
                let grain = class.strip_prefix(MAPPERS).and_then(grain);
                json!(grain.map_or("", Grain::default_output_format))
            }
            ("mappers", Value::Array(mappers)) => mappers.iter().map(canonical).collect(),
            ("segments", Value::Array(segments)) => {
                let mut segments = segments.clone();
                segments.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
                segments.dedup();
                Value::Array(segments)
            }
            ("upstream_mapper" | "downstream_mapper" | "window" | "wait_policy", value) => {
                canonical(value)
            }
            (_, value) => value.clone(),
        };
        written.insert(name.clone(), value);
    }
    if class.ends_with(".ProductMapper") {
        written.entry("delimiter").or_insert_with(|| json!("|"));
    }
    json!({"__type": class, "__var": written})
}

struct Data<'a> {
    class: &'a str,
    var: &'a Value,
}

impl<'a> Data<'a> {
    fn of(form: &'a Value) -> Result<Self, Unreadable> {
        match (form["__type"].as_str(), form.get("__var")) {
            (Some(class), Some(var)) => Ok(Self { class, var }),
            _ => Err(Unreadable::Data {
                class: "airflow.partition_mappers".to_owned(),
                problem: format!("{form} is not a mapper, a window or a wait policy"),
            }),
        }
    }

    /// Below Airflow's own package.
    fn name(&self) -> Option<&'a str> {
        self.class.strip_prefix(MAPPERS)
    }

    fn problem(&self, problem: impl Into<String>) -> Unreadable {
        Unreadable::Data {
            class: self.class.to_owned(),
            problem: problem.into(),
        }
    }

    fn get(&self, name: &str) -> Result<&'a Value, Unreadable> {
        self.var
            .get(name)
            .ok_or_else(|| self.problem(format!("it has no {name}")))
    }

    fn text(&self, name: &str) -> Result<&'a str, Unreadable> {
        self.get(name)?
            .as_str()
            .ok_or_else(|| self.problem(format!("its {name} is not a string")))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, Unreadable> {
        let texts = self.get(name)?.as_array();
        texts
            .and_then(|texts| {
                texts
                    .iter()
                    .map(|text| text.as_str().map(str::to_owned))
                    .collect()
            })
            .ok_or_else(|| self.problem(format!("its {name} are not strings")))
    }

    fn mappers(&self) -> Result<Vec<Mapper>, Unreadable> {
        let mappers = self.get("mappers")?.as_array();
        mappers
            .ok_or_else(|| self.problem("its mappers are not a list"))?
            .iter()
            .map(mapper)
            .collect()
    }
}
