//! Claims about every XCom backend. Each value goes through the form that the database holds, as it does in real life.

use serde_json::{Value, json};

use super::{Check, Outcome, check, unexpected};
use crate::{
    Error, INLINE_BYTES, Payload, Scope, Stored, TaskKey, XCOM_MARKER, XcomBackend, XcomCoordinate,
};

const DAG: &str = "conformance";

/// Runs all claims; several at once on one store would disturb each other.
pub async fn xcom_backend(backend: &dyn XcomBackend) -> Vec<Check> {
    vec![
        check(
            "every JSON value comes back as it was",
            values(backend).await,
        ),
        check("values of every size come back", sizes(backend).await),
        check("no two keys share a value", keys(backend).await),
        check(
            "mapped instances do not share values",
            mapped(backend).await,
        ),
        check("a value can be replaced", replaced(backend).await),
        check(
            "a reference opens no other task's value",
            foreign(backend).await,
        ),
        check(
            "purging removes what is in its scope and nothing else",
            purged(backend).await,
        ),
        check(
            "what is not there can be purged",
            purged_twice(backend).await,
        ),
        check("nothing is left", clean_up(backend).await),
    ]
}

fn at(task_id: &str, map_index: i32, key: &str) -> XcomCoordinate {
    XcomCoordinate {
        task: TaskKey {
            dag_id: DAG.to_owned(),
            run_id: "manual__2025-01-01T00:00:00+00:00".to_owned(),
            task_id: task_id.to_owned(),
            map_index,
            try_number: 1,
        },
        key: key.to_owned(),
    }
}

/// A JSON string of `bytes` bytes.
fn large(bytes: usize, letter: char) -> String {
    format!(
        "\"{}\"",
        String::from(letter).repeat(bytes.saturating_sub(2))
    )
}

async fn put(backend: &dyn XcomBackend, at: &XcomCoordinate, json: &str) -> Result<Stored, String> {
    let stored = backend
        .put(at, Payload::from(json.to_owned()))
        .await
        .map_err(unexpected)?;
    // As Postgres would give it back.
    let column = stored.to_column().to_string();
    let column = serde_json::from_str(&column).map_err(unexpected)?;
    Ok(Stored::from_column(column))
}

async fn get(
    backend: &dyn XcomBackend,
    at: &XcomCoordinate,
    stored: &Stored,
) -> Result<String, String> {
    let payload = backend.get(at, stored).await.map_err(unexpected)?;
    let bytes = payload.into_bytes(1 << 30).await.map_err(unexpected)?;
    String::from_utf8(bytes.into()).map_err(unexpected)
}

/// The same text, or another spelling of the same value.
fn same(wanted: &str, got: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let wide =
        wanted.len() < 100 && wanted.parse::<f64>().is_ok() && wanted.parse::<i64>().is_err();
    wanted == got || (!wide && parse(wanted).is_some() && parse(wanted) == parse(got))
}

async fn round_trip(backend: &dyn XcomBackend, at: &XcomCoordinate, json: &str) -> Outcome {
    let stored = put(backend, at, json).await?;
    let got = get(backend, at, &stored).await?;
    if same(json, &got) {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(80).collect::<String>();
    Err(format!("{} came back as {}", short(json), short(&got)))
}

async fn values(backend: &dyn XcomBackend) -> Outcome {
    let marked = json!({ XCOM_MARKER: { "uri": "xcom:somebody/else", "size": 1 } }).to_string();
    let wrapped = json!({ XCOM_MARKER: { "value": 1 } }).to_string();
    let values = [
        "null",
        "true",
        "0",
        "-7",
        "\"\"",
        "\"größe 日本 \u{1F600}\"",
        "\"\\u0000\"",
        "[]",
        "{\"a\": [1, {\"b\": null}]}",
        "9223372036854775807",
        "18446744073709551615",
        "1234567890123456789012345678901234567890",
        "[0.1, 1e300, -2.5e-10]",
        &marked,
        &wrapped,
    ];
    for value in values {
        round_trip(backend, &at("values", -1, "return_value"), value).await?;
    }
    Ok(())
}

async fn sizes(backend: &dyn XcomBackend) -> Outcome {
    for size in [
        2,
        8 << 10,
        (8 << 10) + 1,
        INLINE_BYTES - 1,
        INLINE_BYTES,
        INLINE_BYTES + 1,
        3 << 20,
    ] {
        round_trip(backend, &at("sizes", -1, "return_value"), &large(size, 'x')).await?;
    }
    Ok(())
}

async fn keys(backend: &dyn XcomBackend) -> Outcome {
    let long = "k".repeat(512);
    let longer = format!("{long}k");
    let keys = [
        "return_value",
        "Return_Value",
        "a/b",
        "a",
        "../../etc/passwd",
        ".",
        "..",
        "",
        " ",
        "\n",
        "%2E",
        "%2F",
        "map_index=0",
        "größe",
        "gro\u{0308}ße",
        "日本",
        &long,
        &longer,
        "skipmixin_key_",
        "a\0b",
        "%tmp-1",
        "C:\\x",
    ];
    for size in [10, 70_000] {
        let mut kept = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            let at = at("keys", -1, key);
            let value = format!("[{index}, {}]", large(size, 'k'));
            let stored = put(backend, &at, &value).await?;
            kept.push((at, value, stored));
        }
        for (at, value, stored) in kept {
            if !same(&value, &get(backend, &at, &stored).await?) {
                return Err(format!("the key {:?} has another key's value", at.key));
            }
        }
    }
    Ok(())
}

