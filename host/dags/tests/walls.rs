//! What a DAG file can reach while it is parsed: Python and the DAG folder, and no secret.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::sync::Arc;

use support::{Rules, World, filtered};

/// Tries all it can think of, and reports in its own exception.
const THIEF: &str = r#"# airflow dag
import os, socket, ctypes
CANARIES = ["canary" "-3141592", "MODALFLOW_TEST" "_DATABASE_URL"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
said = []

def attempt(name, do):
    try:
        found = do()
        if not isinstance(found, (bytes, str)):
            found = repr(found)
        if isinstance(found, bytes):
            found = found.decode(errors="replace")
        said.append(f"{name}: " + ("THE CANARY" if any(canary in found for canary in CANARIES) else "no canary"))
    except BaseException as error:
        said.append(f"{name}: {type(error).__name__}")

def read(path):
    with open(path, "rb") as file:
        return file.read()

def check(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return repr(result)

def fstat(fd):
    try:
        return os.fstat(fd)
    except OSError:
        return None

def ancestors():
    pid, found = os.getpid(), b""
    while pid > 1:
        pid = int(read(f"/proc/{pid}/stat").decode().rpartition(")")[2].split()[1])
        try:
            found += read(f"/proc/{pid}/environ")
        except OSError as error:
            found += type(error).__name__.encode()
    return found

def everybody():
    found = b""
    for name in os.listdir("/proc"):
        if name.isdigit():
            for part in ("environ", "maps", "root/etc/hostname", "cwd/secrets.json"):
                try:
                    found += read(f"/proc/{name}/{part}")
                except OSError:
                    pass
    return found

attempt("own environment", lambda: repr(dict(os.environ)))
attempt("/proc/self/environ", lambda: read("/proc/self/environ"))
attempt("parents' environ", ancestors)
attempt("everybody's environ", everybody)
attempt("secrets.json", lambda: read(ROOT + "/secrets.json"))
attempt("secrets.json by ..", lambda: read("../../secrets.json"))
attempt("listing of the environment", lambda: os.listdir(ROOT))
attempt("log of the writing process", lambda: read(ROOT + "/dags-room/dag_sync.log"))
attempt("/etc/shadow", lambda: read("/etc/shadow"))
attempt("home of root", lambda: os.listdir(os.path.expanduser("~root")))
attempt("writing beside itself", lambda: open(__file__ + ".new", "w"))
attempt("overwriting itself", lambda: open(__file__, "a"))
attempt("a temporary file", lambda: __import__("tempfile").TemporaryFile().write(b"x"))
attempt("writing to /tmp", lambda: open("/tmp/modalflow-thief", "w"))
attempt("the parser's program", lambda: open(ROOT + "/dags-room/programs/dag_parser/modalflow_walls.py", "a"))
attempt("Airflow's database", lambda: __import__("airflow.settings").settings.Session())
attempt("ptrace of the parser", lambda: check(ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0)))
attempt("signal to the parser", lambda: os.kill(os.getppid(), 0))
attempt("signal to init", lambda: os.kill(1, 0))

said.append("open descriptors: " + repr([fd for fd in range(256) if fstat(fd)]))
said.append("root: " + repr(os.getuid() == 0))
said.append("environment: " + " ".join(sorted(os.environ)))
raise SystemError("\n" + "\n".join(said))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_reach_of_a_dag_file() {
    let world = World::with(
        |settings| {
            settings.sync_environment.push((
                "AIRFLOW__CORE__FERNET_KEY".to_owned(),
                "canary-3141592".to_owned(),
            ));
        },
        Arc::new(Rules),
    )
    .await;
    std::fs::write(world.root.path().join("secrets.json"), "canary-3141592").unwrap();
    // The process that writes lives while the file is parsed.
    world.put("thief.py", THIEF);
    world.sync().await;
    let said = world.import_errors().await;
    let said = filtered(&said, world.root.path());
    assert!(!said.contains("canary-3141592"));
    let said = said
        .split_once("SystemError: ")
        .unwrap_or(("", &said))
        .1
        .to_owned();
    insta::assert_snapshot!(said.trim(), @r#"
    own environment: no canary
    /proc/self/environ: no canary
    parents' environ: no canary
    everybody's environ: no canary
    secrets.json: PermissionError
    secrets.json by ..: PermissionError
    listing of the environment: PermissionError
    log of the writing process: PermissionError
    /etc/shadow: PermissionError
    home of root: PermissionError
    writing beside itself: PermissionError
    overwriting itself: PermissionError
    a temporary file: no canary
    writing to /tmp: PermissionError
    the parser's program: PermissionError
    Airflow's database: RuntimeError
    ptrace of the parser: PermissionError
    signal to the parser: PermissionError
    signal to init: PermissionError
    open descriptors: [0, 1, 2, 3]
    root: False
    environment: AIRFLOW_CONFIG AIRFLOW_HOME AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT AIRFLOW__CORE__DAGS_FOLDER AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE AIRFLOW__CORE__SQL_ALCHEMY_CONN AIRFLOW__DATABASE__SQL_ALCHEMY_CONN AIRFLOW__LOGGING__BASE_LOG_FOLDER AIRFLOW__LOGGING__LOGGING_LEVEL HOME LANG LOGNAME PATH TMPDIR USER _AIRFLOW_PROCESS_CONTEXT
    "#);
    world.end().await;
}

/// A forged result cannot make the writing process store another file's text or load a class.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_result_stays_a_dag_of_its_own_file() {
    let world = World::new().await;
    let secrets = world.root.path().join("secrets.json");
    std::fs::write(&secrets, "canary-3141592").unwrap();
    world.put(
        "forger.py",
        format!(
            "import json, os, struct\nfrom airflow.sdk import DAG\nfrom airflow.serialization.serialized_objects import DagSerialization\n\
             data = DagSerialization.to_dict(DAG('forged'))\n\
             data['dag'].update(fileloc={secrets:?}, relative_fileloc='../../secrets.json')\n\
             body = json.dumps({{'dags': [data], 'inputs': [{secrets:?}, '/etc/shadow']}}).encode()\n\
             os.write(3, struct.pack('!cI', b'R', len(body)) + body)\nos._exit(0)\n",
        ),
    );
    world.sync().await;
    let rows = world
        .rows(
            "SELECT d.dag_id, d.relative_fileloc, (c.source_code LIKE '%canary%')::text, f.outcome
             FROM dag d JOIN dag_code c USING (dag_id) JOIN modalflow.dag_file f ON f.path = d.relative_fileloc",
        )
        .await;
    insta::assert_snapshot!(rows, @r#"forged | forger.py | false | {"kind":"parsed","dag_ids":["forged"],"inputs":[],"asked":[]}"#);
    world.end().await;
}
