CREATE SCHEMA IF NOT EXISTS modalflow;

-- Which version of this file the schema is of.
CREATE TABLE IF NOT EXISTS modalflow.version (version integer NOT NULL);

-- What the executor means to start, committed before the call goes out: a crash in between is repaired by the
-- next tick, which sends the same dispatch_id again. A row lives until the fate of its call is known.
CREATE TABLE IF NOT EXISTS modalflow.dispatch (
    dispatch_id uuid PRIMARY KEY,
    -- The try: task_instance.id changes with each one.
    ti_id uuid NOT NULL UNIQUE,
    -- Modal's function call, once the spawn was acknowledged.
    call_id text,
    -- Spawns that failed, for the backoff.
    failures integer NOT NULL DEFAULT 0,
    not_before timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    spawned_at timestamptz
);

-- Faults of the platform that gave a task instance back to the queue without using up a try.
CREATE TABLE IF NOT EXISTS modalflow.requeue (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    task_id text NOT NULL,
    map_index integer NOT NULL,
    try_number integer NOT NULL,
    count integer NOT NULL,
    last_reason text NOT NULL,
    PRIMARY KEY (dag_id, run_id, task_id, map_index, try_number),
    FOREIGN KEY (dag_id, run_id) REFERENCES public.dag_run (dag_id, run_id) ON DELETE CASCADE
);

ALTER TABLE modalflow.requeue
    -- The next call waits until then.
    ADD COLUMN IF NOT EXISTS not_before timestamptz;

-- Callbacks that still have to run; a row goes when its callback has ended.
CREATE TABLE IF NOT EXISTS modalflow.callback_call (
    callback_id uuid PRIMARY KEY REFERENCES public.callback (id) ON DELETE CASCADE,
    -- The idempotency key of the spawn; null: nobody has looked at the callback yet.
    dispatch_id uuid UNIQUE,
    dag_id text,
    -- The run's run_id; for a callback of a deadline the run's id.
    run_id text,
    call_id text,
    -- Spawns that failed, for the backoff.
    failures integer NOT NULL DEFAULT 0,
    -- Calls that ended before a worker had claimed it.
    repeats integer NOT NULL DEFAULT 0,
    not_before timestamptz,
    spawned_at timestamptz,
    -- The attempt that runs it: set once, so that no callback runs twice.
    claim uuid,
    claimed_at timestamptz
);

-- When a running run wants to be looked at although nothing in it changed.
CREATE TABLE IF NOT EXISTS modalflow.run_wake (
    dag_run_id integer PRIMARY KEY REFERENCES public.dag_run (id) ON DELETE CASCADE,
    -- At a time: retries, pokes, timeouts.
    wake_at timestamptz
);
ALTER TABLE modalflow.run_wake
    ALTER COLUMN wake_at DROP NOT NULL,
    -- When something changes in this run of the same DAG: depends_on_past.
    ADD COLUMN IF NOT EXISTS after_run_id text,
    -- When the DAG is no longer paused.
    ADD COLUMN IF NOT EXISTS is_held boolean NOT NULL DEFAULT false;
CREATE INDEX IF NOT EXISTS run_wake_at ON modalflow.run_wake (wake_at);

-- What is known of each DAG file, so that unchanged content is not parsed again.
CREATE TABLE IF NOT EXISTS modalflow.dag_file (
    path text PRIMARY KEY,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    sha256 text NOT NULL,
    -- Airflow's version, the Python environment and the rules that the outcome was found with.
    parser_hash text NOT NULL,
    parsed_at timestamptz NOT NULL,
    outcome text NOT NULL
);

-- Timetables of users' own classes are Python, and no tick waits for Python: what is to be asked of them, and what
-- they called the run that is due.
CREATE TABLE IF NOT EXISTS modalflow.timetable (
    dag_id text PRIMARY KEY REFERENCES public.dag (dag_id) ON DELETE CASCADE,
    -- When the question was asked that has no answer yet.
    asked_at timestamptz,
    -- The run to compute the next one from; NULL: the newest that the timetable made.
    after_run_id text,
    failures integer NOT NULL DEFAULT 0,
    not_before timestamptz,
    -- The text of the import error that tells of the failure.
    problem text,
    -- The answer: the run due at `run_after` is called `run_id`.
    run_after timestamptz,
    run_id text
);

