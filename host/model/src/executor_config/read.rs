//! Reading an `executor_config`, from a serialized DAG or from a task instance's row.

use std::time::Duration;

use serde_json::{Map, Value};

use super::named::{names, secrets, text, variables, volumes};
use super::{ExecutorConfig, Gpu, Problem, Range, Retries};

/// What a task may set, as Modal calls it.
const KEYS: &[&str] = &[
    "cpu",
    "memory",
    "gpu",
    "timeout",
    "region",
    "cloud",
    "retries",
    "volumes",
    "secrets",
    "env",
    "image",
    "max_containers",
    "buffer_containers",
    "scaledown_window",
];
/// Modal's names for what belongs to a function and can't change from call to call.
const OF_THE_FUNCTION: &[&str] = &[
    "block_network",
    "enable_memory_snapshot",
    "ephemeral_disk",
    "experimental_options",
    "i6pn",
    "max_inputs",
    "min_containers",
    "network_file_systems",
    "nonpreemptible",
    "proxy",
    "restrict_modal_access",
    "routing_region",
    "schedule",
    "single_use_containers",
    "startup_timeout",
];
/// What Airflow's other executors read; as there, nobody else minds it.
const OF_OTHER_EXECUTORS: &[&str] = &["pod_override", "pod_template_file", "overrides"];

const LONGEST_TIMEOUT: u64 = 24 * 3600;
pub(super) type Read<T> = Result<T, Problem>;

