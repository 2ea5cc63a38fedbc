//! The routes: a file each, or one for a few that belong together.

mod dag_run;
mod health;
mod task_instances;
mod xcoms;

use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, patch, put};
use axum::Router;
use http::StatusCode;

use crate::problem::Problem;
use crate::{ApiState, gate};

/// All routes, relative to where the router is mounted.
pub fn router(state: ApiState) -> Router {
    use task_instances as ti;
    Router::new()
        .route("/health", get(health::health))
        .route("/task-instances/{task_instance_id}/run", patch(ti::run::run))
        .route("/task-instances/{task_instance_id}/heartbeat", put(ti::heartbeat::heartbeat))
        .route("/task-instances/{task_instance_id}/state", patch(ti::state::update))
        .route("/task-instances/{task_instance_id}/rtif", put(ti::rendered::put_fields))
        .route(
            "/task-instances/{task_instance_id}/rendered-map-index",
            patch(ti::rendered::name_map_index),
        )
        .route(
            "/task-instances/{task_instance_id}/skip-downstream",
            patch(ti::skip_downstream::skip_downstream),
        )
        .route(
            "/xcoms/{dag_id}/{run_id}/{task_id}/{*key}",
            get(xcoms::read::read).head(xcoms::read::count).post(xcoms::write::set).delete(xcoms::write::delete),
        )
        .fallback(|| async { Problem::not_found_path() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(state.limits.max_body_bytes))
        .layer(middleware::from_fn_with_state(state.clone(), gate::pass))
        .with_state(state)
}
