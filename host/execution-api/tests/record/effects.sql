-- What the requests leave behind, without what differs from one time to the next: dates of this year are `now`, new ids
-- are left out. Used by record.py and by the test that compares.
SELECT dag_id, run_id, task_id, map_index, state, try_number, max_tries, hostname,
       CASE WHEN try_number > 0 THEN unixname END AS unixname, pid,
       CASE WHEN start_date < '2025-01-01' THEN start_date::text WHEN start_date IS NOT NULL THEN 'now' END AS start_date,
       CASE WHEN end_date < '2025-01-01' THEN end_date::text WHEN end_date IS NOT NULL THEN 'now' END AS end_date,
       CASE WHEN abs(duration) < 1e6 THEN round(duration::numeric, 3) END AS duration,
       last_heartbeat_at IS NOT NULL AS has_heartbeat,
       id::text LIKE '00000000-0000-7000-8000-%' AS keeps_id,
       rendered_map_index, trigger_id IS NOT NULL AS has_trigger, trigger_timeout IS NOT NULL AS has_timeout, next_method,
       nullif(next_kwargs, 'null') AS next_kwargs, retry_delay_override, retry_reason
  FROM task_instance ORDER BY dag_id, run_id, task_id, map_index;
SELECT dag_id, run_id, task_id, map_index, try_number, state, max_tries, hostname, pid, start_date::text AS start_date,
       CASE WHEN end_date < '2025-01-01' THEN end_date::text WHEN end_date IS NOT NULL THEN 'now' END AS end_date,
       CASE WHEN abs(duration) < 1e6 THEN duration END AS duration,
       rendered_map_index, retry_delay_override, retry_reason, task_instance_id
  FROM task_instance_history ORDER BY dag_id, run_id, task_id, map_index, try_number;
SELECT dag_id, run_id, state, run_type, triggered_by, triggering_user_name, conf, logical_date::text AS logical_date,
       data_interval_start IS NOT NULL AS has_interval, clear_number, start_date::text AS start_date,
       end_date::text AS end_date, log_template_id IS NOT NULL AS has_template,
       created_dag_version_id IS NOT NULL AS has_version, span_status
  FROM dag_run ORDER BY dag_id, run_id;
SELECT dag_id, run_id, task_id, map_index, try_number, event, logical_date::text AS logical_date, owner, extra
  FROM log WHERE event <> 'trigger dag run' AND dag_id IS NOT NULL ORDER BY dag_id, run_id, task_id, map_index, id;
SELECT dag_id, run_id, task_id, map_index, key, value, dag_result FROM xcom ORDER BY dag_id, run_id, task_id, map_index, key;
SELECT dag_id, run_id, task_id, map_index, length, keys FROM task_map ORDER BY dag_id, run_id, task_id, map_index;
SELECT dag_id, run_id, task_id, map_index, rendered_fields, k8s_pod_yaml FROM rendered_task_instance_fields ORDER BY dag_id, run_id, task_id, map_index;
SELECT classpath, kwargs::json AS kwargs, queue, team_name FROM trigger ORDER BY classpath;
SELECT ti_id, reschedule_date::text AS reschedule_date, end_date::text AS end_date FROM task_reschedule ORDER BY id;
SELECT e.source_dag_id, e.source_run_id, e.source_task_id, e.source_map_index, a.name, e.extra, e.partition_key
  FROM asset_event e JOIN asset a ON a.id = e.asset_id ORDER BY a.name, e.extra::text;
SELECT a.name, q.target_dag_id FROM asset_dag_run_queue q JOIN asset a ON a.id = q.asset_id ORDER BY a.name, q.target_dag_id;
SELECT l.name AS alias, a.name FROM asset_alias_asset la JOIN asset_alias l ON l.id = la.alias_id JOIN asset a ON a.id = la.asset_id ORDER BY 1, 2;
SELECT ti_id, options, subject, body, defaults, multiple, params, assignees, responded_by, chosen_options, params_input,
       responded_at IS NOT NULL AS is_answered
  FROM hitl_detail ORDER BY ti_id;
SELECT dag_id, run_id, task_id, map_index, key, value::json AS value FROM task_state_store ORDER BY key;
SELECT key, value::json AS value, last_updated_by_kind, last_updated_by_task_id FROM asset_state_store ORDER BY key;
SELECT key, description, is_encrypted FROM variable ORDER BY key;
SELECT content FROM dag_run_note ORDER BY content
