//! Waiting for a run: while somebody else serves the environment by looking, else, also when they leave before the run has
//! ended, by serving it ourselves.

use std::process::ExitCode;
use std::time::Duration;

use environment::progress::Stderr;
use environment::{Environment, Placement};
use metadata::callbacks::calls::left_of_run;
use metadata::listing::{RunFilter, runs};
use sqlx::PgPool;

use super::exit;
use crate::executor::Watch;
use crate::house::House;
use crate::local::{self, Local, Seat, is_served, take_seat};
use crate::serve::{self, Until, Wake};

/// How often a waiting command looks; the run itself does not wait for it.
const LOOK: Duration = Duration::from_millis(100);
/// `serve` that is started anew has its seat again by then.
const RESTART: Duration = Duration::from_secs(2);

/// Answers success, or the code of a run that failed.
pub(super) async fn until_ended(
    environment: Environment,
    pool: &PgPool,
    dag_id: &str,
    run_id: &str,
) -> anyhow::Result<ExitCode> {
    let ended = ended(pool, dag_id, run_id);
    if environment.config().placement == Placement::Modal {
        return Ok(code_of(&ended.await?));
    }
    let mut ended = Box::pin(ended);
    let seat = match take_seat(&environment)? {
        Some(seat) => seat,
        None => tokio::select! {
            biased;
            state = &mut ended => return Ok(code_of(&state?)),
            seat = left_seat(&environment) => seat?,
        },
    };
    let mut house = House::open(environment, &Stderr).await?;
    let wake = Wake::default();
    let local = Local::start(&mut house, seat, wake.asker(), &Stderr).await?;
    let mut watch = Watch::new(house.executor.clone(), wake.asker());
    let mut state = None;
    let told = async {
        state = Some(ended.await);
        // Nobody is here afterwards to hand them out.
        callbacks_ended(pool, dag_id, run_id).await;
    };
    serve::run(
        &house,
        &mut watch,
        &wake,
        Until::Told(Box::pin(told)),
        &mut |_| {},
    )
    .await?;
    local.leave().await?;
    let state = state.unwrap_or_else(|| Err(anyhow::anyhow!("stopped before the run ended")))?;
    Ok(code_of(&state))
}

/// Waits until whoever serves the environment has left it, and is not merely restarted.
async fn left_seat(environment: &Environment) -> Result<Seat, local::Error> {
    loop {
        tokio::time::sleep(RESTART).await;
        if is_served(environment)? {
            continue;
        }
        tokio::time::sleep(RESTART).await;
        if let Some(seat) = take_seat(environment)? {
            return Ok(seat);
        }
    }
}

fn code_of(state: &str) -> ExitCode {
    if state == "success" {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::MENDABLE)
    }
}

async fn callbacks_ended(pool: &PgPool, dag_id: &str, run_id: &str) {
    while let Ok(1..) = left_of_run(pool, dag_id, run_id).await {
        tokio::time::sleep(LOOK).await;
    }
}

async fn ended(pool: &PgPool, dag_id: &str, run_id: &str) -> anyhow::Result<String> {
    let filter = RunFilter {
        dag_id: Some(dag_id.to_owned()),
        run_id: Some(run_id.to_owned()),
        limit: 1,
        ..Default::default()
    };
    loop {
        match runs(pool, &filter).await?.into_iter().next() {
            Some(run) if run.state == "success" || run.state == "failed" => return Ok(run.state),
            Some(_) => tokio::time::sleep(LOOK).await,
            None => anyhow::bail!("run {run_id:?} of DAG {dag_id:?} was deleted"),
        }
    }
}
