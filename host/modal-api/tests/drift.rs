//! Our subset of the protocol against the official client's: a field's number, type and name never differ.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::exit,
    reason = "a test ends at the first surprise, and says why it was skipped"
)]

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const FACTS: &str = include_str!("facts-1.6.4.txt");

/// "RPC x", "enum x" or "message x", and its parts.
type Lines = BTreeMap<String, Vec<String>>;

#[test]
fn each_name_and_number_is_the_official_one() {
    let facts = facts(FACTS);
    let mut wrong = Vec::new();
    for (name, parts) in ours() {
        match facts.get(&name) {
            None => wrong.push(format!("{name}: not known officially")),
            Some(official) => wrong.extend(
                parts
                    .iter()
                    .filter(|part| !official.contains(part))
                    .map(|part| format!("{name}: {part}")),
            ),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_facts_are_those_of_the_installed_official_client() {
    let python = std::env::var("MODALFLOW_TEST_MODAL_PYTHON").unwrap_or("python3".to_owned());
    let version = Command::new(&python)
        .args(["-c", "import modal; print(modal.__version__)"])
        .output();
    let version = version
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    if version != modal_api::CLIENT_VERSION {
        println!(
            "skipped: {python} does not import modal {}; set MODALFLOW_TEST_MODAL_PYTHON to one that does",
            modal_api::CLIENT_VERSION
        );
        return;
    }
    let mut child = Command::new(python)
        .args(["-c", include_str!("facts.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let names: String = ours().keys().map(|name| format!("{name}\n")).collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(names.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    if std::env::var_os("MODALFLOW_BLESS").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/facts-1.6.4.txt"),
            &printed,
        )
        .unwrap();
    }
    assert_eq!(facts(&printed), facts(FACTS));
}

fn facts(text: &str) -> Lines {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, parts)| {
            let separator = if name.starts_with("enum") { ", " } else { "; " };
            (
                name.to_owned(),
                parts.trim().split(separator).map(str::to_owned).collect(),
            )
        })
        .collect()
}

fn ours() -> Lines {
    let set = FileDescriptorSet::decode(modal_api::wire::DESCRIPTORS).unwrap();
    let mut lines = Lines::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package() == "modal.client")
    {
        for message in &file.message_type {
            add_message("", message, &mut lines);
        }
        for one in &file.enum_type {
            add_enum("", one, &mut lines);
        }
        for method in file.service.iter().flat_map(|service| &service.method) {
            let streams = if method.server_streaming() {
                "stream "
            } else {
                ""
            };
            let part = format!(
                "{} -> {streams}{}",
                short(method.input_type()),
                short(method.output_type())
            );
            lines.insert(format!("RPC {}", method.name()), vec![part]);
        }
    }
    lines
}

fn add_message(outer: &str, message: &DescriptorProto, lines: &mut Lines) {
    let name = format!("{outer}{}", message.name());
    lines.insert(
        format!("message {name}"),
        message
            .field
            .iter()
            .map(|field| describe(message, field))
            .collect(),
    );
    let inner = format!("{name}.");
    for message in &message.nested_type {
        add_message(&inner, message, lines);
    }
    for one in &message.enum_type {
        add_enum(&inner, one, lines);
    }
}

fn add_enum(outer: &str, one: &EnumDescriptorProto, lines: &mut Lines) {
    let values = one
        .value
        .iter()
        .map(|value| format!("{}={}", value.name(), value.number()));
    lines.insert(format!("enum {outer}{}", one.name()), values.collect());
}

fn describe(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut words = vec![field.number().to_string()];
    if field.label() == Label::Repeated {
        words.push("rep".to_owned());
    } else if field.proto3_optional() {
        words.push("opt".to_owned());
    } else if let Some(index) = field.oneof_index {
        let oneof = &message.oneof_decl[usize::try_from(index).unwrap()];
        words.push(format!("oneof({})", oneof.name()));
    }
    words.push(match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    });
    words.push(field.name().to_owned());
    words.join(" ")
}

fn short(name: &str) -> String {
    name.trim_start_matches('.')
        .replace("modal.client.", "")
        .replace("google.protobuf.", "g.")
}
