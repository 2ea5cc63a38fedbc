"""Records what Airflow's own Execution API answers, and what it leaves in the database, as data for the tests.

Needs a Python with Airflow 3.3.2 and a Postgres with a database `airflow_template` that `airflow db migrate` made:

    MODALFLOW_TEST_DATABASE_URL=postgresql://postgres@127.0.0.1:5432/postgres python record/record.py

Writes data/fixture.sql, data/answers.json and data/effects.json from data/requests.json. It is run by hand, when the
pinned Airflow changes or a request is added.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from urllib.error import HTTPError, URLError

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent / "data"
URL = os.environ["MODALFLOW_TEST_DATABASE_URL"]
SERVER, _, _ = URL.rpartition("/")
DATABASE = "execution_api_record"
SECRET = "a secret for tests that is at least sixty-four bytes long, as HS512 wants it to be"
FERNET_KEY = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
PORT = 18472
HOME = tempfile.mkdtemp(prefix="record-")

os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__FERNET_KEY=FERNET_KEY,
    AIRFLOW__CORE__DAGS_FOLDER=str(HERE / "dags"),
    AIRFLOW__API_AUTH__JWT_SECRET=SECRET,
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"{SERVER}/{DATABASE}".replace("postgresql://", "postgresql+psycopg2://"),
    AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
)


def ti_id(number):
    return f"00000000-0000-7000-8000-{number:012d}"


# Fixed ids, so that requests can name them. (alias, dag, run, task, map_index, state)
TASK_INSTANCES = [
    (1, "demo", "r1", "push", -1, "queued"),
    (2, "demo", "r1", "pull", -1, "queued"),
    (3, "demo", "r1", "skips", -1, "queued"),
    (4, "demo", "r1", "sensor", -1, "queued"),
    (5, "demo", "r1", "defers", -1, "queued"),
    (6, "demo", "r1", "branch", -1, "queued"),
    (7, "demo", "r1", "left", -1, None),
    (8, "demo", "r1", "right", -1, None),
    (9, "demo", "r1", "named", -1, "queued"),
    (10, "demo", "r1", "asks", -1, "queued"),
    (11, "demo", "r1", "trig", -1, "queued"),
    (12, "demo", "r1", "fails", -1, "queued"),
    (13, "demo", "r1", "asset_out", -1, "queued"),
    (14, "demo", "r1", "g.one", -1, "success"),
    (15, "demo", "r1", "g.inner.two", -1, "failed"),
    (16, "demo", "r1", "square", 0, "running"),
    (17, "demo", "r1", "square", 1, "queued"),
    (18, "demo", "r1", "square", 2, "queued"),
    (19, "demo", "r1", "late", -1, "queued"),
    (20, "demo", "r0", "push", -1, "success"),
    (21, "demo", "r0", "late", -1, "failed"),
    (30, "fast", "f1", "boom", -1, "queued"),
    (31, "fast", "f1", "busy", -1, "running"),
    (32, "fast", "f1", "waiting", -1, None),
    (33, "fast", "f1", "done", -1, "success"),
    (34, "fast", "f1", "cleanup", -1, None),
    (40, "other", "o0", "e", -1, "success"),
]
RUNS = [
    ("demo", "r0", "success", "2024-01-01", "2024-01-01 06:00+00"),
    ("demo", "r1", "running", "2024-01-02", "2024-01-02 06:00+00"),
    ("fast", "f1", "running", "2024-01-01", None),
    ("other", "o0", "success", "2024-01-01", "2024-01-01 07:00+00"),
]


def psql(sql, database="postgres"):
    subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", f"{SERVER}/{database}", "-c", sql], check=True)


def populate():
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models import Connection, Variable
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
        session.commit()
        bag = DagBag(HERE / "dags", bundle_name="dags-folder", bundle_path=HERE / "dags")
        assert not bag.import_errors, bag.import_errors
        update_dag_parsing_results_in_db(
            "dags-folder", None, [LazyDeserializedDAG.from_dag(dag) for dag in bag.dags.values()],
            {}, None, set(), session,
        )
        session.commit()
        session.add(Variable(key="v1", val="swordfish"))
        session.add(Variable(key="deep/v2", val="two", description="d"))
        session.add(Connection(conn_id="c1", conn_type="http", host="h.example", login="u", password="p4ss!", port=80, extra='{"k": "v"}'))
        session.add(Connection(conn_id="bare", conn_type="generic"))
    psql("UPDATE dag SET is_paused = (dag_id = 'sleeping')", DATABASE)
    psql("DELETE FROM asset_active WHERE name = 'gone'", DATABASE)
    for dag, run, state, date, end in RUNS:
        psql(
            f"""INSERT INTO dag_run (dag_id, run_id, state, run_type, triggered_by, logical_date, data_interval_start,
                  data_interval_end, run_after, queued_at, start_date, end_date, conf, log_template_id, created_at,
                  updated_at, clear_number, span_status, triggering_user_name, context_carrier, created_dag_version_id)
                SELECT '{dag}', '{run}', '{state}', 'manual', 'CLI', '{date}Z', '{date}Z', '{date}Z', '{date} 00:00:01.5Z',
                  '{date}Z', '{date} 05:00Z', {f"'{end}'" if end else 'NULL'}, '{{"n": 1.0, "big": 12345678901234567890123}}', 1,
                  '{date}Z', '{date}Z', 0, 'not_started', 'ada',
                  '{{"__type": "dict", "__var": {{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}}',
                  (SELECT id FROM dag_version WHERE dag_id = '{dag}')""",
            DATABASE,
        )
    for number, dag, run, task, index, state in TASK_INSTANCES:
        retries = {"fails": 2, "e": 1}.get(task, 0)
        running = state == "running"
        finished = state in ("success", "failed")
        psql(
            f"""INSERT INTO task_instance (id, dag_id, run_id, task_id, map_index, state, try_number, max_tries, hostname,
                  unixname, pid, pool, pool_slots, queue, priority_weight, operator, custom_operator_name, executor_config,
                  span_status, task_display_name, dag_version_id, start_date, end_date, duration, updated_at, context_carrier)
                SELECT '{ti_id(number)}', '{dag}', '{run}', '{task}', {index}, {f"'{state}'" if state else 'NULL'},
                  {0 if state is None else 1}, {retries}, '{"h" if running else ""}', 'airflow', {7 if running else 'NULL'},
                  'default_pool', 1, 'default', 1, 'EmptyOperator', 'EmptyOperator', '\\x80057d942e', 'not_started', '{task}',
                  (SELECT id FROM dag_version WHERE dag_id = '{dag}'),
                  {"'2024-01-02 05:00Z'" if running or finished else 'NULL'}, {"'2024-01-02 05:01Z'" if finished else 'NULL'},
                  {60 if finished else 'NULL'}, '2024-01-02Z',
                  '{{"__type": "dict", "__var": {{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}}'""",
            DATABASE,
        )


def dump():
    tables = [
        "dag_bundle", "dag", "dag_tag", "dag_version", "serialized_dag", "asset", "asset_active", "asset_alias",
        "dag_schedule_asset_reference", "dag_schedule_asset_alias_reference", "task_outlet_asset_reference",
        "dag_run", "task_instance", "variable", "connection",
    ]
    command = ["pg_dump", "--data-only", "--column-inserts", "--no-owner", f"{SERVER}/{DATABASE}"]
    text = subprocess.run(
        command + [flag for table in tables for flag in ("-t", f"public.{table}")],
        check=True, capture_output=True, text=True,
    ).stdout
    lines = [line for line in text.splitlines() if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))]
    folder = re.escape(str(HERE / "dags"))
    text = re.sub(folder, "/dags", "\n".join(lines)) + "\n"
    (DATA / "fixture.sql").write_text("-- Written by record.py. Loaded into a database that `airflow db migrate` made.\n" + text)


def mint(subject, scope="execution", **other):
    import jwt

    now = int(time.time())
    claims = {"sub": subject, "scope": scope, "jti": "0" * 32, "aud": "urn:airflow.apache.org:task", "nbf": now, "iat": now, "exp": now + 6000}
    claims |= other
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, SECRET, algorithm="HS512", headers={"kid": "not-used"})


def ask(request):
    headers = {"airflow-api-version": "2026-06-30"} | request.get("headers", {})
    if "as" in request:
        headers["Authorization"] = "Bearer " + mint(ti_id(request["as"]), request.get("scope", "execution"))
    body = None
    if "body" in request:
        body = json.dumps(request["body"]).encode()
        headers["content-type"] = "application/json"
    path = re.sub(r"\{(\d+)\}", lambda match: ti_id(int(match[1])), request["path"])
    if "sql" in request:
        psql(request["sql"], DATABASE)
    call = urllib.request.Request(f"http://127.0.0.1:{PORT}/execution/{path}", body, headers, method=request["method"])
    try:
        with urllib.request.urlopen(call) as response:
            return answer(response.status, response.headers, response.read())
    except HTTPError as error:
        return answer(error.code, error.headers, error.read())


def answer(status, headers, body):
    found = {"status": status, "body": json.loads(body) if body else None}
    if "content-range" in headers:
        found["content-range"] = headers["content-range"]
    if "refreshed-api-token" in headers:
        found["refreshed"] = True
    return found


EFFECTS = pathlib.Path(HERE / "effects.sql").read_text()


def effects():
    tables = {}
    for statement in EFFECTS.split(";"):
        match = re.search(r"FROM (\w+)", statement)
        if not match:
            continue
        text = subprocess.run(
            ["psql", "-qAt", f"{SERVER}/{DATABASE}", "-c", f"SET timezone = 'UTC'; SELECT coalesce(json_agg(row), '[]') FROM ({statement}) row"],
            check=True, capture_output=True, text=True,
        ).stdout
        tables[match[1]] = json.loads(text)
    return tables


def main():
    psql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    psql(f"CREATE DATABASE {DATABASE} TEMPLATE airflow_template")
    populate()
    dump()
    requests = json.loads((DATA / "requests.json").read_text())
    server = subprocess.Popen(
        [pathlib.Path(sys.executable).parent / "airflow", "api-server", "--apps", "execution", "--host", "127.0.0.1", "--port", str(PORT)],
        stdout=open(f"{HOME}/server.log", "w"), stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/execution/health").read()
                break
            except (URLError, ConnectionError):
                time.sleep(0.5)
        answers = {request["name"]: ask(request) for request in requests}
        assert len(answers) == len(requests), "two requests have one name"
    finally:
        server.terminate()
        server.wait()
    (DATA / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    (DATA / "effects.json").write_text(json.dumps(effects(), indent=1) + "\n")
    print(f"{len(answers)} answers; server log in {HOME}")


main()
