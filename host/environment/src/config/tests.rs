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
"), @r#"Config { placement: Local, modal: ModalConfig { environment: "", region: None, routing_region: "us-east", python_version: "3.12", image: None, airflow_python: None, requirements: None, image_commands: [], images: {}, secrets: [], task_cpu: 0.5, task_memory: 512, idle: 60s, memory_snapshot: true }, connection_string: Some(postgresql://u@db.example:5433/airflow), interval: 7s, parse_timeout: 500ms, parallelism: 3, task_timeout: 9s, callback_timeout: 300s, supervisor: Airflow, xcom_inline_bytes: 0, xcom_max_bytes: 1000 }"#);
}

#[test]
fn every_key_of_modal_is_read() {
    let text = "
placement: modal
database: {connection_string: 'postgresql://u:hush@db.example/airflow'}
scheduler: {interval_seconds: 30}
modal:
  environment: staging
  region: eu-west
  routing_region: eu-west
  python_version: 3.10
  image: registry.example/airflow:3.3.2
  airflow_python: /opt/python
  requirements: more.txt
  image_commands: ['apt-get install -y git', 'echo 1']
  secrets: [warehouse]
  task_cpu: 2
  task_memory: 1024
  tasks_per_container: 1
  idle_seconds: 20
  memory_snapshot: false
";
    let config = Config::parse(text, "config.yaml").unwrap();
    assert_eq!(config.placement, Placement::Modal);
    insta::assert_snapshot!(format!("{:?}", config.modal), @r#"ModalConfig { environment: "staging", region: Some("eu-west"), routing_region: "eu-west", python_version: "3.10", image: Some("registry.example/airflow:3.3.2"), airflow_python: Some("/opt/python"), requirements: Some("more.txt"), image_commands: ["apt-get install -y git", "echo 1"], images: {}, secrets: ["warehouse"], task_cpu: 2.0, task_memory: 1024, idle: 20s, memory_snapshot: false }"#);
    // What containers read says the same of all that concerns them.
    let there = Config::parse(&config.for_containers(), "settings").unwrap();
    assert_eq!(there.interval, config.interval);
    assert_eq!(there.modal.task_memory, 1024);
    assert!(!config.for_containers().contains("hush"));
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
        "database:\n  connection_string: mysql://u:hush@h/d\n",
        "database:\n  connection_string: sqlite:////tmp/airflow.db\n",
        "database:\n  connection_string: localhost\n",
        "database:\n  connection_string: 'postgresql://u:hush@h:port/d'\n",
        "database:\n  connection_string: [hush]\n",
        "placement: cloud\n",
        "placment: modal\n",
        "placement: modal\n",
        "modal:\n  task_cpus: 1\n",
        "modal:\n  python_version: '3.9'\n",
        "modal:\n  secrets: warehouse\n",
        "modal:\n  task_memory: 1\n",
        "modal:\n  tasks_per_container: 2\n",
        "placement: modal\ndatabase:\n  connection_string: postgresql://u:hush@h/d\nworker:\n  supervisor: airflow\n",
        "placement: modal\ndatabase:\n  connection_string: postgresql://u:hush@h/d\nscheduler:\n  interval_seconds: 1\n",
    ];
    let answers: Vec<String> = cases.iter().map(|text| answer(text)).collect();
    let answers = answers.join("\n\n");
    assert!(!answers.contains("hush"));
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
    hint: the keys are placement, database.connection_string, scheduler.interval_seconds, scheduler.parse_timeout_seconds, executor.parallelism, executor.task_timeout, executor.callback_timeout, worker.supervisor, xcom.inline_bytes, xcom.max_bytes, modal.environment, modal.region, modal.routing_region, modal.python_version, modal.image, modal.airflow_python, modal.requirements, modal.images, modal.image_commands, modal.secrets, modal.task_cpu, modal.task_memory, modal.tasks_per_container, modal.idle_seconds, modal.memory_snapshot

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

    read config.yaml, line 1: placement: expected local or modal, found "cloud"
    hint: for example `placement: modal`

    read config.yaml, line 1: unknown key "placment"
    hint: did you mean placement?

    read config.yaml: database.connection_string: placement modal needs a Postgres that Modal's containers can reach; the embedded one is on this machine alone
    hint: set database.connection_string to a Postgres of yours (Neon, RDS, …): postgresql://user:password@host:5432/airflow

    read config.yaml, line 2: unknown key "modal.task_cpus"
    hint: did you mean modal.task_cpu?

    read config.yaml, line 2: modal.python_version: expected 3.10, 3.11, 3.12 or 3.13, found "3.9"
    hint: for example `python_version: "3.12"`

    read config.yaml, line 2: modal.secrets: expected a list of texts, found "warehouse"
    hint: for example `secrets: [my-warehouse]`

    read config.yaml, line 2: modal.task_memory: expected a whole number from 128 to 344064, found 1
    hint: for example `task_memory: 512`

    read config.yaml, line 2: modal.tasks_per_container: expected 1 (while a task runs, its container can't look at the volume anew, and a second one could miss what was written since), found 2
    hint: for example `tasks_per_container: 1`

    read config.yaml: worker.supervisor: Airflow's own supervisor can't make a Modal volume durable before it reports a task's end
    hint: leave the key out: modalflow's supervisor runs tasks on Modal

    read config.yaml: scheduler.interval_seconds: each tick is a call of a function there, which starts Airflow's triggerer for what is deferred
    hint: 30 is the least with placement modal; a finished task asks for a tick at once anyhow
    "#);
}
