//! A deployed function as a process: Modal's own container runtime, run by the emulator's Python.

use std::{collections::BTreeMap, ffi::OsString, fs, io, os::unix::ffi::OsStrExt, path::PathBuf};

use modal_api::{
    CODE_FOLDER,
    verbatim::ContainerArguments,
    wire::{self, FileDescriptor, object::HandleMetadataOneof},
};
use prost::{Message, bytes::Bytes};

use crate::{
    app_parts, apps,
    core::{Core, Inner},
    ground::{Content, Ground, Volume, enter},
    images::{self, Effects},
    logs::{LAST_LOOKS, Origin, Pumped},
    mounts,
    objects::{self, Kind},
    process::Launch,
    secrets,
    state::Phase,
    volumes,
};

const RUNTIME: &str = "modal._container_entrypoint";

/// A definition that is at work.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) function_id: String,
    pub(crate) app_id: String,
    pub(crate) definition_id: String,
    /// With the options of a variant.
    pub(crate) definition: wire::Function,
    /// The same, with the fields that we do not know.
    pub(crate) bytes: Bytes,
    pub(crate) serialized_params: Bytes,
}

/// The Python that runs deployed functions.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    /// Containers get files of their own at absolute paths: the machine lets us make namespaces.
    pub(crate) isolates: bool,
}

/// All that a container is made of, taken under the lock.
struct Parts {
    ground: Ground,
    effects: Effects,
    secrets: Vec<(String, String)>,
    environment: String,
    layout: wire::AppLayout,
}

/// Puts files in their places and says what to start. Files are copied: not for under the lock.
pub(crate) fn launch(core: &Core, task_id: &str, deployed: &Deployed) -> io::Result<Launch> {
    let python = core
        .python
        .as_ref()
        .ok_or_else(|| io::Error::other("the emulator was started without --python"))?;
    let parts = parts(core, &core.lock(), deployed).map_err(io::Error::other)?;
    let folder = core.ground_dir(&deployed.definition_id);
    parts.ground.lay(&folder)?;

    let arguments = ContainerArguments {
        task_id: task_id.to_owned(),
        function_id: deployed.function_id.clone(),
        app_id: deployed.app_id.clone(),
        function_def: Some(deployed.bytes.clone()),
        serialized_params: deployed.serialized_params.clone(),
        environment_name: parts.environment.clone(),
        app_layout: Some(parts.layout),
        ..Default::default()
    };
    let arguments_path = core.arguments_path(task_id);
    fs::write(&arguments_path, arguments.encode_to_vec())?;

    let runtime = [
        python.path.clone().into_os_string(),
        "-m".into(),
        RUNTIME.into(),
    ];
    let (command, working_dir, code) = if python.isolates {
        let root = core.root_dir(task_id);
        fs::create_dir_all(&root)?;
        let script = core.script_path(task_id);
        fs::write(&script, parts.ground.script(&folder, &root).as_bytes())?;
        (
            enter(&script, &runtime),
            core.scratch_dir(),
            PathBuf::from(CODE_FOLDER),
        )
    } else {
        let inside = |path: &str| folder.join(path.trim_start_matches('/'));
        let here = folder.join(&parts.ground.workdir);
        (runtime.to_vec(), here, inside(CODE_FOLDER))
    };

    let mut env = BTreeMap::<OsString, OsString>::new();
    let mut set = |name: &str, value: OsString| env.insert(name.into(), value);
    set("PYTHONUNBUFFERED", "1".into());
    if python.isolates {
        set("HOME", CODE_FOLDER.into());
    }
    set("PATH", path_with(&python.path));
    let mut python_path = code.into_os_string();
    for (name, value) in parts
        .effects
        .env
        .iter()
        .chain(parts.secrets.iter().map(|(a, b)| (a, b)))
    {
        if name == "PYTHONPATH" {
            python_path.push(":");
            python_path.push(value);
        } else {
            set(name, value.into());
        }
    }
    set("PYTHONPATH", python_path);
    set(
        "MODAL_IMAGE_ID",
        deployed.definition.image_id.clone().into(),
    );
    set("MODAL_APP_ID", deployed.app_id.clone().into());
    set("MODAL_FUNCTION_ID", deployed.function_id.clone().into());
    set(
        "MODAL_CONTAINER_ARGUMENTS_PATH",
        arguments_path.into_os_string(),
    );
    set("MODALFLOW_CONTAINER_FILES", folder.into_os_string());
    Ok(Launch {
        command,
        env,
        working_dir,
        environment: parts.environment,
        stdout: core.logs.output(task_id, FileDescriptor::Stdout),
        stderr: core.logs.output(task_id, FileDescriptor::Stderr),
    })
}

/// What a container leaves on disk.
fn clean_up(core: &Core, task_id: &str) {
    let _ = fs::remove_file(core.arguments_path(task_id));
    let _ = fs::remove_file(core.script_path(task_id));
    let _ = fs::remove_dir(core.root_dir(task_id));
}

