//! Tasks that wait for a person.

use std::time::{Duration, Instant};

use support::TestHost;

#[test]
fn an_answer_sends_the_task_on_and_so_does_the_end_of_patience() {
    let host = TestHost::new();
    host.upload(&["hitl.py"]);
    let _serve = host.serve();
    let run = host.trigger("hitl", &[]);
    let began = Instant::now();
    // What `PATCH …/hitlDetails` of Airflow's api-server writes.
    loop {
        let answered: Option<i32> = host
            .block(
                sqlx::query_scalar(
                    "WITH answered AS ( \
                         UPDATE hitl_detail h SET chosen_options = '[\"yes\"]', params_input = '{\"why\": \"because\"}', \
                                responded_at = now(), responded_by = '{\"id\": \"7\", \"name\": \"ann\"}' \
                           FROM task_instance ti \
                          WHERE ti.id = h.ti_id AND ti.task_id = 'answered' AND ti.state = 'awaiting_input' \
                         RETURNING h.ti_id) \
                     UPDATE task_instance ti SET state = 'scheduled', scheduled_dttm = now(), trigger_id = NULL, \
                            updated_at = now(), \
                            next_kwargs = jsonb_build_object('event', jsonb_build_object( \
                              'chosen_options', '[\"yes\"]'::jsonb, 'params_input', '{\"why\": \"because\"}'::jsonb, \
                              'responded_at', '{\"__classname__\": \"datetime.datetime\", \"__version__\": 2, \
                                \"__data__\": {\"timestamp\": 1767225600.0, \"tz\": {\"__classname__\": \"builtins.tuple\", \
                                \"__version__\": 1, \"__data__\": [\"UTC\", \"pendulum.tz.timezone.Timezone\", 1, true]}}}'::jsonb, \
                              'responded_by_user', '{\"id\": \"7\", \"name\": \"ann\"}'::jsonb, 'timedout', false)) \
                       FROM answered WHERE ti.id = answered.ti_id RETURNING 1",
                )
                .fetch_optional(host.pool()),
            )
            .unwrap();
        if answered.is_some() {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "nobody asks:\n{}",
            host.tasks("hitl", &run)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(host.wait("hitl", &run), "failed");
    insta::assert_snapshot!(host.tasks("hitl", &run), @r"
    answered success 1
    defaults success 1
    times_out failed 1
    ");
    let answer = |task: &str| {
        let mut answer = host.xcom("hitl", &run, task);
        answer["responded_at"].take();
        answer.to_string()
    };
    insta::assert_snapshot!(answer("answered"), @r#"{"chosen_options":["yes"],"params_input":{"why":"because"},"responded_at":null,"responded_by_user":{"id":"7","name":"ann"}}"#);
    insta::assert_snapshot!(answer("defaults"), @r#"{"chosen_options":["no"],"params_input":{"why":"no reason"},"responded_at":null,"responded_by_user":null}"#);
    let log = host
        .run(&[
            "logs",
            "--dag-id",
            "hitl",
            "--run-id",
            &run,
            "--task-id",
            "times_out",
        ])
        .ok();
    assert!(log.contains("HITLTimeoutError"), "{log}");
}
