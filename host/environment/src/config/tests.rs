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
"), @r"
Config { connection_string: Some(postgresql://u@db.example:5433/airflow), interval: 7s, parse_timeout: 500ms, parallelism: 3, task_timeout: 9s, callback_timeout: 300s, supervisor: Airflow, xcom_inline_bytes: 0, xcom_max_bytes: 1000 }
");
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
    insta::assert_snapshot!(answers, @r#"
    read config.yaml, line 2: unknown key "scheduler.intervall_seconds"
    hint: did you mean scheduler.interval_seconds?

    read config.yaml, line 2: unknown key "schedular"
    hint: did you mean scheduler?

    read config.yaml, line 3: unknown key "parallelism"
    hint: did you mean executor.parallelism?

    read config.yaml, line 2: executor.parallelism: expected a whole number from 1 to 4096, found "many"
    hint: for example `parallelism: 16`

    read config.yaml, line 2: executor.parallelism: expected a whole number from 1 to 4096, found 0
    hint: for example `parallelism: 16`

    read config.yaml, line 2: executor.parallelism: expected a whole number from 1 to 4096, found 2.5
    hint: for example `parallelism: 16`

    read config.yaml, line 2: executor.task_timeout: expected a whole number from 1 to 2592000, found -1
    hint: for example `task_timeout: 3600`

    read config.yaml, line 2: executor.task_timeout: expected a whole number from 1 to 2592000, found "60"
    hint: for example `task_timeout: 3600`

    read config.yaml, line 2: scheduler.parse_timeout_seconds: expected a number of seconds from 0.1 to 3600, found 0
    hint: for example `parse_timeout_seconds: 5`

    read config.yaml, line 2: scheduler.interval_seconds: expected a whole number from 1 to 86400, found true
    hint: for example `interval_seconds: 60`

    read config.yaml, line 2: worker.supervisor: expected modalflow or airflow, found "python"
    hint: for example `supervisor: modalflow`

    read config.yaml, line 1: expected keys below worker:, found "airflow"
    hint: write `section:`, and below it its keys indented by two spaces

    read config.yaml, line 1: expected keys, found a list
    hint: write `section:`, and below it its keys indented by two spaces

    read config.yaml, line 2: unknown key "scheduler.qqqq"
    hint: the keys are database.connection_string, scheduler.interval_seconds, scheduler.parse_timeout_seconds, executor.parallelism, executor.task_timeout, executor.callback_timeout, worker.supervisor, xcom.inline_bytes, xcom.max_bytes

    read config.yaml, line 2: unclosed bracket '[' at line 2, column 20
    hint: the file is YAML: sections, and below each its keys indented by two spaces

    read config.yaml, line 3: duplicate mapping key: interval_seconds
    hint: the file is YAML: sections, and below each its keys indented by two spaces

    read config.yaml: xcom.inline_bytes: 2000 is more than xcom.max_bytes, 1000
    hint: make xcom.inline_bytes smaller or xcom.max_bytes larger

    read config.yaml, line 2: database.connection_string: modalflow needs Postgres, found a mysql URL
    hint: it begins with postgresql:// ; without the key an embedded Postgres is used

    read config.yaml, line 2: database.connection_string: modalflow needs Postgres, found a sqlite URL
    hint: it begins with postgresql:// ; without the key an embedded Postgres is used

    read config.yaml, line 2: database.connection_string: it has no scheme, postgresql://
    hint: for example `postgresql://user:password@host:5432/airflow`

    read config.yaml, line 2: database.connection_string: invalid port number
    hint: for example `postgresql://user:password@host:5432/airflow`

    read config.yaml, line 2: database.connection_string: expected a postgresql:// URL, found a list
    hint: for example `connection_string: postgresql://user:password@host:5432/airflow`
    "#);
}
