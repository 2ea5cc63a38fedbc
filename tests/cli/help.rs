//! What `--help` says.

use support::{Ran, modalflow};

#[test]
fn the_binary_introduces_itself() {
    insta::assert_snapshot!(Ran::of(modalflow(["--help"])).ok());
}

#[test]
fn every_command_explains_itself() {
    let commands: &[&[&str]] = &[
        &["create"],
        &["destroy"],
        &["env", "show"],
        &["dags", "create"],
        &["dags", "update"],
        &["dags", "list"],
        &["dags", "delete"],
        &["dags", "trigger"],
        &["dags", "pause"],
        &["dags", "unpause"],
        &["tick"],
        &["serve"],
        &["ui"],
        &["emulator"],
        &["runs", "list"],
        &["runs", "show"],
        &["tasks", "list"],
        &["logs"],
        &["xcom", "get"],
    ];
    for command in commands {
        let help = Ran::of(modalflow(command.iter().chain(&["--help"]))).ok();
        let first = help.lines().next().unwrap_or_default();
        assert!(
            first.len() > 10 && !first.ends_with('.'),
            "{command:?}: {first}"
        );
        // The emulator has no environment of ours.
        assert!(
            command == &["emulator"] || help.contains("--env <NAME>") || help.contains("--env"),
            "{command:?} names its environment"
        );
    }
}
