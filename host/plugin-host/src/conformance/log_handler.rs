//! Claims about every log handler.

use bytes::Bytes;

use super::{Check, Outcome, check, unexpected};
use crate::{Error, LogHandler, LogOutcome, LogPage, TaskKey};

const DAG: &str = "conformance";
const RUN: &str = "manual__2025-01-01T00:00:00+00:00";

pub async fn log_handler(handler: &dyn LogHandler) -> Vec<Check> {
    vec![
        check(
            "a log that is not there is `not found`",
            missing(handler).await,
        ),
        check(
            "lines can be read while the task runs",
            follow(handler).await,
        ),
        check(
            "a batch that is sent twice is there once",
            repeated(handler).await,
        ),
        check(
            "a gap or other bytes are a conflict that changes nothing",
            conflicts(handler).await,
        ),
        check("pages of any size make the same log", pages(handler).await),
        check(
            "raw text and garbage are shown as text",
            garbage(handler).await,
        ),
        check(
            "a line without an end is shown once the task ended",
            half_a_line(handler).await,
        ),
        check(
            "tries, mapped instances and strange ids have logs of their own",
            apart(handler).await,
        ),
        check(
            "purging removes a run's logs and nothing else",
            purged(handler).await,
        ),
    ]
}

fn task(task_id: &str) -> TaskKey {
    TaskKey {
        dag_id: DAG.to_owned(),
        run_id: RUN.to_owned(),
        task_id: task_id.to_owned(),
        map_index: -1,
        try_number: 1,
    }
}

fn line(text: &str) -> String {
    let line = serde_json::json!({
        "timestamp": "2025-01-01T00:00:00.000000Z", "level": "info", "event": text, "logger": "task", "extra": 1
    });
    format!("{line}\n")
}

async fn append(
    handler: &dyn LogHandler,
    task: &TaskKey,
    offset: u64,
    lines: &str,
) -> Result<u64, String> {
    let lines = Bytes::from(lines.to_owned());
    handler
        .append(task, offset, lines)
        .await
        .map_err(unexpected)
}

async fn read(
    handler: &dyn LogHandler,
    task: &TaskKey,
    after: Option<String>,
    max: u32,
) -> Result<LogPage, String> {
    handler.read(task, after, max).await.map_err(unexpected)
}

fn events(page: &LogPage) -> Vec<&str> {
    page.records
        .iter()
        .map(|record| record.event.as_str())
        .collect()
}

fn expect(page: &LogPage, wanted: &[&str], at_end: bool) -> Outcome {
    if events(page) == wanted && page.at_end == at_end {
        return Ok(());
    }
    Err(format!(
        "{:?} (at end: {}) where {wanted:?} was expected",
        events(page),
        page.at_end
    ))
}

async fn missing(handler: &dyn LogHandler) -> Outcome {
    match handler.read(&task("missing"), None, 10).await {
        Err(Error::NotFound { .. }) => Ok(()),
        Ok(page) => Err(format!("{page:?}")),
        Err(error) => Err(unexpected(error)),
    }
}

async fn follow(handler: &dyn LogHandler) -> Outcome {
    let task = task("follow");
    let first = line("one") + &line("two");
    let len = append(handler, &task, 0, &first).await?;
    let page = read(handler, &task, None, 100).await?;
    expect(&page, &["one", "two"], true)?;
    let record = &page.records[0];
    let wanted = (
        Some("2025-01-01T00:00:00.000000Z"),
        Some("info"),
        Some("task"),
    );
    let found = (
        record.timestamp.as_deref(),
        record.level.as_deref(),
        record.logger.as_deref(),
    );
    if found != wanted || record.fields.get("extra") != Some(&serde_json::json!(1)) {
        return Err(format!("a structured line lost its fields: {record:?}"));
    }
    // The end of a line may come later than its beginning.
    let next = line("three");
    let (start, end) = next.split_at(20);
    let len = append(handler, &task, len, start).await?;
    let page = read(handler, &task, page.next, 100).await?;
    expect(&page, &[], true)?;
    append(handler, &task, len, end).await?;
    let page = read(handler, &task, page.next, 100).await?;
    expect(&page, &["three"], true)?;
    handler
        .finish(&task, LogOutcome::Success)
        .await
        .map_err(unexpected)?;
    let page = read(handler, &task, page.next, 100).await?;
    expect(&page, &[], true)
}

async fn repeated(handler: &dyn LogHandler) -> Outcome {
    let task = task("repeated");
    let lines = line("a") + &line("b");
    let len = append(handler, &task, 0, &lines).await?;
    let again = append(handler, &task, 0, &lines).await?;
    let overlapping = append(handler, &task, 0, &(lines.clone() + &line("c"))).await?;
    let asked = append(handler, &task, 0, "").await?;
    let c = line("c").len() as u64;
    if len != lines.len() as u64 || again != len || overlapping != len + c || asked != overlapping {
        return Err(format!("lengths {len}, {again}, {overlapping}, {asked}"));
    }
    expect(
        &read(handler, &task, None, 100).await?,
        &["a", "b", "c"],
        true,
    )
}

