"""Writes what the parser found through Airflow's own code: DAGs, versions, assets, import errors, warnings.

The only process that has the database's URL and sees what DAG files made. It never imports a user's file: it gets
serialized DAGs from the host, which has looked at them. Started with a private socket as its stdin; frames are `!I`
and that many bytes of JSON, one answer a request:

    -> {"op": "sync", "bundle", "root", "files": [File], "present": [path], "gone": bool}
    <- {"dags": {dag_id: {"paused", "new"}}, "errors": {path: text}} or {"failed": text, "passing": bool}

    File: {"path", "fileloc", "seconds", "error": text?, "dags": [data], "warnings": [{"dag_id", "warning_type", "message"}]}
"""

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import traceback
from functools import cache, cached_property


def main():
    link = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # Whatever Airflow prints is talk.
    import ctypes

    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the URL in our environment is nobody's business.
    import airflow
    from airflow.dag_processing import collection  # noqa: F401
    from sqlalchemy.orm import configure_mappers

    configure_mappers()  # Else the first request would wait for it.
    send(link, {"event": "ready", "airflow": airflow.__version__})
    while (request := receive(link)) is not None:
        send(link, handle(request))


def handle(request):
    from sqlalchemy.exc import DBAPIError, OperationalError

    try:
        return sync(request)
    except Exception as error:
        passing = isinstance(error, OperationalError) or (
            isinstance(error, DBAPIError) and error.connection_invalidated
        )
        return {"failed": traceback.format_exc(limit=-4), "passing": passing}


def sync(request):
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    bundle = request["bundle"]
    files = request["files"]
    parsed = {file["path"]: [own_dag(file, request["root"], data) for data in file["dags"]] for file in files}
    ids = [dag.dag_id for dags in parsed.values() for dag in dags]
    with create_session() as session:
        ensure_bundle(bundle, session)
        known = set(session.scalars(select(DagModel.dag_id).where(DagModel.dag_id.in_(ids))))
        errors = {file["path"]: file["error"] for file in files if file["error"] is not None}
        errors |= write(bundle, files, parsed, errors, session)
        note_durations(files, parsed, errors, session)
        retire(bundle, files, parsed, session)
        if request["gone"]:
            forget_gone(bundle, request["present"], session)
        settle_assets(session)
        paused = session.execute(select(DagModel.dag_id, DagModel.is_paused).where(DagModel.dag_id.in_(ids)))
        dags = {dag_id: {"paused": is_paused, "new": dag_id not in known} for dag_id, is_paused in paused}
    given = {file["path"] for file in files if file["error"] is not None}
    return {"dags": dags, "errors": {path: text for path, text in errors.items() if path not in given}}


@cache
def own_dag_class():
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    class OwnDag(LazyDeserializedDAG):
        @cached_property
        def timetable(self):  # Airflow makes it anew each of the sixteen times that it asks.
            return LazyDeserializedDAG.timetable.fget(self)

        def next_dagrun_info(self, **given):
            if type(self.timetable).__module__.startswith("airflow.timetables."):
                return super().next_dagrun_info(**given)
            # A class of the user's own, and one transaction for all files. What gives no answer in time is asked
            # again by the host, in a process that has nothing else to do (timetables.py).
            with time_limit(5):
                return super().next_dagrun_info(**given)

    return OwnDag


@contextlib.contextmanager
def time_limit(seconds):
    def end(*_):
        raise TimeoutError("the timetable gave no answer")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def own_dag(file, root, data):
    """Where a DAG comes from is the host's word, not the file's: Airflow stores the text of whatever `fileloc` names."""
    data["dag"]["fileloc"] = file["fileloc"]
    data["dag"]["relative_fileloc"] = file["path"]
    if "_processor_dags_folder" in data["dag"]:
        data["dag"]["_processor_dags_folder"] = root
    return own_dag_class()(data=data)


def ensure_bundle(name, session):
    from airflow.models.dagbundle import DagBundleModel

    bundle = session.get(DagBundleModel, name)
    if bundle is None:
        session.add(DagBundleModel(name=name))
    elif not bundle.active:
        bundle.active = True
    session.flush()


