use serde_json::{Value, json};

use super::ExecutorConfig;

#[test]
fn everything_a_task_may_ask_for() {
    let config = ExecutorConfig::read(&json!({
        "cpu": {"__type": "tuple", "__var": [0.5, 2]},
        "memory": 2048,
        "gpu": "a100:2",
        "timeout": 90,
        "region": "eu-west",
        "retries": 2,
        "volumes": {"__type": "dict", "__var": {"/data": "raw"}},
        "secrets": ["warehouse"],
        "env": {"LEVEL": "debug", "GONE": null},
        "image": "pandas",
        "pod_override": {"__type": "k8s.V1Pod", "__var": {}},
        "KubernetesExecutor": {"image": "x"},
    }));
    insta::assert_debug_snapshot!(config, @r#"
    Ok(
        ExecutorConfig {
            cpu: Some(
                Range {
                    request: 0.5,
                    limit: Some(
                        2.0,
                    ),
                },
            ),
            memory: Some(
                Range {
                    request: 2048,
                    limit: None,
                },
            ),
            gpu: Some(
                Gpu {
                    gpu_type: "A100",
                    count: 2,
                },
            ),
            timeout: Some(
                90s,
            ),
            region: [
                "eu-west",
            ],
            cloud: None,
            retries: Some(
                Retries {
                    max_retries: 2,
                    backoff_coefficient: 1.0,
                    initial_delay: 1s,
                    max_delay: 60s,
                },
            ),
            volumes: {
                "/data": "raw",
            },
            secrets: [
                "warehouse",
            ],
            env: {
                "LEVEL": "debug",
            },
            image: Some(
                "pandas",
            ),
            max_containers: None,
            buffer_containers: None,
            scaledown_window: None,
        },
    )
    "#);
}

#[test]
fn what_asks_for_nothing() {
    for nothing in [
        json!(null),
        json!({}),
        json!({"__type": "dict", "__var": {}}),
        json!({"cpu": null}),
    ] {
        assert!(
            ExecutorConfig::read(&nothing).expect("readable").is_empty(),
            "{nothing}"
        );
    }
}

#[test]
fn what_is_refused_says_what_to_write_instead() {
    let cases: &[Value] = &[
        json!([1]),
        json!({"memroy": 1}),
        json!({"colour": "blue"}),
        json!({"min_containers": 1}),
        json!({"cpu": "two"}),
        json!({"cpu": [4, 1]}),
        json!({"memory": 1.5}),
        json!({"gpu": "A100:none"}),
        json!({"timeout": 0}),
        json!({"timeout": {"__type": "timedelta", "__var": 90.0}}),
        json!({"timeout": 100_000}),
        json!({"region": [1]}),
        json!({"retries": 11}),
        json!({"retries": {"max_retries": 1, "jitter": true}}),
        json!({"volumes": {"data": "raw"}}),
        json!({"volumes": {"/tmp/": "raw"}}),
        json!({"volumes": {"/a/../etc": "raw"}}),
        json!({"volumes": {"//vol/./dags": "raw"}}),
        json!({"volumes": {"/opt": "raw"}}),
        json!({"secrets": ["mine", "airflow-secrets-prod"]}),
        json!({"env": {"MODALFLOW_ROLE": ""}}),
        json!({"secrets": {"a": 1}}),
        json!({"env": {"A": 1}}),
    ];
    let lines: Vec<String> = cases
        .iter()
        .map(|case| match ExecutorConfig::read(case) {
            Ok(config) => format!("{case}: taken as {config:?}"),
            Err(problem) => format!("{problem}; {}", problem.hint),
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    executor_config: expects a dict, found [1]; for example {"cpu": 2}
    executor_config: unknown key "memroy"; did you mean memory?
    executor_config: unknown key "colour"; did you mean cloud?
    executor_config: min_containers belongs to the function and can't be set for one task; a task may set cpu, memory, gpu, timeout, region, cloud, retries, volumes, secrets, env, image, max_containers, buffer_containers, scaledown_window
    executor_config: cpu expects cores from 0.001 to 1024, or a request and a limit, found "two"; for example {"cpu": 2} or {"cpu": (1, 4)}
    executor_config: cpu expects cores from 0.001 to 1024, or a request and a limit, found [4,1]; for example {"cpu": 2} or {"cpu": (1, 4)}
    executor_config: memory expects whole MiB from 1 to 4194304, or a request and a limit, found 1.5; for example {"memory": 4096} or {"memory": (1024, 4096)}
    executor_config: gpu expects a type, or type:count, found "A100:none"; for example {"gpu": "A100:2"}
    executor_config: timeout expects whole seconds from 1 to 86400, found 0; for example {"timeout": 600}
    executor_config: timeout expects whole seconds from 1 to 86400, found {"__type":"timedelta","__var":90.0}; for example {"timeout": 600}
    executor_config: timeout expects whole seconds from 1 to 86400, found 100000; for example {"timeout": 600}
    executor_config: region expects a name, found 1; for example {"region": "eu-west"}
    executor_config: retries expects a number up to 10, or the arguments of modal.Retries, found 11; for example {"retries": 2} or {"retries": {"max_retries": 2, "initial_delay": 5}}
    executor_config: retries expects a number up to 10, or the arguments of modal.Retries, found {"jitter":true,"max_retries":1}; for example {"retries": 2} or {"retries": {"max_retries": 2, "initial_delay": 5}}
    executor_config: volumes expects a dict of volume names by absolute path, found {"data":"raw"}; for example {"volumes": {"/data": "my-volume"}}
    executor_config: volumes expects a dict of volume names by absolute path, found {"/tmp/":"raw"}; for example {"volumes": {"/data": "my-volume"}}
    executor_config: volumes expects a dict of volume names by absolute path, found {"/a/../etc":"raw"}; for example {"volumes": {"/data": "my-volume"}}
    executor_config: volumes expects a dict of volume names by absolute path, found {"//vol/./dags":"raw"}; for example {"volumes": {"/data": "my-volume"}}
    executor_config: volumes expects a dict of volume names by absolute path, found {"/opt":"raw"}; for example {"volumes": {"/data": "my-volume"}}
    executor_config: secrets: airflow-secrets-prod holds the keys of an environment, which tasks never get; put what the task needs into a secret of its own
    executor_config: env: MODALFLOW_ROLE is one of the worker's own variables; take a name that does not begin with MODALFLOW_
    executor_config: secrets expects a name, found {"a":1}; for example {"secrets": "my-secret"}
    executor_config: env expects a dict of texts, found {"A":1}; for example {"env": {"LEVEL": "debug"}}
    "#);
}
