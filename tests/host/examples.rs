//! The examples of this repository end as `examples/expected.json` says.

use std::path::Path;

use serde_json::Value;
use support::TestHost;

#[test]
fn every_example_ends_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.join("dags"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let python: Vec<_> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "py"))
        .collect();
    let host = TestHost::new();
    host.upload_paths(&python);
    let _serve = host.serve();
    let expected = expected.as_object().unwrap();
    let runs: Vec<_> = expected
        .keys()
        .map(|dag| (dag, host.trigger(dag, &["--run-id", "example"])))
        .collect();
    for (dag, run) in runs {
        let wanted = &expected[dag];
        assert_eq!(
            host.wait(dag, &run),
            wanted["state"],
            "{dag}:\n{}",
            host.tasks(dag, &run)
        );
        let tasks = host.tasks(dag, &run);
        for (task, end) in wanted["tasks"].as_object().unwrap() {
            let state = end["state"].as_str().unwrap();
            let lines: Vec<&str> = tasks
                .lines()
                .filter(|line| line.split([' ', '[']).next() == Some(task))
                .collect();
            let instances = end["instances"].as_u64().unwrap_or(1);
            assert_eq!(lines.len() as u64, instances, "{dag}.{task} in\n{tasks}");
            for line in lines {
                assert!(
                    line.contains(&format!(" {state} ")),
                    "{dag}.{task}: {line}, not {state}"
                );
                if let Some(number) = end["try_number"].as_i64() {
                    assert!(
                        line.ends_with(&format!(" {number}")),
                        "{dag}.{task}: {line}, not try {number}"
                    );
                }
            }
        }
    }
}
