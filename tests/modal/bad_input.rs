//! What goes wrong on the way to Modal, told with what to do about it; and that a second `create` completes a first one.

use std::path::Path;
use std::sync::Arc;

use support::faults::Fault;
use support::{Ran, modalflow, prepared};

use crate::cloud::{Cloud, Environment};

#[test]
fn mistakes_are_told_before_anything_is_made() {
    let cloud = Cloud::start();
    let name = Environment::unique();
    let here = Environment::prepare(&cloud, &name, "modal:\n  secrets: [warehouse]");
    let create = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = modalflow(["create", "--env", &name, "--config"]);
        command.arg(&here.config);
        cloud.with_token(&mut command);
        change(&mut command);
        let ran = Ran::of(command);
        let database = here.database.name.clone();
        format!("{:?} {}", ran.code, ran.stderr.trim_end())
            .replace(&name, "NAME")
            .replace(&database, "DATABASE")
    };
    let mut told = vec![
        // Modal itself is far away from this machine's Postgres.
        create(&|command| {
            command.env("MODAL_SERVER_URL", "https://api.modal.example");
        }),
        create(&|command| {
            command.env("MODAL_TOKEN_SECRET", "as-wrong");
        }),
        create(&|command| cloud.without_token(command)),
        create(&|command| {
            command.env("MODAL_ENVIRONMENT", "nowhere");
        }),
    ];
    assert!(!told.join("\n").contains("as-wrong"));
    let (code, known) = {
        let ran = here.run(&["env", "list", "--output", "plain"]);
        (ran.code, ran.stdout)
    };
    assert_eq!(code, Some(0));
    assert!(!known.contains(&name), "something was made: {known}");

    // A Secret that tasks shall get is not there: the local half is made, nothing is published.
    told.push(create(&|_| ()));
    assert_eq!(
        cloud
            .modal(&["app", "list", "--json"], Path::new("/"))
            .matches("deployed")
            .count(),
        0
    );
    let _ = cloud.modal(&["secret", "create", "warehouse", "A=b"], Path::new("/"));
    let completed = here.create(&[]);
    assert_eq!(completed.code, Some(0), "{completed}");

    let filters = [
        (r"http://127\.0\.0\.1:\d+", "http://EMULATOR"),
        (r"127\.0\.0\.1:\d+", "POSTGRES"),
        (r"localhost:\d+", "POSTGRES"),
        (r"/tmp/[^ ]*", "PATH"),
    ];
    insta::with_settings!({filters => filters}, {
        insta::assert_snapshot!(told.join("\n\n"), @"
        Some(1) error: deploy to Modal: its containers can't reach the database at postgresql://postgres@POSTGRES/DATABASE, an address of this machine alone
        hint: set database.connection_string to a Postgres that is reached from outside; only with an emulator on this machine (MODAL_SERVER_URL) a local one will do

        Some(1) error: not signed in: the token is not this emulator's; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what it printed when it started
        hint: the token is wrong, expired or of another workspace; check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or the profile in ~/.modal.toml (`modal token info` shows which one counts)

        Some(1) error: not signed in: no token; hint: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what the emulator printed when it started
        hint: the token is wrong, expired or of another workspace; check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or the profile in ~/.modal.toml (`modal token info` shows which one counts)

        Some(1) error: no environment 'nowhere': environment 'nowhere' not found
        hint: make it (modal environment create nowhere), or leave it out
        hint: `modal environment list` shows the environments; MODAL_ENVIRONMENT or the profile chooses one

        Some(1) create app modalflow-NAME: it is not there
        create volume airflow-vol-NAME: it is not there
        create dict airflow-state-NAME: it is not there
        create secret airflow-secrets-NAME: it is not there
        create secret airflow-worker-NAME: it is not there
        create image apache/airflow:3.3.2-python3.12: the app is not deployed
        create function scheduler_tick: the app is not deployed
        create function run_task: the app is not deployed
        create function execution_api: the app is not deployed
        create function airflow_ui: the app is not deployed
        error: no secret 'warehouse' in environment 'main': Secret 'warehouse' not found in environment 'main'
        hint: `modal secret list` shows the secrets, `modal secret create` makes one
        ");
    });
}

#[test]
fn an_image_that_fails_to_build_shows_the_end_of_its_log_and_can_be_mended() {
    let cloud = Cloud::start();
    let name = Environment::unique();
    // A newline would end the instruction; a mount of a build is what the emulator can't do.
    let here = Environment::prepare(&cloud, &name, "modal:\n  image: \"debian\\nRNU make\"");
    let failed = here.create(&[]);
    assert_eq!(failed.code, Some(1), "{failed}");
    assert!(failed.stderr.contains("build the image"), "{failed}");
    assert!(
        failed.stderr.contains("unknown instruction: RNU"),
        "{failed}"
    );
    assert_eq!(
        cloud
            .modal(&["app", "list", "--json"], Path::new("/"))
            .matches("\"deployed\"")
            .count(),
        0
    );

    let text = std::fs::read_to_string(&here.config).unwrap();
    std::fs::write(&here.config, text.replace("debian\\nRNU make", "debian")).unwrap();
    let mended = here.create(&[]);
    assert_eq!(mended.code, Some(0), "{mended}");
    what_runs_keeps_its_settings_when_a_build_fails(&here);
    it_does_not_move_by_create(&here);
    it_is_taken_away_although_its_config_is_broken(&here);
}