async fn mapped(backend: &dyn XcomBackend) -> Outcome {
    let mut kept = Vec::new();
    for map_index in [-1, 0, 1, 10, 11] {
        let at = at("mapped", map_index, "return_value");
        let value = format!("[{map_index}, {}]", large(70_000, 'm'));
        let stored = put(backend, &at, &value).await?;
        kept.push((at, value, stored));
    }
    for (at, value, stored) in kept {
        if !same(&value, &get(backend, &at, &stored).await?) {
            return Err(format!(
                "instance {} has another one's value",
                at.task.map_index
            ));
        }
    }
    Ok(())
}

async fn replaced(backend: &dyn XcomBackend) -> Outcome {
    let at = at("replaced", -1, "return_value");
    for size in [70_000, 10, 90_000, 300_000] {
        round_trip(backend, &at, &large(size, 'r')).await?;
    }
    Ok(())
}

async fn foreign(backend: &dyn XcomBackend) -> Outcome {
    let mine = at("foreign", -1, "mine");
    let theirs = at("foreign", -1, "theirs");
    put(backend, &mine, &large(70_000, 'm')).await?;
    let stored = put(backend, &theirs, &large(70_001, 't')).await?;
    if matches!(stored, Stored::InDatabase(_)) {
        return Ok(());
    }
    match backend.get(&mine, &stored).await {
        Ok(_) => Err("a row with another task's reference was followed".to_owned()),
        Err(_) => Ok(()),
    }
}

async fn purged(backend: &dyn XcomBackend) -> Outcome {
    let unmapped = at("purged", -1, "return_value");
    let second = at("purged", -1, "second");
    let mapped = at("purged", 3, "return_value");
    let other = at("kept", -1, "return_value");
    let run = Scope::Run {
        dag_id: DAG.to_owned(),
        run_id: unmapped.task.run_id.clone(),
    };
    let dag = Scope::Dag {
        dag_id: DAG.to_owned(),
    };
    let all = [&unmapped, &second, &mapped, &other];
    // What each scope leaves of the four values.
    let cases = [
        (Scope::One(unmapped.clone()), [false, true, true, true]),
        (
            Scope::Task(unmapped.task.clone()),
            [false, false, true, true],
        ),
        (Scope::Task(mapped.task.clone()), [true, true, false, true]),
        (run, [false; 4]),
        (dag, [false; 4]),
    ];
    for (scope, expected) in cases {
        let mut kept = Vec::new();
        for at in all {
            kept.push(put(backend, at, &large(70_000, 'p')).await?);
        }
        let known: Vec<_> = kept
            .iter()
            .zip(expected)
            .filter_map(|(stored, stays)| match stored {
                Stored::Elsewhere(reference) if !stays => Some(reference.clone()),
                Stored::Elsewhere(_) | Stored::InDatabase(_) => None,
            })
            .collect();
        backend.purge(&scope, &known).await.map_err(unexpected)?;
        for ((at, stored), stays) in all.into_iter().zip(&kept).zip(expected) {
            if matches!(stored, Stored::InDatabase(_)) {
                continue;
            }
            match (backend.get(at, stored).await, stays) {
                (Ok(_), true) | (Err(Error::NotFound { .. }), false) => {}
                (Ok(_), false) => return Err(format!("{scope:?} left {at:?}")),
                (Err(error), true) => return Err(format!("{scope:?} hurt {at:?}: {error}")),
                (Err(error), false) => {
                    return Err(format!("a purged value is not `not found`: {error}"));
                }
            }
        }
    }
    Ok(())
}

async fn purged_twice(backend: &dyn XcomBackend) -> Outcome {
    for scope in [
        Scope::One(at("never", -1, "x")),
        Scope::Task(at("never", 1, "x").task),
    ] {
        match backend.purge(&scope, &[]).await {
            Ok(0) => {}
            Ok(count) => return Err(format!("{count} values were removed where none were")),
            Err(error) => return Err(unexpected(error)),
        }
    }
    Ok(())
}

async fn clean_up(backend: &dyn XcomBackend) -> Outcome {
    let scope = Scope::Dag {
        dag_id: DAG.to_owned(),
    };
    backend.purge(&scope, &[]).await.map_err(unexpected)?;
    match backend.purge(&scope, &[]).await {
        Ok(0) => Ok(()),
        Ok(count) => Err(format!("a second purge found {count} more values")),
        Err(error) => Err(unexpected(error)),
    }
}
