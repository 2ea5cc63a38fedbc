//! Images: the files that containers start with, built by the server from Dockerfile commands, a layer a request.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt as _;

use crate::{Client, Error, outcome::GenericStatus, wire};

/// How long one stream of a build's log lives.
const STREAM_SECONDS: f32 = 55.0;
/// Lines of a failed build's log that its error holds.
const LAST_LINES: usize = 80;
/// Streams that break one after the other without bringing anything.
const MOST_BREAKS: u32 = 10;

/// Builders before this one expect the client's requirements inside of the image.
const OLDEST_BUILDER: &str = "2025.06";

/// One layer. Its commands start with `FROM`: a registry's image, or `FROM base` for [`ImageLayer::base`].
#[derive(Debug, Clone, Default)]
pub struct ImageLayer<'a> {
    /// The image id that `base` stands for.
    pub base: Option<&'a str>,
    pub commands: Vec<String>,
    /// Where `COPY` takes its files from; paths are those of the mount. See [`Client::mount_create`].
    pub context_mount_id: Option<&'a str>,
    /// Small files beside the mount, by name.
    pub context_files: BTreeMap<String, Bytes>,
    /// Variables of the build.
    pub secret_ids: Vec<String>,
    pub build_args: BTreeMap<String, String>,
    /// How to sign in to the registry of `FROM`.
    pub registry: Option<Registry<'a>>,
}

/// Credentials of a private registry; the secret has REGISTRY_USERNAME and REGISTRY_PASSWORD, or what AWS or GCP want.
#[derive(Debug, Clone, Copy)]
pub struct Registry<'a> {
    pub kind: wire::RegistryAuthType,
    pub secret_id: &'a str,
}

/// Where a layer is built.
#[derive(Debug, Clone, Copy)]
pub struct ImageBuild<'a> {
    pub app_id: &'a str,
    /// Of the environment; see [`crate::Environment`].
    pub builder_version: &'a str,
    pub force_build: bool,
    pub ignore_cache: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub image_id: String,
    /// True if nothing had to be built.
    pub was_there: bool,
    /// As the server found it in the image, if it has a Python.
    pub python_version: Option<String>,
}