/// Of a Secret: what a function that has it reads.
const READ: &str = r#"
import os, sys, modal
app = modal.App("reads")
@app.function(secrets=[modal.Secret.from_name(sys.argv[1])], serialized=True)
def read():
    import os
    return os.environ["MODALFLOW_SETTINGS"]
with app.run():
    print(read.remote())
"#;

/// Containers of the deployment that runs read the same Secrets.
fn what_runs_keeps_its_settings_when_a_build_fails(here: &Environment<'_>) {
    let text = std::fs::read_to_string(&here.config).unwrap();
    let spoilt = text.replace(
        "image: \"debian\"",
        "image: \"debian\\nRNU make\"\n  task_memory: 1234",
    );
    assert_ne!(spoilt, text);
    let read = || {
        here.cloud
            .python(READ, &[&format!("airflow-worker-{}", here.name)])
    };
    let before = read();
    std::fs::write(&here.config, spoilt).unwrap();
    let failed = here.create(&[]);
    assert!(
        failed.stderr.contains("unknown instruction: RNU"),
        "{failed}"
    );
    assert_eq!(read(), before);
    std::fs::write(&here.config, text).unwrap();
}

/// Neither to a database without Airflow's tables nor to another environment of Modal's.
fn it_does_not_move_by_create(here: &Environment<'_>) {
    let text = std::fs::read_to_string(&here.config).unwrap();
    let empty = text.replace(&here.database.url, &prepared("MODALFLOW_TEST_DATABASE_URL"));
    assert_ne!(empty, text);
    std::fs::write(&here.config, empty).unwrap();
    let refused = here.create(&[]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused
            .stderr
            .contains("there is no Airflow 3.3.2 in that database"),
        "{refused}"
    );
    let shown = here.run(&["env", "show", "--output", "json"]).json();
    assert!(
        shown["database_url"]
            .as_str()
            .unwrap()
            .contains(&here.database.name),
        "{shown}"
    );

    std::fs::write(&here.config, text + "  environment: elsewhere\n").unwrap();
    let _ = here
        .cloud
        .modal(&["environment", "create", "elsewhere"], Path::new("/"));
    let refused = here.create(&[]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.stderr.contains("it is deployed in main"),
        "{refused}"
    );
    assert_eq!(
        here.cloud
            .modal(
                &["app", "list", "--env", "elsewhere", "--json"],
                Path::new("/")
            )
            .trim(),
        "[]"
    );
}

/// The keys on this machine are the only ones: they go last.
fn it_is_taken_away_although_its_config_is_broken(here: &Environment<'_>) {
    let shown = here.run(&["env", "show", "--output", "json"]).json();
    std::fs::write(shown["config"].as_str().unwrap(), "placement: [").unwrap();
    let create = here.create(&[]);
    assert!(create.stderr.contains("config.yaml"), "{create}");
    let destroyed = here.destroy();
    assert_eq!(destroyed.code, Some(0), "{destroyed}");
    for line in ["stopped app", "deleted volume", "left the schema modalflow"] {
        assert!(destroyed.stderr.contains(line), "{destroyed}");
    }
}

#[test]
fn a_workspace_that_is_full_says_what_to_do_and_create_completes_later() {
    let cloud = Cloud::start();
    let name = Environment::unique();
    let here = Environment::prepare(&cloud, &name, "modal:\n  memory_snapshot: false");
    let plan = |rpc: &str, _| (rpc == "FunctionCreate").then_some(Fault::Full);
    let (line, address) = cloud.behind(Arc::new(plan));
    let mut command = modalflow(["create", "--env", &name, "--config"]);
    command.arg(&here.config);
    cloud.with_token(&mut command);
    command.env("MODAL_SERVER_URL", address);
    let full = Ran::of(command);
    assert_eq!(full.code, Some(3), "{full}");
    let at = full.stderr.find("error:").unwrap();
    insta::assert_snapshot!(&full.stderr[at..], @"
    error: deploy function scheduler_tick: quota or queue is full: the workspace's limit is reached
    hint: wait for what runs, stop what is not needed, or raise the workspace's limits in Modal's settings
    ");
    assert_eq!(line.met().len(), 1);
    let apps = cloud.modal(&["app", "list", "--json"], Path::new("/"));
    assert!(!apps.contains("\"deployed\""), "{apps}");

    let completed = here.create(&[]);
    assert_eq!(completed.code, Some(0), "{completed}");

    // Another workspace has nothing of it, which is no reason to throw its keys away.
    let other = Cloud::start();
    let mut command = modalflow(["destroy", "--env", &name, "--yes"]);
    other.with_token(&mut command);
    let elsewhere = Ran::of(command);
    assert_eq!(elsewhere.code, Some(1), "{elsewhere}");
    assert!(elsewhere.stderr.contains("add --forget"), "{elsewhere}");
    let destroyed = here.destroy();
    assert!(destroyed.stderr.contains("stopped app"), "{destroyed}");
}