def write(bundle, files, parsed, errors, session):
    """All files in one batch; if that fails, each by itself, so that one bad DAG costs only its own file.

    Answers the errors of files that parsed but cannot be stored.
    """
    from sqlalchemy.exc import OperationalError

    try:
        with session.begin_nested():
            return update(bundle, files, parsed, errors, session)
    except OperationalError:
        raise
    except Exception:
        session.expire_all()
    found = {}
    for file in files:
        try:
            with session.begin_nested():
                found |= update(bundle, [file], parsed, errors, session)
        except OperationalError:
            raise
        except Exception:
            session.expire_all()
            found[file["path"]] = "the DAG cannot be stored:\n" + traceback.format_exc(limit=-2).replace("\0", "\\0")
            with session.begin_nested():
                update(bundle, [file], {file["path"]: []}, found, session)
    return found


def update(bundle, files, parsed, errors, session):
    """airflow: dag_processing.manager.persist_parsing_result, for several files at once."""
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.models.dagwarning import DagWarning

    paths = {file["path"] for file in files}
    import_errors = {(bundle, path): text for path, text in errors.items() if path in paths}
    given = set(import_errors)
    dags = [dag for path in sorted(paths) for dag in parsed[path]]
    stored = {dag.dag_id for dag in dags}
    warnings = {DagWarning(**w) for file in files for w in file["warnings"] if w["dag_id"] in stored}
    update_dag_parsing_results_in_db(
        bundle_name=bundle,
        bundle_version=None,
        dags=dags,
        import_errors=import_errors,
        parse_duration=None,
        warnings=warnings,
        session=session,
        files_parsed={(bundle, path) for path in paths},
    )
    return {path: text for (_, path), text in import_errors.items() if (bundle, path) not in given}


def note_durations(files, parsed, errors, session):
    from airflow.models.dag import DagModel
    from sqlalchemy import update as update_rows

    rows = [
        {"dag_id": dag.dag_id, "last_parse_duration": file["seconds"]}
        for file in files
        if file["path"] not in errors
        for dag in parsed[file["path"]]
    ]
    if rows:
        session.execute(update_rows(DagModel), rows)


def retire(bundle, files, parsed, session):
    """DAGs that a file held before and holds no longer. Airflow finds them by time (deactivate_stale_dags)."""
    from airflow.models.dag import DagModel
    from sqlalchemy import select, update as update_rows

    paths = [file["path"] for file in files]
    held = {(path, dag.dag_id) for path in paths for dag in parsed[path]}
    rows = session.execute(
        select(DagModel.dag_id, DagModel.relative_fileloc).where(
            DagModel.bundle_name == bundle, DagModel.relative_fileloc.in_(paths), ~DagModel.is_stale
        )
    )
    gone = [dag_id for dag_id, path in rows if (path, dag_id) not in held]
    if gone:
        session.execute(update_rows(DagModel).where(DagModel.dag_id.in_(gone)).values(is_stale=True))


def forget_gone(bundle, present, session):
    """airflow: dag_processing.manager.deactivate_deleted_dags, clear_orphaned_import_errors."""
    from airflow.models.asset import remove_references_to_deleted_dags
    from airflow.models.dag import DagModel
    from airflow.models.errors import ParseImportError
    from sqlalchemy import delete

    if DagModel.deactivate_deleted_dags(bundle_name=bundle, rel_filelocs=present, session=session):
        remove_references_to_deleted_dags(session=session)
    session.execute(
        delete(ParseImportError).where(
            ParseImportError.bundle_name == bundle, ParseImportError.filename.not_in(present)
        )
    )


def settle_assets(session):
    """Assets that nothing refers to any more become inactive; those whose name or URI became free, active.

    airflow: SchedulerJobRunner._update_asset_orphanage
    """
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    if session.scalar(select(AssetModel.id).limit(1)) is None:
        return
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    session.flush()
    runner = SchedulerJobRunner.__new__(SchedulerJobRunner)  # The method only looks for its helpers on it.
    runner._update_asset_orphanage(session=session)


def exactly(link, size):
    data = bytearray()
    while len(data) < size:
        more = link.recv(min(size - len(data), 1 << 20))
        if not more:
            return None
        data += more
    return bytes(data)


def receive(link):
    head = exactly(link, 4)
    if head is None:
        return None
    body = exactly(link, struct.unpack("!I", head)[0])
    return None if body is None else json.loads(body)


def send(link, answer):
    data = json.dumps(answer).encode()
    link.sendall(struct.pack("!I", len(data)) + data)


if __name__ == "__main__":
    sys.exit(main())
