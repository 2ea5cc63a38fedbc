//! All RPCs and who answers them. Each is one line in the table; what is not in it answers UNIMPLEMENTED with its name (see `front`).
//!
//! Callers and containers come through doors of their own but to the same table, as on Modal: a container may do what its owner may.

use std::sync::{Arc, Weak};

use modal_api::{
    verbatim::FunctionCreateRequest,
    wire::{self, modal_client_server::ModalClient},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait, codegen::BoxStream};

use crate::{
    apps, ask::Ask, blobs, bound, caller_service as calls, classes, container_service as container,
    core::Core, definitions, dicts, images, log_service, mounts, publish, queues, secrets, session,
    streams, tasks, volume_copy, volume_files as files, volume_lists, volumes,
};

pub(crate) struct Service {
    core: Weak<Core>,
    /// Whose socket this is; none: callers'.
    task_id: Option<String>,
    halt: CancellationToken,
}

impl Service {
    pub(crate) fn new(core: &Arc<Core>, task_id: Option<String>, halt: CancellationToken) -> Self {
        Self {
            core: Arc::downgrade(core),
            task_id,
            halt,
        }
    }

    fn ask<T>(&self, request: Request<T>) -> Result<(Ask, T), Status> {
        let core = self
            .core
            .upgrade()
            .ok_or_else(|| Status::unavailable("the emulator has ended"))?;
        let header = |name: &str| {
            let value = request.metadata().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (key, client_version) = (header(wire::IDEMPOTENCY_KEY), header(wire::CLIENT_VERSION));
        let ask = Ask {
            core,
            key,
            client_version,
            task_id: self.task_id.clone(),
            halt: self.halt.clone(),
        };
        Ok((ask, request.into_inner()))
    }
}

fn stream<T: Send + 'static>(items: Vec<T>) -> BoxStream<T> {
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))
}

/// On a thread of its own: files take their time, and heartbeats must not wait for them.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Status::internal(format!("file work failed: {error}"))))
}

/// `at_once` is answered without waiting, `on_disk` works on files, `waits` may take its time, `follows` streams what comes,
/// `lists` streams what there is now, `lists_disk` what files there are.
macro_rules! table {
    (
        at_once { $($now:ident: $now_in:ty => $now_out:ty, $now_by:path;)* }
        on_disk { $($file:ident: $file_in:ty => $file_out:ty, $file_by:path;)* }
        waits { $($later:ident: $later_in:ty => $later_out:ty, $later_by:path;)* }
        follows { $($stream:ident: $stream_in:ty => $stream_out:ty, $stream_by:path;)* }
        lists { $($list:ident: $list_in:ty => $list_out:ty, $list_by:path;)* }
        lists_disk { $($folder:ident: $folder_in:ty => $folder_out:ty, $folder_by:path;)* }
    ) => {
        #[async_trait]
        impl ModalClient for Service {
            $(
                async fn $now(&self, request: Request<$now_in>) -> Result<Response<$now_out>, Status> {
                    let (ask, request) = self.ask(request)?;
                    $now_by(&ask, request).map(Response::new)
                }
            )*
            $(
                async fn $file(&self, request: Request<$file_in>) -> Result<Response<$file_out>, Status> {
                    let (ask, request) = self.ask(request)?;
                    aside(move || $file_by(&ask, request)).await.map(Response::new)
                }
            )*
            $(
                async fn $later(&self, request: Request<$later_in>) -> Result<Response<$later_out>, Status> {
                    let (ask, request) = self.ask(request)?;
                    $later_by(&ask, request).await.map(Response::new)
                }
            )*
            $(
                async fn $stream(&self, request: Request<$stream_in>) -> Result<Response<BoxStream<$stream_out>>, Status> {
                    let (ask, request) = self.ask(request)?;
                    $stream_by(ask, request).map(Response::new)
                }
            )*
            $(
                async fn $list(&self, request: Request<$list_in>) -> Result<Response<BoxStream<$list_out>>, Status> {
                    let (ask, request) = self.ask(request)?;
                    $list_by(&ask, request).map(stream).map(Response::new)
                }
            )*
            $(
                async fn $folder(&self, request: Request<$folder_in>) -> Result<Response<BoxStream<$folder_out>>, Status> {
                    let (ask, request) = self.ask(request)?;
                    aside(move || $folder_by(&ask, request)).await.map(stream).map(Response::new)
                }
            )*
        }
    };
}

