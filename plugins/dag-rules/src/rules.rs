//! The rules themselves: facts in, findings out. Pure.

use std::collections::BTreeSet;

use modalflow_plugin::dag_validator::validator::{Finding, Severity};

use crate::Settings;
use crate::source::line_of;

/// Airflow's columns for ids hold this many characters.
const LONGEST_ID: usize = 250;
/// Findings of one rule beyond this are only counted.
const MOST_OF_ONE_RULE: usize = 50;
/// Airflow's default, `[core] default_task_retry_delay`.
const DEFAULT_RETRY_DELAY: f64 = 300.0;
/// More retries than this are rarely meant.
const MANY_RETRIES: u32 = 100;

pub(crate) const ALL: [(&str, Severity, &str); 10] = [
    (
        "ID001",
        Severity::Error,
        "an id has characters other than letters, digits, `_`, `.` and `-`",
    ),
    (
        "ID002",
        Severity::Error,
        "an id has `..` or a control character in it",
    ),
    (
        "ID003",
        Severity::Error,
        "an id is empty or longer than 250 characters",
    ),
    (
        "OWN001",
        Severity::Warning,
        "an owner is empty, or named twice",
    ),
    (
        "OWN002",
        Severity::Error,
        "a task has no owner of its own (setting require_owner)",
    ),
    (
        "OWN003",
        Severity::Error,
        "an owner is not one of allowed_owners",
    ),
    (
        "TAG001",
        Severity::Error,
        "a Dag lacks one of required_tags",
    ),
    (
        "RET001",
        Severity::Warning,
        "retries follow each other without a pause",
    ),
    (
        "RET002",
        Severity::Info,
        "retries wait for Airflow's default of five minutes",
    ),
    (
        "RET003",
        Severity::Warning,
        "a task has more than 100 retries",
    ),
];

pub(crate) struct Facts {
    pub(crate) dag_id: String,
    pub(crate) tags: Vec<String>,
    pub(crate) source: Option<String>,
    pub(crate) tasks: Vec<Task>,
}

pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) retries: u32,
    /// Seconds.
    pub(crate) retry_delay: Option<f64>,
}

pub(crate) fn check(facts: &Facts, settings: &Settings) -> Vec<Finding> {
    let mut found = Found {
        source: facts.source.as_deref(),
        findings: Vec::new(),
    };
    check_id(&mut found, &facts.dag_id, None);
    check_tags(&mut found, facts, settings);
    for task in &facts.tasks {
        check_id(&mut found, &task.id, Some(task));
        check_owner(&mut found, task, settings);
        check_retries(&mut found, task);
    }
    found.shortened()
}

fn check_id(found: &mut Found<'_>, id: &str, task: Option<&Task>) {
    let what = if task.is_some() { "task_id" } else { "dag_id" };
    let characters = id.chars().count();
    if characters == 0 || characters > LONGEST_ID {
        found.add(
            "ID003",
            task,
            id,
            format!("{what} has {characters} characters; 1 to {LONGEST_ID} are allowed"),
            None,
        );
    }
    if id.contains("..") || id.chars().any(char::is_control) {
        let help = "such an id would leave its place in a path or forge a line of a log";
        found.add(
            "ID002",
            task,
            id,
            format!("{what} {id:?} has `..` or a control character in it"),
            Some(help),
        );
    }
    let strange = id
        .chars()
        .find(|character| !is_id_character(*character) && !character.is_control());
    if let Some(strange) = strange {
        let help = "use letters, digits, `_`, `.` and `-`";
        found.add(
            "ID001",
            task,
            id,
            format!("{what} {id:?} has {strange:?} in it"),
            Some(help),
        );
    }
}

/// airflow: KEY_REGEX, `[\w.-]+`
fn is_id_character(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.' | '-')
}

fn check_owner(found: &mut Found<'_>, task: &Task, settings: &Settings) {
    let mut seen = BTreeSet::new();
    let mut owners = task.owner.split(',').map(str::trim);
    if owners.any(|owner| owner.is_empty() || !seen.insert(owner)) {
        let message = format!("the owner {:?} is empty or has a name twice", task.owner);
        found.add("OWN001", Some(task), &task.id, message, None);
    }
    if settings.require_owner && (task.owner.is_empty() || task.owner == "airflow") {
        let help = "set `owner` in default_args or at the task";
        found.add(
            "OWN002",
            Some(task),
            &task.id,
            "the task has no owner of its own".to_owned(),
            Some(help),
        );
    }
    let allowed = &settings.allowed_owners;
    let stranger = seen
        .iter()
        .find(|owner| !allowed.is_empty() && !allowed.iter().any(|name| name == *owner));
    if let Some(stranger) = stranger {
        let help = format!("allowed are: {}", allowed.join(", "));
        found.add(
            "OWN003",
            Some(task),
            &task.id,
            format!("the owner {stranger:?} is not allowed here"),
            Some(&help),
        );
    }
}

fn check_tags(found: &mut Found<'_>, facts: &Facts, settings: &Settings) {
    for wanted in &settings.required_tags {
        if !facts
            .tags
            .iter()
            .any(|tag| tag.starts_with(wanted.as_str()))
        {
            let message = format!("the Dag has no tag {wanted:?}");
            let help = format!("add `tags=[\"{wanted}\"]` to the DAG");
            found.add("TAG001", None, &facts.dag_id, message, Some(&help));
        }
    }
}

