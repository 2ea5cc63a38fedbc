//! The same deployment for Modal's own command line: a folder with `modal_app.py` and all that it names.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::blueprint::{
    Blueprint, Content, FUNCTIONS, Function, Kind, Layer, MODULE, Schedule, VOLUME, VOLUME_VERSION,
};

/// Why the folder could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub(crate) struct Error {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Writes the folder; answers the files, the program first.
pub(crate) fn write(blueprint: &Blueprint, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error { what, path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
    let mut files = vec![
        (folder.join("modal_app.py"), program(blueprint), 0o644),
        (
            folder.join(format!("{MODULE}.py")),
            FUNCTIONS.to_owned(),
            0o644,
        ),
    ];
    for layer in &blueprint.image.layers {
        if let Layer::Copy { file, .. } = layer
            && let Content::Text(text) = &file.content
        {
            files.push((folder.join(file.name), text.clone(), 0o644));
        }
    }
    for secret in &blueprint.secrets {
        let text = serde_json::to_string_pretty(&secret.values).expect("texts are JSON");
        files.push((folder.join(format!("{}.json", secret.name)), text, 0o600));
    }
    for (path, text, mode) in &files {
        // A file that was there keeps its mode when it is opened, and a Secret must not lie in one that all may read.
        let _ = std::fs::remove_file(path);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed("write", path))?;
    }
    Ok(files.into_iter().map(|(path, ..)| path).collect())
}

/// The text of `modal_app.py`.
fn program(blueprint: &Blueprint) -> String {
    let mut text = String::new();
    let environment = match blueprint.environment.as_str() {
        "" => String::new(),
        name => format!(" --env {name}"),
    };
    let _ = writeln!(
        text,
        "\"\"\"What `modalflow-host create` deploys, for Modal's own command line:\n"
    );
    for secret in &blueprint.secrets {
        let name = &secret.name;
        let _ = writeln!(
            text,
            "    modal secret create{environment} --force {name} --from-json {name}.json"
        );
    }
    let _ = writeln!(
        text,
        "    modal deploy{environment} modal_app.py\n\nThe two JSON files hold the database's address and keys: remove them afterwards.\n\"\"\"\n\nimport pathlib\n\nimport modal\n\nimport {MODULE}\n\nHERE = pathlib.Path(__file__).parent\n"
    );
    let _ = writeln!(text, "app = modal.App({:?})", blueprint.app);
    let _ = writeln!(
        text,
        "volume = modal.Volume.from_name({:?}, create_if_missing=True, version={VOLUME_VERSION})",
        blueprint.volume
    );
    let _ = writeln!(
        text,
        "if modal.is_local():\n    modal.Dict.objects.create({:?}, allow_existing=True)\n",
        blueprint.dict
    );
    image(blueprint, &mut text);
    for function in &blueprint.functions {
        define(function, &mut text);
    }
    text
}

fn image(blueprint: &Blueprint, text: &mut String) {
    let _ = writeln!(
        text,
        "image = (\n    modal.Image.from_registry({})",
        quoted(&blueprint.image.base)
    );
    for layer in &blueprint.image.layers {
        let _ = match layer {
            Layer::NoEntrypoint => writeln!(text, "    .entrypoint([])"),
            Layer::Run(commands) => {
                let commands: Vec<String> = commands.iter().map(|one| quoted(one)).collect();
                writeln!(text, "    .run_commands({})", commands.join(", "))
            }
            Layer::Copy { file, to } => {
                let from = match &file.content {
                    Content::Text(_) => format!("HERE / {}", quoted(file.name)),
                    Content::At(path) => quoted(&path.to_string_lossy()),
                };
                writeln!(
                    text,
                    "    .add_local_file({from}, {}, copy=True)",
                    quoted(to)
                )
            }
        };
    }
    let _ = writeln!(text, ")");
    if blueprint.images.is_empty() {
        return;
    }
    let _ = writeln!(text, "images = {{");
    for (name, layer) in &blueprint.images {
        if let Layer::Run(commands) = layer {
            let commands: Vec<String> = commands.iter().map(|one| quoted(one)).collect();
            let _ = writeln!(
                text,
                "    {}: image.run_commands({}),",
                quoted(name),
                commands.join(", ")
            );
        }
    }
    let _ = writeln!(text, "}}");
}

fn define(function: &Function, text: &mut String) {
    let secrets: Vec<String> = function
        .secrets
        .iter()
        .map(|name| format!("modal.Secret.from_name({})", quoted(name)))
        .collect();
    let mut options = vec![
        match &function.image {
            None => "image=image".to_owned(),
            Some(name) => format!("image=images[{}]", quoted(name)),
        },
        format!("secrets=[{}]", secrets.join(", ")),
        format!("volumes={{{}: volume}}", quoted(VOLUME)),
        format!("cpu={:?}", function.cpu),
        format!("memory={}", function.memory),
        format!("max_containers={}", function.max_containers),
        format!("scaledown_window={}", function.idle.as_secs()),
    ];
    let region = function.region.as_deref().map(quoted);
    let target = format!("{MODULE}.{}", function.entry);
    if function.name != function.entry {
        options.push(format!("name={}", quoted(&function.name)));
    }
    let decorator = match &function.kind {
        Kind::Scheduled { timeout, every } => {
            options.push(format!("timeout={}", timeout.as_secs()));
            options.push(match every {
                Schedule::Cron(line) => format!("schedule=modal.Cron({})", quoted(line)),
                Schedule::Seconds(seconds) => format!("schedule=modal.Period(seconds={seconds})"),
            });
            options.extend(region.map(|region| format!("region={region}")));
            "function"
        }
        Kind::Called { timeout, snapshot } => {
            options.push(format!("timeout={}", timeout.as_secs()));
            options.push("retries=0".to_owned());
            if *snapshot {
                options.push("enable_memory_snapshot=True".to_owned());
            }
            options.extend(region.map(|region| format!("region={region}")));
            "function"
        }
        Kind::Server {
            port,
            startup,
            routing_region,
        } => {
            options.push(format!("port={port}"));
            options.push(format!("routing_region={}", quoted(routing_region)));
            options.push("unauthenticated=True".to_owned());
            options.push(format!("startup_timeout={}", startup.as_secs()));
            options.extend(region.map(|region| format!("compute_region={region}")));
            "server"
        }
    };
    let _ = writeln!(
        text,
        "\napp.{decorator}(\n    {},\n)({target})",
        options.join(",\n    ")
    );
}

/// A Python literal: JSON's strings are Python's.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}