-- The priority weights of tasks whose weight rule is a class of the user's own, as that said when the file was parsed.
CREATE TABLE IF NOT EXISTS modalflow.task_weights (
    dag_version_id uuid PRIMARY KEY REFERENCES public.dag_version (id) ON DELETE CASCADE,
    -- By task id.
    weights jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Anybody else's write (the UI, the REST API, a Python script) asks for a tick. Our own sessions are left out:
-- they ask by themselves, and would wake the host for each of its own rows.
CREATE OR REPLACE FUNCTION modalflow.wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') IS DISTINCT FROM 'modalflow' THEN
        PERFORM pg_notify('modalflow_wake', '');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER modalflow_wake AFTER INSERT ON public.log
    FOR EACH STATEMENT EXECUTE FUNCTION modalflow.wake();
CREATE OR REPLACE TRIGGER modalflow_wake AFTER INSERT OR UPDATE ON public.dag_run
    FOR EACH STATEMENT EXECUTE FUNCTION modalflow.wake();
CREATE OR REPLACE TRIGGER modalflow_wake AFTER UPDATE ON public.slot_pool
    FOR EACH STATEMENT EXECUTE FUNCTION modalflow.wake();
CREATE OR REPLACE TRIGGER modalflow_wake AFTER UPDATE ON public.task_instance
    FOR EACH STATEMENT EXECUTE FUNCTION modalflow.wake();
CREATE OR REPLACE TRIGGER modalflow_wake AFTER INSERT ON public.asset_dag_run_queue
    FOR EACH STATEMENT EXECUTE FUNCTION modalflow.wake();
CREATE OR REPLACE TRIGGER modalflow_wake AFTER INSERT ON public.partitioned_asset_key_log
    FOR EACH STATEMENT EXECUTE FUNCTION modalflow.wake();

-- Each event and each tick looks for partitions without a run among all that there ever were; Airflow reads them all.
CREATE INDEX IF NOT EXISTS modalflow_open_partitions
    ON public.asset_partition_dag_run (target_dag_id, partition_key) WHERE created_dag_run_id IS NULL;

-- Watchers of assets belong to DAGs that are not paused, and Airflow's sync writes them when it takes in a file: so that
-- of a DAG with watchers is taken in again when somebody pauses or unpauses it. (Airflow parses it all the time.)
CREATE OR REPLACE FUNCTION modalflow.sync_watchers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE modalflow.dag_file f SET parser_hash = ''
     WHERE f.path = NEW.relative_fileloc
       AND EXISTS (SELECT 1 FROM public.serialized_dag s
                    WHERE s.dag_id = NEW.dag_id
                      AND (s.data IS NULL OR s.data::text LIKE '%"watchers"%'));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER modalflow_watchers AFTER UPDATE OF is_paused ON public.dag
    FOR EACH ROW WHEN (OLD.is_paused <> NEW.is_paused)
    EXECUTE FUNCTION modalflow.sync_watchers();

-- Whoever writes a callback that has to run in a worker puts it on our queue.
CREATE OR REPLACE FUNCTION modalflow.queue_callback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO modalflow.callback_call (callback_id) VALUES (NEW.id) ON CONFLICT DO NOTHING;
    IF current_setting('application_name') IS DISTINCT FROM 'modalflow' THEN
        PERFORM pg_notify('modalflow_wake', '');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER modalflow_queue AFTER INSERT OR UPDATE OF state ON public.callback
    FOR EACH ROW WHEN (NEW.type = 'dag_processor' OR NEW.type = 'executor' AND NEW.state = 'pending')
    EXECUTE FUNCTION modalflow.queue_callback();

INSERT INTO modalflow.callback_call (callback_id)
SELECT id FROM public.callback WHERE type = 'dag_processor' OR type = 'executor' AND state = 'pending'
ON CONFLICT DO NOTHING;