fn parts(core: &Core, inner: &Inner, deployed: &Deployed) -> Result<Parts, tonic::Status> {
    let rows = &inner.state.rows;
    let definition = &deployed.definition;
    let app = apps::get(rows, &deployed.app_id)?;
    let effects = images::effects(rows, &definition.image_id);
    let mut contents = Vec::new();
    for mount_id in &definition.mount_ids {
        for file in mounts::files(rows, mount_id) {
            contents.push(Content {
                path: core.contents.path(&file.sha256_hex)?,
                target: volumes::inside(&file.filename)?,
                mode: file.mode,
            });
        }
    }
    for copy in &effects.copies {
        for file in mounts::files(rows, &copy.mount_id) {
            if let Some(target) = copied_to(&file.filename, &copy.from, &copy.to) {
                contents.push(Content {
                    path: core.contents.path(&file.sha256_hex)?,
                    target: volumes::inside(&target)?,
                    mode: file.mode,
                });
            }
        }
    }
    let mut mounted = Vec::new();
    for mount in &definition.volume_mounts {
        let root = volumes::root(core, inner, &mount.volume_id)?;
        mounted.push(Volume {
            folder: root.join(volumes::inside(
                mount.sub_path.as_deref().unwrap_or_default(),
            )?),
            target: volumes::inside(&mount.mount_path)?,
            is_read_only: mount.read_only,
        });
    }
    let workdir = volumes::inside(effects.workdir.as_deref().unwrap_or(CODE_FOLDER))?;
    let values = definition
        .secret_ids
        .iter()
        .flat_map(|id| secrets::values(rows, id).values);
    let mut layout = app_parts::layout_of(rows, &deployed.app_id, &app);
    for dependency in &definition.object_dependencies {
        let volume = objects::get(rows, Kind::Volume, &dependency.object_id).ok();
        layout.objects.push(wire::Object {
            handle_metadata_oneof: volume
                .map(|row| HandleMetadataOneof::VolumeMetadata(volumes::metadata(&row))),
            object_id: dependency.object_id.clone(),
        });
    }
    Ok(Parts {
        ground: Ground {
            contents,
            volumes: mounted,
            workdir,
        },
        effects,
        secrets: values.collect(),
        environment: app.environment,
        layout,
    })
}

/// `COPY from to`: a folder's files go below the target, a file becomes it or goes into it.
fn copied_to(file: &str, from: &str, to: &str) -> Option<String> {
    let below = file.strip_prefix(from)?;
    if below.is_empty() {
        let name = file.rsplit('/').next().unwrap_or(file);
        return Some(if to.ends_with('/') {
            format!("{to}{name}")
        } else {
            to.to_owned()
        });
    }
    below
        .starts_with('/')
        .then(|| format!("{}{below}", to.trim_end_matches('/')))
}

fn path_with(python: &std::path::Path) -> OsString {
    let mut path = python
        .parent()
        .map(|folder| folder.as_os_str().to_owned())
        .unwrap_or_default();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

impl Core {
    /// Does this container run a function that came over the API?
    pub(crate) fn is_deployed(&self, task_id: &str) -> bool {
        let inner = self.lock();
        let container = inner.state.containers.get(task_id);
        container.is_some_and(|container| {
            app_parts::app_of(&inner.state.rows, &container.function_id).is_some()
        })
    }

    /// Sees to all that a container leaves behind: its last words, its inputs, its files. Takes its time.
    pub(crate) fn end_container(&self, task_id: &str, exit: &crate::fates::Exit) {
        let origin = self.origin(task_id);
        if let Some(origin) = &origin {
            self.logs.skip(origin, self.clock.wall());
            self.pump_logs(task_id, true);
        }
        self.container_ended(task_id, exit);
        if origin.is_some() {
            self.logs.close(task_id);
            clean_up(self, task_id);
            self.logs_bell.notify_waiters();
        }
    }

    /// Takes into the app's log what a container has written, for the call that it works on.
    pub(crate) fn pump_logs(&self, task_id: &str, is_last: bool) {
        let Some(origin) = self.origin(task_id) else {
            return;
        };
        let looks = if is_last { LAST_LOOKS } else { 1 };
        for _ in 0..looks {
            let pumped = self.logs.pump(&origin, self.clock.wall(), is_last);
            if pumped != Pumped::Nothing {
                self.logs_bell.notify_waiters();
            }
            if pumped != Pumped::Part {
                break;
            }
        }
    }

    /// Whose log a container's output goes into, and for which call; none: it is not one of an app.
    fn origin(&self, task_id: &str) -> Option<Origin> {
        let inner = self.lock();
        let container = inner.state.containers.get(task_id)?;
        let deployed = inner
            .functions
            .get(&container.function_id)
            .and_then(|function| function.deployed.as_ref());
        let app_id = deployed
            .map(|deployed| deployed.app_id.clone())
            .or_else(|| app_parts::app_of(&inner.state.rows, &container.function_id))?;
        let mut origin = Origin {
            app_id,
            task_id: task_id.to_owned(),
            function_id: container.function_id.clone(),
            ..Default::default()
        };
        let mut running = container.running.iter();
        if let (Some(input_id), None) = (running.next(), running.next())
            && let Some(input) = inner.state.inputs.get(input_id)
            && let Phase::Running { .. } = input.phase
        {
            origin.input_id.clone_from(input_id);
            origin.function_call_id.clone_from(&input.function_call_id);
        }
        Some(origin)
    }
}
