//! What config.yaml may say, and what it answers to everything else.

use super::*;

fn answer(text: &str) -> String {
    match Config::parse(text, "config.yaml") {
        Ok(config) => format!("{config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_empty_file_is_the_default() {
    for text in [
        "",
        "# nothing\n",
        "scheduler:\n",
        "database:\n  connection_string:\n",
        "---\n",
    ] {
        assert_eq!(
            Config::parse(text, "config.yaml").unwrap(),
            Config::default(),
            "{text:?}"
        );
    }
}

#[test]
fn the_example_explains_every_key_with_its_default() {
    let text = include_str!("../../../../examples/config.yaml");
    assert_eq!(
        Config::parse(text, "config.yaml").unwrap(),
        Config::default()
    );
    for key in KEYS {
        assert!(
            text.contains(&format!("{}:", short(key))),
            "{key} is not in examples/config.yaml"
        );
    }
}

#[test]
fn every_key_is_read() {
    insta::assert_snapshot!(answer("
database: {connection_string: 'postgresql+psycopg2://u:secret@db.example:5433/airflow?sslmode=require'}
scheduler:
  interval_seconds: 7
  parse_timeout_seconds: 0.5
executor: {parallelism: 3, task_timeout: 9}
worker: {supervisor: airflow}
xcom:
  inline_bytes: 0
  max_bytes: 1000
"), @"");
}

#[test]
fn mistakes_are_answered_with_place_and_remedy() {
    let cases = [
        "scheduler:\n  intervall_seconds: 60\n",
        "schedular:\n  interval_seconds: 60\n",
        "# a\n\nparallelism: 3\n",
        "executor:\n  parallelism: many\n",
        "executor:\n  parallelism: 0\n",
        "executor:\n  parallelism: 2.5\n",
        "executor:\n  task_timeout: -1\n",
        "executor:\n  task_timeout: '60'\n",
        "scheduler:\n  parse_timeout_seconds: 0\n",
        "scheduler:\n  interval_seconds: true\n",
        "worker:\n  supervisor: python\n",
        "worker: airflow\n",
        "- a\n- b\n",
        "scheduler:\n  qqqq: 1\n",
        "scheduler:\n interval_seconds: [60\n",
        "scheduler:\n  interval_seconds: 1\n  interval_seconds: 2\n",
        "xcom:\n  inline_bytes: 2000\n  max_bytes: 1000\n",
        "database:\n  connection_string: mysql://u:secret@h/d\n",
        "database:\n  connection_string: sqlite:////tmp/airflow.db\n",
        "database:\n  connection_string: localhost\n",
        "database:\n  connection_string: 'postgresql://u:secret@h:port/d'\n",
        "database:\n  connection_string: [secret]\n",
    ];
    let answers: Vec<String> = cases.iter().map(|text| answer(text)).collect();
    let answers = answers.join("\n\n");
    assert!(!answers.contains("secret"));
    insta::assert_snapshot!(answers, @"");
}
