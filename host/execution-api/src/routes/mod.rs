//! The routes: a file each, or one for a few that belong together.

mod asset_events;
mod assets;
mod callbacks;
mod connections;
mod dag_run;
mod dag_runs;
mod dags;
mod health;
mod hitl;
mod stores;
mod task_instances;
mod task_reschedules;
mod variables;
mod xcoms;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, patch, post, put};
use http::StatusCode;

use crate::problem::Problem;
use crate::{ApiState, gate};

/// All routes, relative to where the router is mounted.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .merge(of_task_instances())
        .merge(of_values())
        .merge(of_dags())
        .merge(of_assets())
        .route("/callbacks/{callback_id}/run", patch(callbacks::run))
        .route("/callbacks/{callback_id}/state", patch(callbacks::ended))
        .fallback(|| async { Problem::not_found_path() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(state.limits.max_body_bytes))
        .layer(middleware::from_fn_with_state(state.clone(), gate::pass))
        .with_state(state)
}

fn of_task_instances() -> Router<ApiState> {
    use task_instances as ti;
    Router::new()
        .route(
            "/task-instances/{task_instance_id}/run",
            patch(ti::run::run),
        )
        .route(
            "/task-instances/{task_instance_id}/heartbeat",
            put(ti::heartbeat::heartbeat),
        )
        .route(
            "/task-instances/{task_instance_id}/state",
            patch(ti::state::update),
        )
        .route(
            "/task-instances/{task_instance_id}/rtif",
            put(ti::rendered::put_fields),
        )
        .route(
            "/task-instances/{task_instance_id}/rendered-map-index",
            patch(ti::rendered::name_map_index),
        )
        .route(
            "/task-instances/{task_instance_id}/skip-downstream",
            patch(ti::skip_downstream::skip_downstream),
        )
        .route(
            "/task-instances/{task_instance_id}/previous-successful-dagrun",
            get(ti::context::previous_successful_dagrun),
        )
        .route(
            "/task-instances/{task_instance_id}/validate-inlets-and-outlets",
            get(ti::context::validate_inlets_and_outlets),
        )
        .route("/task-instances/count", get(ti::query::count))
        .route("/task-instances/states", get(ti::query::states))
        .route("/task-instances/breadcrumbs", get(ti::query::breadcrumbs))
        .route(
            "/task-instances/previous/{dag_id}/{task_id}",
            get(ti::query::previous),
        )
        .route(
            "/task-reschedules/{task_instance_id}/start_date",
            get(task_reschedules::start_date),
        )
        .route(
            "/hitlDetails/{task_instance_id}",
            post(hitl::ask).patch(hitl::answer).get(hitl::get),
        )
}

fn of_values() -> Router<ApiState> {
    Router::new()
        .route(
            "/xcoms/{dag_id}/{run_id}/{task_id}/{*key}",
            get(xcoms::read::read)
                .head(xcoms::read::count)
                .post(xcoms::write::set)
                .delete(xcoms::write::delete),
        )
        .route(
            "/variables/keys",
            get(variables::keys)
                .put(variables::put_keys)
                .delete(variables::delete_keys),
        )
        .route(
            "/variables/{*key}",
            get(variables::get)
                .put(variables::put)
                .delete(variables::delete),
        )
        .route("/connections/{connection_id}", get(connections::get))
        .route(
            "/store/ti/{task_instance_id}",
            delete(stores::clear_of_task),
        )
        .route(
            "/store/ti/{task_instance_id}/{*key}",
            get(stores::get_of_task)
                .put(stores::put_of_task)
                .delete(stores::delete_of_task),
        )
}

fn of_dags() -> Router<ApiState> {
    Router::new()
        .route("/dags/{dag_id}", get(dags::get))
        .route("/dag-runs/count", get(dag_runs::query::count))
        .route("/dag-runs/previous", get(dag_runs::query::previous))
        .route(
            "/dag-runs/{dag_id}/{run_id}",
            get(dag_runs::query::get).post(dag_runs::trigger::trigger),
        )
        .route(
            "/dag-runs/{dag_id}/{run_id}/state",
            get(dag_runs::query::state),
        )
        .route(
            "/dag-runs/{dag_id}/{run_id}/clear",
            post(dag_runs::clear::clear),
        )
}

fn of_assets() -> Router<ApiState> {
    Router::new()
        .route("/assets/by-name", get(assets::by_name))
        .route("/assets/by-uri", get(assets::by_uri))
        .route("/assets/by-alias", get(assets::by_alias))
        .route("/asset-events/by-asset", get(asset_events::by_asset))
        .route("/asset-events/by-asset-alias", get(asset_events::by_alias))
        .nest("/store/asset/by-name", stores::of_assets(stores::By::Name))
        .nest("/store/asset/by-uri", stores::of_assets(stores::By::Uri))
}
