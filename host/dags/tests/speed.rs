//! How long 200 files take, from an empty database. A measurement, run by hand:
//! `cargo test --release -p modalflow-dags --test speed -- --ignored --nocapture`
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "a measurement is for reading")]

mod support;

use std::fmt::Write;
use std::sync::Mutex;
use std::time::Instant;

use dags::{Step, Which};
use support::World;

fn ten_tasks(number: usize) -> String {
    let mut text = format!(
        "import datetime\nfrom airflow.sdk import DAG\nfrom airflow.providers.standard.operators.python import PythonOperator\n\
         with DAG('dag_{number:03}', schedule='@daily', start_date=datetime.datetime(2024, 1, 1)):\n    last = None\n"
    );
    for task in 0..10 {
        write!(
            text,
            "    task = PythonOperator(task_id='t{task}', python_callable=print)\n    if last: last >> task\n    last = task\n"
        )
        .unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn two_hundred_files() {
    let world = World::new().await;
    for number in 0..200 {
        world.put(&format!("dag_{number:03}.py"), ten_tasks(number));
    }
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let started = Instant::now();
    let marks = Mutex::new(Vec::new());
    let watch = |step: Step| {
        let interesting = !matches!(step, Step::Parsed { done, of } if done != 1 && done != of);
        if interesting {
            marks
                .lock()
                .unwrap()
                .push(format!("{step:?} at {:?}", started.elapsed()));
        }
    };
    let report = world.dags.sync(Which::Changed, &watch).await.unwrap();
    let all = started.elapsed();
    assert_eq!(report.new_dags.len(), 200, "{:?}", report.failures().next());
    println!(
        "{}\n200 files from empty: {all:?}",
        marks.lock().unwrap().join("\n")
    );
    for _ in 0..3 {
        let again = Instant::now();
        world.dags.sync(Which::Changed, &watch).await.unwrap();
        println!("200 unchanged files: {:?}", again.elapsed());
    }
    world.put("dag_000.py", ten_tasks(0) + "# changed\n");
    let one = Instant::now();
    world.dags.sync(Which::Changed, &watch).await.unwrap();
    println!("one of them changed, helpers warm: {:?}", one.elapsed());
    world.end().await;
}