async fn conflicts(handler: &dyn LogHandler) -> Outcome {
    let task = task("conflicts");
    let len = append(handler, &task, 0, &line("a")).await?;
    for (offset, lines) in [(len + 1, line("gap")), (0, line("b"))] {
        match handler.append(&task, offset, lines.into()).await {
            Err(Error::Conflict { .. }) => {}
            Ok(len) => {
                return Err(format!(
                    "lines at {offset} were taken; the log has {len} bytes"
                ));
            }
            Err(error) => return Err(unexpected(error)),
        }
    }
    expect(&read(handler, &task, None, 100).await?, &["a"], true)
}

async fn pages(handler: &dyn LogHandler) -> Outcome {
    let task = task("pages");
    let wanted: Vec<String> = (0..3000)
        .map(|n| format!("line {n} {}", "x".repeat(n % 300)))
        .collect();
    let text: String = wanted.iter().map(|text| line(text)).collect();
    append(handler, &task, 0, &text).await?;
    for max in [1000, 3000, 10_000, 7] {
        let mut got = Vec::new();
        let mut after = None;
        loop {
            let page = read(handler, &task, after, max).await?;
            if page.records.len() > max as usize {
                return Err(format!(
                    "{} records where {max} were asked for",
                    page.records.len()
                ));
            }
            got.extend(page.records.into_iter().map(|record| record.event));
            after = page.next;
            if page.at_end || (max == 7 && got.len() > 100) {
                break;
            }
        }
        if got[..] != wanted[..got.len()] || (max != 7 && got.len() != wanted.len()) {
            return Err(format!("pages of {max} made {} records", got.len()));
        }
    }
    Ok(())
}

async fn garbage(handler: &dyn LogHandler) -> Outcome {
    let task = task("garbage");
    let bytes = b"plain\n\x1b[31mred\xff\n{\"half\": \n[1]\n\n";
    handler
        .append(&task, 0, Bytes::from_static(bytes))
        .await
        .map_err(unexpected)?;
    let long = "y".repeat(1 << 20);
    append(handler, &task, bytes.len() as u64, &(long.clone() + "\n")).await?;
    let mut text = String::new();
    let mut after = None;
    loop {
        let page = read(handler, &task, after, 100).await?;
        text.extend(events(&page));
        after = page.next;
        if page.at_end {
            break;
        }
    }
    if text.contains('\x1b') || !text.starts_with("plain") || !text.ends_with(&long) {
        return Err(format!("{:?}…", text.chars().take(200).collect::<String>()));
    }
    Ok(())
}

async fn half_a_line(handler: &dyn LogHandler) -> Outcome {
    let task = task("half");
    append(handler, &task, 0, "killed in the mid").await?;
    for _ in 0..2 {
        handler
            .finish(&task, LogOutcome::Lost)
            .await
            .map_err(unexpected)?;
    }
    expect(
        &read(handler, &task, None, 100).await?,
        &["killed in the mid"],
        true,
    )?;
    let silent = self::task("silent");
    handler
        .finish(&silent, LogOutcome::Failed)
        .await
        .map_err(unexpected)?;
    expect(&read(handler, &silent, None, 100).await?, &[], true)
}

async fn apart(handler: &dyn LogHandler) -> Outcome {
    let mut tasks = Vec::new();
    for task_id in ["apart", "../apart", "a/b", "a", "..", "größe", "a\nb"] {
        tasks.push(task(task_id));
    }
    for (map_index, try_number) in [(-1, 2), (0, 1), (1, 1), (1, 2)] {
        tasks.push(TaskKey {
            map_index,
            try_number,
            ..task("apart")
        });
    }
    for task in &tasks {
        append(handler, task, 0, &line(&format!("{task:?}"))).await?;
    }
    for task in &tasks {
        let page = read(handler, task, None, 10).await?;
        expect(&page, &[format!("{task:?}").as_str()], true)?;
    }
    Ok(())
}

async fn purged(handler: &dyn LogHandler) -> Outcome {
    let gone = task("purged");
    let kept = TaskKey {
        run_id: "another".to_owned(),
        ..task("purged")
    };
    for task in [&gone, &kept] {
        append(handler, task, 0, &line("x")).await?;
    }
    let removed = handler.purge(DAG, Some(RUN)).await.map_err(unexpected)?;
    if removed == 0 {
        return Err("nothing was removed".to_owned());
    }
    if !matches!(
        handler.read(&gone, None, 1).await,
        Err(Error::NotFound { .. })
    ) {
        return Err("a purged log is still there".to_owned());
    }
    expect(&read(handler, &kept, None, 1).await?, &["x"], true)?;
    handler.purge(DAG, None).await.map_err(unexpected)?;
    match handler.purge(DAG, None).await {
        Ok(0) => Ok(()),
        Ok(count) => Err(format!("a second purge found {count} more logs")),
        Err(error) => Err(unexpected(error)),
    }
}