fn check_retries(found: &mut Found<'_>, task: &Task) {
    if task.retries == 0 {
        return;
    }
    let retries = task.retries;
    if retries > MANY_RETRIES {
        found.add(
            "RET003",
            Some(task),
            &task.id,
            format!("{retries} retries are a lot"),
            None,
        );
    }
    let help = Some("set `retry_delay`");
    match task.retry_delay {
        Some(delay) if delay <= 0.0 => {
            let message = format!("{retries} retries follow each other without a pause");
            found.add("RET001", Some(task), &task.id, message, help);
        }
        // The serialized form does not tell a default from a choice; the source may.
        Some(delay)
            if delay == DEFAULT_RETRY_DELAY
                && found
                    .source
                    .is_some_and(|source| !source.contains("retry_delay")) =>
        {
            let message =
                format!("{retries} retries wait for Airflow's default of five minutes each");
            found.add("RET002", Some(task), &task.id, message, help);
        }
        Some(_) | None => {}
    }
}

struct Found<'a> {
    source: Option<&'a str>,
    findings: Vec<Finding>,
}

impl Found<'_> {
    fn add(
        &mut self,
        code: &str,
        task: Option<&Task>,
        id: &str,
        message: String,
        help: Option<&str>,
    ) {
        let severity = ALL
            .iter()
            .find(|(known, _, _)| *known == code)
            .map_or(Severity::Error, |(_, severity, _)| *severity);
        self.findings.push(Finding {
            code: code.to_owned(),
            severity,
            message,
            task_id: task.map(|task| task.id.clone()),
            line: self.source.and_then(|source| line_of(source, id)),
            help: help.map(str::to_owned),
        });
    }

    /// A Dag of thousands of tasks with one mistake shall not bury the others.
    fn shortened(self) -> Vec<Finding> {
        let mut shown = Vec::new();
        for (code, severity, _) in ALL {
            let mut all = self.findings.iter().filter(|finding| finding.code == code);
            shown.extend(all.by_ref().take(MOST_OF_ONE_RULE).cloned());
            let more = all.count();
            if more > 0 {
                shown.push(Finding {
                    code: code.to_owned(),
                    severity,
                    message: format!("and {more} more of this kind"),
                    task_id: None,
                    line: None,
                    help: None,
                });
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Task, check};
    use crate::Settings;

    fn codes(facts: &Facts, settings: &Settings) -> Vec<String> {
        check(facts, settings)
            .into_iter()
            .map(|finding| finding.code)
            .collect()
    }

    fn dag(dag_id: &str) -> Facts {
        Facts {
            dag_id: dag_id.to_owned(),
            tags: Vec::new(),
            source: None,
            tasks: Vec::new(),
        }
    }

    fn task(id: &str) -> Task {
        Task {
            id: id.to_owned(),
            owner: "airflow".to_owned(),
            retries: 0,
            retry_delay: Some(300.0),
        }
    }

    #[test]
    fn ids_are_judged() {
        let cases: [(&str, &[&str]); 8] = [
            ("etl_2.daily-x", &[]),
            ("größe.日本", &[]),
            ("a b", &["ID001"]),
            ("..", &["ID002"]),
            ("a\nb", &["ID002"]),
            ("../../etc/passwd", &["ID001", "ID002"]),
            ("", &["ID003"]),
            (&"x".repeat(251), &["ID003"]),
        ];
        for (id, expected) in cases {
            assert_eq!(codes(&dag(id), &Settings::default()), expected, "{id:?}");
        }
    }

    #[test]
    fn house_rules_apply_when_somebody_asked() {
        let mut facts = dag("d");
        facts.tasks = vec![task("t")];
        assert!(codes(&facts, &Settings::default()).is_empty());
        let strict = Settings {
            require_owner: true,
            allowed_owners: vec!["ann".to_owned()],
            required_tags: vec!["team:".to_owned()],
        };
        assert_eq!(codes(&facts, &strict), ["OWN002", "OWN003", "TAG001"]);
        facts.tags = vec!["team:data".to_owned()];
        facts.tasks[0].owner = "ann".to_owned();
        assert!(codes(&facts, &strict).is_empty());
    }

    #[test]
    fn retries_are_only_warned_about() {
        let mut facts = dag("d");
        facts.tasks = vec![
            Task {
                retries: 3,
                retry_delay: Some(0.0),
                ..task("a")
            },
            Task {
                retries: 3,
                ..task("b")
            },
            Task {
                retries: 300,
                retry_delay: Some(1.0),
                ..task("c")
            },
        ];
        facts.source = Some("retries=3".to_owned());
        assert_eq!(
            codes(&facts, &Settings::default()),
            ["RET001", "RET002", "RET003"]
        );
    }

    #[test]
    fn one_mistake_in_many_tasks_is_counted() {
        let mut facts = dag("d");
        facts.tasks = (0..5000).map(|index| task(&format!("t {index}"))).collect();
        let findings = check(&facts, &Settings::default());
        assert_eq!(findings.len(), 51);
        assert_eq!(findings[50].message, "and 4950 more of this kind");
    }
}