impl Client {
    /// Builds a layer, or finds that the same was built before. `log` hears the build's output, in pieces as they come.
    ///
    /// # Errors
    /// [`Error::ImageBuild`] with the last lines of the log when a command fails; [`Error::Config`] when the builder is too old.
    pub async fn image_build(
        &self,
        layer: ImageLayer<'_>,
        build: ImageBuild<'_>,
        log: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Image, Error> {
        // Versions are dates, so that text order is time order; what is no date is newer than all of them.
        if build.builder_version < OLDEST_BUILDER {
            return Err(Error::Config(format!(
                "image builder {} is too old\nhint: choose {OLDEST_BUILDER} or later in Modal's settings, or set MODAL_IMAGE_BUILDER_VERSION",
                build.builder_version
            )));
        }
        let request = request(layer, build);
        let answer = self
            .caller
            .long(request, async |mut stub, request| {
                stub.image_get_or_create(request).await
            })
            .await?;
        let image_id = answer.image_id;
        let done = answer.result.filter(|result| result.status != 0);
        let was_there = done.is_some();
        let (result, metadata, lines) = match done {
            Some(result) => (result, answer.metadata, Vec::new()),
            None => self.follow_build(&image_id, log).await?,
        };
        match result.status() {
            GenericStatus::Success => Ok(Image {
                image_id,
                was_there,
                python_version: metadata.and_then(|metadata| metadata.python_version_info),
            }),
            status => Err(Error::ImageBuild {
                reason: reason(status, result.exception),
                // A build that failed before is not repeated: its log is asked for once more.
                log: if lines.is_empty() {
                    self.old_log(&image_id).await
                } else {
                    lines
                },
                image_id,
            }),
        }
    }

    /// Follows a build to its end. Streams end after a minute and are opened again where they ended.
    async fn follow_build(
        &self,
        image_id: &str,
        log: &mut (dyn FnMut(&str) + Send),
    ) -> Result<
        (
            wire::GenericResult,
            Option<wire::ImageMetadata>,
            Vec<String>,
        ),
        Error,
    > {
        let mut last_entry_id = String::new();
        let mut lines = Lines::default();
        let mut breaks = 0;
        loop {
            let request = wire::ImageJoinStreamingRequest {
                image_id: image_id.to_owned(),
                timeout: STREAM_SECONDS,
                last_entry_id: last_entry_id.clone(),
                include_logs_for_finished: false,
            };
            let mut stream = self
                .caller
                .stream(request, async |mut stub, request| {
                    stub.image_join_streaming(request).await
                })
                .await?;
            while let Some(item) = stream.next().await {
                let answer = match item {
                    Ok(answer) => answer,
                    Err(status) => {
                        let error = self.caller.failure(status);
                        breaks += 1;
                        if !error.is_passing() || breaks > MOST_BREAKS {
                            return Err(error);
                        }
                        tracing::debug!(%error, image_id, "the log of a build broke off");
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                        break;
                    }
                };
                breaks = 0;
                if !answer.entry_id.is_empty() {
                    last_entry_id = answer.entry_id;
                }
                for piece in answer
                    .task_logs
                    .iter()
                    .filter(|piece| !piece.data.is_empty())
                {
                    log(&piece.data);
                    lines.add(&piece.data);
                }
                if let Some(result) = answer.result.filter(|result| result.status != 0) {
                    return Ok((result, answer.metadata, lines.into_last()));
                }
                if answer.eof {
                    break;
                }
            }
        }
    }

    /// The log of a build that is over. Its failure is already known, so that none of the log's own counts.
    async fn old_log(&self, image_id: &str) -> Vec<String> {
        let request = wire::ImageJoinStreamingRequest {
            image_id: image_id.to_owned(),
            timeout: STREAM_SECONDS,
            last_entry_id: String::new(),
            include_logs_for_finished: true,
        };
        let mut lines = Lines::default();
        let opened = self
            .caller
            .stream(request, async |mut stub, request| {
                stub.image_join_streaming(request).await
            })
            .await;
        if let Ok(mut stream) = opened {
            while let Some(Ok(answer)) = stream.next().await {
                for piece in &answer.task_logs {
                    lines.add(&piece.data);
                }
                if answer.eof || answer.result.is_some_and(|result| result.status != 0) {
                    break;
                }
            }
        }
        lines.into_last()
    }
}

fn request(layer: ImageLayer<'_>, build: ImageBuild<'_>) -> wire::ImageGetOrCreateRequest {
    let base = layer.base.map(|image_id| wire::BaseImage {
        image_id: image_id.to_owned(),
        docker_tag: "base".to_owned(),
    });
    let files = layer.context_files.into_iter();
    let image = wire::Image {
        base_images: base.into_iter().collect(),
        dockerfile_commands: layer.commands,
        context_files: files
            .map(|(filename, data)| wire::ImageContextFile { filename, data })
            .collect(),
        secret_ids: layer.secret_ids,
        context_mount_id: layer.context_mount_id.unwrap_or_default().to_owned(),
        // The official client says "no accelerator" and "no registry" by empty messages.
        gpu_config: Some(wire::GpuConfig::default()),
        image_registry_config: Some(layer.registry.map_or_else(Default::default, |registry| {
            wire::ImageRegistryConfig {
                registry_auth_type: registry.kind.into(),
                secret_id: registry.secret_id.to_owned(),
            }
        })),
        build_args: layer.build_args.into_iter().collect(),
        ..Default::default()
    };
    wire::ImageGetOrCreateRequest {
        image: Some(image),
        app_id: build.app_id.to_owned(),
        force_build: build.force_build,
        namespace: wire::DeploymentNamespace::Workspace.into(),
        builder_version: build.builder_version.to_owned(),
        ignore_cache: build.ignore_cache,
    }
}

fn reason(status: GenericStatus, exception: String) -> String {
    if !exception.is_empty() {
        return exception;
    }
    match status {
        GenericStatus::Terminated => "it was ended from outside; try again".to_owned(),
        GenericStatus::Timeout => "it took too long".to_owned(),
        _ => "a command failed".to_owned(),
    }
}

/// The last lines of a text that comes in pieces.
#[derive(Debug, Default)]
struct Lines {
    whole: std::collections::VecDeque<String>,
    rest: String,
}

impl Lines {
    fn add(&mut self, piece: &str) {
        self.rest += piece;
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            self.whole.push_back(line.trim_end().to_owned());
            if self.whole.len() > LAST_LINES {
                self.whole.pop_front();
            }
        }
    }

    fn into_last(mut self) -> Vec<String> {
        if !self.rest.trim().is_empty() {
            self.whole.push_back(self.rest.trim_end().to_owned());
        }
        self.whole.into()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn a_log_is_cut_to_its_last_lines_wherever_its_pieces_end() {
        let mut lines = Lines::default();
        for number in 0..200 {
            lines.add(&format!("line {number}"));
            lines.add("\r\nli");
            lines.rest.clear();
        }
        lines.add("no end");
        let last = lines.into_last();
        assert_eq!(last.len(), super::LAST_LINES + 1);
        assert_eq!((&*last[0], &*last[80]), ("line 120", "no end"));
    }
}
