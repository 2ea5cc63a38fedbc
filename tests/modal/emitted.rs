//! The program that `create --emit-python` writes, deployed by Modal's own command line, against what `create` deploys by RPC: what
//! the server recorded for each is the same but for what is explained here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use emulator::Recorded;
use serde_json::{Value, json};

use crate::cloud::{Cloud, Environment};

/// Reads definitions with all their fields, and names ids away.
const READ: &str = r#"
import base64, json, sys
from google.protobuf.json_format import MessageToDict
from modal_proto import api_pb2
given = json.load(open(sys.argv[1]))
meaning = given["meaning"]
def plain(value):
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return meaning.get(value, value) if isinstance(value, str) else value
for name, text in sorted(given["functions"].items()):
    function = plain(MessageToDict(api_pb2.Function.FromString(base64.b64decode(text)), preserving_proto_field_name=True))
    for field in sorted(function):
        value = function[field]
        if field == "mount_ids":
            value = sorted(value)
        print(name, field, json.dumps(value, sort_keys=True))
"#;

#[test]
fn the_emitted_program_deploys_what_create_deploys() {
    let name = Environment::unique();
    let more = "modal:\n  region: us-east\n  image_commands: [echo 1, echo 2]\n  images: {pandas: [echo 3]}";
    let (ours, theirs) = (Cloud::start(), Cloud::start());
    let here = Environment::prepare(&ours, &name, more);
    let _ = here.create(&[]).ok();

    let folder = theirs.folder.path().join("emitted");
    let written = here
        .create(&["--emit-python", folder.to_str().unwrap()])
        .ok();
    assert!(
        written.lines().next().unwrap().ends_with("modal_app.py"),
        "{written}"
    );
    for secret in ["secrets", "worker"] {
        let secret = format!("airflow-{secret}-{name}");
        let file = format!("{secret}.json");
        let _ = theirs.modal(
            &["secret", "create", &secret, "--from-json", &file],
            &folder,
        );
    }
    let _ = theirs.modal(&["deploy", "modal_app.py"], &folder);

    let (ours_recorded, theirs_recorded) = (ours.recorded(), theirs.recorded());
    assert_eq!(ours_recorded.functions.len(), 5);
    let before = lines(&ours, &ours_recorded);
    let after = lines(&theirs, &theirs_recorded);
    let only = |these: &[String], those: &[String], sign: &str| -> Vec<String> {
        let mut only: Vec<String> = these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{sign} {line}"))
            .collect();
        only.sort();
        only
    };
    let mut differences = only(&before, &after, "ours  ");
    differences.extend(only(&after, &before, "theirs"));
    // - Callers of ours speak CBOR alone, so that nobody's pickles are read.
    // - The client also sends what it knows of a function's signature, for callers that look at it.
    insta::assert_snapshot!(differences.join("\n").replace(&name, "NAME"), @r#"
    ours   run_task supported_input_formats ["DATA_FORMAT_CBOR"]
    ours   run_task supported_output_formats ["DATA_FORMAT_CBOR"]
    ours   run_task_pandas supported_input_formats ["DATA_FORMAT_CBOR"]
    ours   run_task_pandas supported_output_formats ["DATA_FORMAT_CBOR"]
    ours   scheduler_tick supported_input_formats ["DATA_FORMAT_CBOR"]
    ours   scheduler_tick supported_output_formats ["DATA_FORMAT_CBOR"]
    theirs run_task function_schema {"arguments": [{"full_type": {"base_type": "PARAM_TYPE_DICT"}, "name": "payload"}], "return_type": {"base_type": "PARAM_TYPE_DICT"}, "schema_type": "FUNCTION_SCHEMA_V1"}
    theirs run_task supported_input_formats ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    theirs run_task supported_output_formats ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    theirs run_task_pandas function_schema {"arguments": [{"full_type": {"base_type": "PARAM_TYPE_DICT"}, "name": "payload"}], "return_type": {"base_type": "PARAM_TYPE_DICT"}, "schema_type": "FUNCTION_SCHEMA_V1"}
    theirs run_task_pandas supported_input_formats ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    theirs run_task_pandas supported_output_formats ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    theirs scheduler_tick function_schema {"return_type": {"base_type": "PARAM_TYPE_UNKNOWN"}, "schema_type": "FUNCTION_SCHEMA_V1"}
    theirs scheduler_tick supported_input_formats ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    theirs scheduler_tick supported_output_formats ["DATA_FORMAT_PICKLE", "DATA_FORMAT_CBOR"]
    "#);

    // Both have the same names around them.
    for kind in ["volume", "dict", "secret"] {
        let names = |cloud: &Cloud| -> Vec<String> {
            let listed = cloud.modal(&[kind, "list", "--json"], &folder);
            let listed: Value = serde_json::from_str(&listed).unwrap();
            let mut names: Vec<String> = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    row["Name"]
                        .as_str()
                        .or(row["name"].as_str())
                        .unwrap()
                        .to_owned()
                })
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&ours), names(&theirs), "{kind}");
    }
}

pub(crate) fn lines(cloud: &Cloud, recorded: &Recorded) -> Vec<String> {
    let functions: serde_json::Map<String, Value> = recorded
        .functions
        .iter()
        .map(|((_, tag), bytes)| (tag.clone(), STANDARD.encode(bytes).into()))
        .collect();
    let given = cloud.folder.path().join("recorded.json");
    let text = json!({"functions": functions, "meaning": recorded.meaning}).to_string();
    std::fs::write(&given, text).unwrap();
    cloud
        .python(READ, &[given.to_str().unwrap()])
        .lines()
        .map(str::to_owned)
        .collect()
}