table! {
    at_once {
        client_hello: () => wire::ClientHelloResponse, session::hello;
        auth_token_get: wire::AuthTokenGetRequest => wire::AuthTokenGetResponse, session::auth_token;
        token_info_get: wire::TokenInfoGetRequest => wire::TokenInfoGetResponse, session::token_info;
        workspace_name_lookup: () => wire::WorkspaceNameLookupResponse, session::workspace;
        environment_get_or_create: wire::EnvironmentGetOrCreateRequest => wire::EnvironmentGetOrCreateResponse, session::get_or_create;
        environment_list: () => wire::EnvironmentListResponse, session::list;
        environment_create: wire::EnvironmentCreateRequest => (), session::create;
        environment_delete: wire::EnvironmentDeleteRequest => (), session::delete;

        dict_get_or_create: wire::DictGetOrCreateRequest => wire::DictGetOrCreateResponse, dicts::get_or_create;
        dict_get_by_id: wire::DictGetByIdRequest => wire::DictGetByIdResponse, dicts::get_by_id;
        dict_heartbeat: wire::DictHeartbeatRequest => (), dicts::heartbeat;
        dict_update: wire::DictUpdateRequest => wire::DictUpdateResponse, dicts::update;
        dict_get: wire::DictGetRequest => wire::DictGetResponse, dicts::get;
        dict_pop: wire::DictPopRequest => wire::DictPopResponse, dicts::pop;
        dict_contains: wire::DictContainsRequest => wire::DictContainsResponse, dicts::contains;
        dict_len: wire::DictLenRequest => wire::DictLenResponse, dicts::len;
        dict_clear: wire::DictClearRequest => (), dicts::clear;
        dict_delete: wire::DictDeleteRequest => (), dicts::delete;
        dict_list: wire::DictListRequest => wire::DictListResponse, dicts::list;

        queue_get_or_create: wire::QueueGetOrCreateRequest => wire::QueueGetOrCreateResponse, queues::get_or_create;
        queue_get_by_id: wire::QueueGetByIdRequest => wire::QueueGetByIdResponse, queues::get_by_id;
        queue_heartbeat: wire::QueueHeartbeatRequest => (), queues::heartbeat;
        queue_put: wire::QueuePutRequest => (), queues::put;
        queue_len: wire::QueueLenRequest => wire::QueueLenResponse, queues::len;
        queue_clear: wire::QueueClearRequest => (), queues::clear;
        queue_delete: wire::QueueDeleteRequest => (), queues::delete;
        queue_list: wire::QueueListRequest => wire::QueueListResponse, queues::list;

        secret_get_or_create: wire::SecretGetOrCreateRequest => wire::SecretGetOrCreateResponse, secrets::get_or_create;
        secret_get_info: wire::SecretGetInfoRequest => wire::SecretGetInfoResponse, secrets::get_info;
        secret_update: wire::SecretUpdateRequest => (), secrets::update;
        secret_list: wire::SecretListRequest => wire::SecretListResponse, secrets::list;
        secret_delete: wire::SecretDeleteRequest => (), secrets::delete;

        blob_create: wire::BlobCreateRequest => wire::BlobCreateResponse, blobs::create;
        blob_get: wire::BlobGetRequest => wire::BlobGetResponse, blobs::get;
        mount_get_or_create: wire::MountGetOrCreateRequest => wire::MountGetOrCreateResponse, mounts::get_or_create;

        volume_get_or_create: wire::VolumeGetOrCreateRequest => wire::VolumeGetOrCreateResponse, volumes::get_or_create;
        volume_get_by_id: wire::VolumeGetByIdRequest => wire::VolumeGetByIdResponse, volumes::get_by_id;
        volume_heartbeat: wire::VolumeHeartbeatRequest => (), volumes::heartbeat;
        volume_list: wire::VolumeListRequest => wire::VolumeListResponse, volumes::list;
        volume_rename: wire::VolumeRenameRequest => (), volumes::rename;
        volume_commit: wire::VolumeCommitRequest => wire::VolumeCommitResponse, volumes::commit;
        volume_reload: wire::VolumeReloadRequest => (), volumes::reload;

        app_create: wire::AppCreateRequest => wire::AppCreateResponse, apps::create;
        app_get_or_create: wire::AppGetOrCreateRequest => wire::AppGetOrCreateResponse, apps::get_or_create;
        app_get_by_deployment_name: wire::AppGetByDeploymentNameRequest => wire::AppGetByDeploymentNameResponse, apps::by_name;
        app_heartbeat: wire::AppHeartbeatRequest => (), apps::heartbeat;
        app_client_disconnect: wire::AppClientDisconnectRequest => (), apps::client_disconnect;
        app_stop: wire::AppStopRequest => (), apps::stop;
        app_list: wire::AppListRequest => wire::AppListResponse, apps::list;
        app_get_info: wire::AppGetInfoRequest => wire::AppGetInfoResponse, apps::info;
        app_get_lifecycle: wire::AppGetLifecycleRequest => wire::AppGetLifecycleResponse, apps::lifecycle;
        app_set_tags: wire::AppSetTagsRequest => (), apps::set_tags;
        app_get_tags: wire::AppGetTagsRequest => wire::AppGetTagsResponse, apps::get_tags;
        app_get_layout: wire::AppGetLayoutRequest => wire::AppGetLayoutResponse, publish::layout;
        app_publish: wire::AppPublishRequest => wire::AppPublishResponse, publish::publish;
        app_rollback: wire::AppRollbackRequest => wire::AppRollbackResponse, publish::rollback;
        app_rollover: wire::AppRolloverRequest => wire::AppRolloverResponse, publish::rollover;
        app_deployment_history: wire::AppDeploymentHistoryRequest => wire::AppDeploymentHistoryResponse, publish::history;
        app_fetch_logs: wire::AppFetchLogsRequest => wire::AppFetchLogsResponse, log_service::fetch;
        app_count_logs: wire::AppCountLogsRequest => wire::AppCountLogsResponse, log_service::count;
        image_get_or_create: wire::ImageGetOrCreateRequest => wire::ImageGetOrCreateResponse, images::get_or_create;
        image_from_id: wire::ImageFromIdRequest => wire::ImageFromIdResponse, images::from_id;
        function_precreate: wire::FunctionPrecreateRequest => wire::FunctionPrecreateResponse, definitions::precreate;
        function_create: FunctionCreateRequest => wire::FunctionCreateResponse, definitions::create;
        function_get_by_id: wire::FunctionGetByIdRequest => wire::FunctionGetByIdResponse, definitions::by_id;
        function_bind_params: wire::FunctionBindParamsRequest => wire::FunctionBindParamsResponse, bound::bind;
        function_update_scheduling_params: wire::FunctionUpdateSchedulingParamsRequest => wire::FunctionUpdateSchedulingParamsResponse, bound::update_scheduling;
        class_create: wire::ClassCreateRequest => wire::ClassCreateResponse, classes::create;
        class_get: wire::ClassGetRequest => wire::ClassGetResponse, classes::get;
        task_list: wire::TaskListRequest => wire::TaskListResponse, tasks::list;
        task_get_info: wire::TaskGetInfoRequest => wire::TaskGetInfoResponse, tasks::info;
        container_stop: wire::ContainerStopRequest => wire::ContainerStopResponse, tasks::stop;

        function_get: wire::FunctionGetRequest => wire::FunctionGetResponse, calls::function_get;
        function_map: wire::FunctionMapRequest => wire::FunctionMapResponse, calls::function_map;
        function_put_inputs: wire::FunctionPutInputsRequest => wire::FunctionPutInputsResponse, calls::function_put_inputs;
        function_call_cancel: wire::FunctionCallCancelRequest => (), calls::function_call_cancel;
        function_finish_inputs: wire::FunctionFinishInputsRequest => (), calls::function_finish_inputs;
        function_call_from_id: wire::FunctionCallFromIdRequest => wire::FunctionCallFromIdResponse, tasks::call_from_id;
        function_call_get_info: wire::FunctionCallGetInfoRequest => wire::FunctionCallGetInfoResponse, tasks::call_info;
        function_get_current_stats: wire::FunctionGetCurrentStatsRequest => wire::FunctionStats, tasks::stats;
        function_call_fetch: wire::FunctionCallFetchRequest => wire::FunctionCallFetchResponse, calls::function_call_fetch;

        container_hello: () => (), container::hello;
        function_call_put_data_out: wire::FunctionCallPutDataRequest => (), streams::put;
        function_get_dynamic_concurrency: wire::FunctionGetDynamicConcurrencyRequest => wire::FunctionGetDynamicConcurrencyResponse, container::dynamic_concurrency;
        task_result: wire::TaskResultRequest => (), container::task_result;
        container_server_lifecycle_ready: wire::ContainerServerLifecycleReadyRequest => (), container::server_ready;
    }
    on_disk {
        volume_put_files: wire::VolumePutFilesRequest => (), files::put;
        volume_put_files2: wire::VolumePutFiles2Request => wire::VolumePutFiles2Response, files::put2;
        volume_get_file: wire::VolumeGetFileRequest => wire::VolumeGetFileResponse, files::get;
        volume_get_file2: wire::VolumeGetFile2Request => wire::VolumeGetFile2Response, files::get2;
        volume_remove_file: wire::VolumeRemoveFileRequest => (), files::remove;
        volume_remove_file2: wire::VolumeRemoveFile2Request => (), files::remove2;
        volume_copy_files: wire::VolumeCopyFilesRequest => (), volume_copy::copy;
        volume_copy_files2: wire::VolumeCopyFiles2Request => (), volume_copy::copy2;
        volume_delete: wire::VolumeDeleteRequest => (), volumes::delete;
        mount_put_file: wire::MountPutFileRequest => wire::MountPutFileResponse, mounts::put_file;
        function_put_outputs: wire::FunctionPutOutputsRequest => (), container::put_outputs;
        mount_batched_check_existence: wire::MountBatchedCheckExistenceRequest => wire::MountBatchedCheckExistenceResponse, mounts::check_existence;
    }
    waits {
        queue_get: wire::QueueGetRequest => wire::QueueGetResponse, queues::get;
        queue_next_items: wire::QueueNextItemsRequest => wire::QueueNextItemsResponse, queues::next_items;
        function_get_outputs: wire::FunctionGetOutputsRequest => wire::FunctionGetOutputsResponse, calls::function_get_outputs;
        container_heartbeat: wire::ContainerHeartbeatRequest => wire::ContainerHeartbeatResponse, container::heartbeat;
        function_get_inputs: wire::FunctionGetInputsRequest => wire::FunctionGetInputsResponse, container::get_inputs;
    }
    follows {
        app_get_logs: wire::AppGetLogsRequest => wire::TaskLogsBatch, log_service::follow;
        function_call_get_data_out: wire::FunctionCallGetDataRequest => wire::DataChunk, streams::get;
    }
    lists {
        image_join_streaming: wire::ImageJoinStreamingRequest => wire::ImageJoinStreamingResponse, images::join;
        dict_contents: wire::DictContentsRequest => wire::DictEntry, dicts::contents;
    }
    lists_disk {
        volume_list_files: wire::VolumeListFilesRequest => wire::VolumeListFilesResponse, volume_lists::list;
        volume_list_files2: wire::VolumeListFiles2Request => wire::VolumeListFiles2Response, volume_lists::list2;
    }
}