impl ExecutorConfig {
    /// Reads the value of a task; null and the empty dict ask for nothing. Airflow's encoding of tuples and dicts is
    /// understood, as are the plain ones.
    ///
    /// # Errors
    /// The first [`Problem`].
    pub fn read(value: &Value) -> Read<Self> {
        let mut config = Self::default();
        let plain = plain(value);
        let fields = match &plain {
            Value::Null => return Ok(config),
            Value::Object(fields) => fields,
            other => return Err(wrong("", "a dict", other, "{\"cpu\": 2}")),
        };
        for (key, value) in fields {
            if value.is_null() || is_of_another_executor(key) {
                continue;
            }
            config.set(key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &Value) -> Read<()> {
        match key {
            "cpu" => self.cpu = Some(cpu(value)?),
            "memory" => self.memory = Some(memory(value)?),
            "gpu" => self.gpu = Some(gpu(value)?),
            "timeout" => self.timeout = Some(seconds(key, value, 1, LONGEST_TIMEOUT)?),
            "region" => self.region = names(key, value, "eu-west")?,
            "cloud" => self.cloud = Some(text(key, value, "aws")?.to_owned()),
            "retries" => self.retries = Some(retries(value)?),
            "volumes" => self.volumes = volumes(value)?,
            "secrets" => self.secrets = secrets(value)?,
            "env" => self.env = variables(value)?,
            "image" => self.image = Some(text(key, value, "pandas")?.to_owned()),
            "max_containers" => self.max_containers = Some(whole(key, value, 1, 10_000)?),
            "buffer_containers" => self.buffer_containers = Some(whole(key, value, 0, 10_000)?),
            "scaledown_window" => {
                self.scaledown_window = Some(seconds(key, value, 2, 20 * 60)?);
            }
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_of_another_executor(key: &str) -> bool {
    key.ends_with("Executor") || OF_OTHER_EXECUTORS.contains(&key)
}

/// An `executor_config` of a serialized DAG as its task instances keep it: Airflow's `{"__type": …, "__var": …}` undone
/// where it wraps dicts and tuples. (A pod stays wrapped, as Airflow keeps it.)
#[must_use]
pub fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match (fields.get("__type"), fields.get("__var")) {
            (Some(Value::String(wrapped)), Some(inner))
                if matches!(wrapped.as_str(), "dict" | "tuple" | "set") =>
            {
                plain(inner)
            }
            (Some(_), Some(_)) => value.clone(),
            _ => Value::Object(fields.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        },
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

fn unknown(key: &str) -> Problem {
    if OF_THE_FUNCTION.contains(&key) {
        return Problem {
            problem: format!("{key} belongs to the function and can't be set for one task"),
            hint: format!("a task may set {}", KEYS.join(", ")),
        };
    }
    let nearest = KEYS
        .iter()
        .map(|known| (strsim::jaro_winkler(key, known), *known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Problem {
        problem: format!("unknown key {key:?}"),
        hint: match nearest {
            Some((likeness, known)) if likeness > 0.75 => format!("did you mean {known}?"),
            _ => format!("the keys are Modal's: {}", KEYS.join(", ")),
        },
    }
}

pub(super) fn wrong(key: &str, expected: &str, found: &Value, example: &str) -> Problem {
    let of = if key.is_empty() {
        String::new()
    } else {
        format!("{key} ")
    };
    Problem {
        problem: format!("{of}expects {expected}, found {found}"),
        hint: format!("for example {example}"),
    }
}

fn cpu(value: &Value) -> Read<Range<f64>> {
    const EXAMPLE: &str = "{\"cpu\": 2} or {\"cpu\": (1, 4)}";
    let expected = "cores from 0.001 to 1024, or a request and a limit";
    let cores = |value: &Value| {
        value
            .as_f64()
            .filter(|cores| (0.001..=1024.0).contains(cores))
    };
    range(value, cores).ok_or_else(|| wrong("cpu", expected, value, EXAMPLE))
}

fn memory(value: &Value) -> Read<Range<u32>> {
    const EXAMPLE: &str = "{\"memory\": 4096} or {\"memory\": (1024, 4096)}";
    let expected = "whole MiB from 1 to 4194304, or a request and a limit";
    let mib = |value: &Value| {
        let mib = value.as_u64().filter(|mib| (1..=4 << 20).contains(mib))?;
        u32::try_from(mib).ok()
    };
    range(value, mib).ok_or_else(|| wrong("memory", expected, value, EXAMPLE))
}

/// One value, or two of which the second is not smaller.
fn range<T: PartialOrd + Copy>(
    value: &Value,
    one: impl Fn(&Value) -> Option<T>,
) -> Option<Range<T>> {
    match value {
        Value::Array(both) => match both.as_slice() {
            [request, limit] => {
                let (request, limit) = (one(request)?, one(limit)?);
                (limit >= request).then_some(Range {
                    request,
                    limit: Some(limit),
                })
            }
            _ => None,
        },
        _ => one(value).map(|request| Range {
            request,
            limit: None,
        }),
    }
}

/// `modal: parse_gpu_config`
fn gpu(value: &Value) -> Read<Gpu> {
    let refused = || {
        wrong(
            "gpu",
            "a type, or type:count",
            value,
            "{\"gpu\": \"A100:2\"}",
        )
    };
    let text = value.as_str().ok_or_else(refused)?;
    let (gpu_type, count) = text.split_once(':').unwrap_or((text, "1"));
    let count = count.parse().ok().filter(|count| (1..=64).contains(count));
    match count {
        Some(count) if !gpu_type.is_empty() => Ok(Gpu {
            gpu_type: gpu_type.to_uppercase(),
            count,
        }),
        _ => Err(refused()),
    }
}

fn seconds(key: &str, value: &Value, least: u64, most: u64) -> Read<Duration> {
    let whole = value
        .as_f64()
        .filter(|seconds| seconds.fract() == 0.0 && (least as f64..=most as f64).contains(seconds));
    whole.map(Duration::from_secs_f64).ok_or_else(|| {
        let expected = format!("whole seconds from {least} to {most}");
        wrong(key, &expected, value, &format!("{{\"{key}\": 600}}"))
    })
}

fn whole(key: &str, value: &Value, least: u32, most: u32) -> Read<u32> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            let expected = format!("a whole number from {least} to {most}");
            wrong(key, &expected, value, &format!("{{\"{key}\": 4}}"))
        })
}

fn retries(value: &Value) -> Read<Retries> {
    const EXAMPLE: &str =
        "{\"retries\": 2} or {\"retries\": {\"max_retries\": 2, \"initial_delay\": 5}}";
    let refused = || {
        wrong(
            "retries",
            "a number up to 10, or the arguments of modal.Retries",
            value,
            EXAMPLE,
        )
    };
    let count = |value: &Value| {
        let number = value.as_u64().filter(|number| *number <= 10)?;
        u32::try_from(number).ok()
    };
    let Some(fields) = object(value) else {
        return count(value).map(Retries::fixed).ok_or_else(refused);
    };
    let number = |key: &str, default: f64, least: f64, most: f64| match fields.get(key) {
        None => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(refused),
    };
    let known = [
        "max_retries",
        "backoff_coefficient",
        "initial_delay",
        "max_delay",
    ];
    if fields.keys().any(|key| !known.contains(&key.as_str())) {
        return Err(refused());
    }
    Ok(Retries {
        max_retries: fields
            .get("max_retries")
            .and_then(count)
            .ok_or_else(refused)?,
        backoff_coefficient: number("backoff_coefficient", 2.0, 1.0, 10.0)? as f32,
        initial_delay: Duration::from_secs_f64(number("initial_delay", 1.0, 0.0, 60.0)?),
        max_delay: Duration::from_secs_f64(number("max_delay", 60.0, 1.0, 60.0)?),
    })
}

pub(super) fn object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}
