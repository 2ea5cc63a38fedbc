"""Asks timetables of users' own classes for dates and run ids, through Airflow's own code.

Started by the host when a tick or a command needs to know, with a private socket as its stdin; frames are `!I` and that
many bytes of JSON, one answer a request. The host ends it when an answer takes too long: it keeps nothing.

    -> {"op": "next", "timetable", "restriction": {"earliest", "latest", "catchup"}, "last": Run or null}
    <- {"next": Next or null}
    -> {"op": "name", "timetable", "run_type", "run_after", "start", "end", "partition_key"}     <- {"run_id"}
    -> {"op": "manual", "timetable", "run_type", "run_after", "interval_at": date or null, "name": bool}
    <- {"start", "end", "run_id"}
    any of them: {"failed": text}

    Run: {"logical_date", "start", "end", "run_after", "partition_key", "partition_date"}
    Next: {"logical_date", "start", "end", "run_after", "partition_key", "partition_date", "run_id"}
"""

import json
import os
import socket
import struct
import sys
import traceback
from datetime import datetime


def main():
    link = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # Whatever a timetable prints is talk.
    import ctypes

    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: the URL in our environment is nobody's business.
    import airflow
    from airflow import plugins_manager
    from airflow.models.dagrun import DagRun  # noqa: F401
    from airflow.serialization import decoders  # noqa: F401
    from sqlalchemy.orm import configure_mappers

    configure_mappers()
    plugins_manager.get_timetables_plugins()
    send(link, {"event": "ready", "airflow": airflow.__version__})
    while (request := receive(link)) is not None:
        send(link, handle(request))


def handle(request):
    try:
        from airflow.serialization.decoders import decode_timetable

        timetable = decode_timetable(request["timetable"])
        return {"next": next_run, "name": name, "manual": manual}[request["op"]](timetable, request)
    except BaseException as error:  # noqa: BLE001 - also the SystemExit of a user's class.
        return {"failed": what_went_wrong(error)}


def next_run(timetable, request):
    """airflow: DagModel.calculate_dagrun_date_fields, SerializedDAG.next_dagrun_info"""
    from airflow.timetables.base import TimeRestriction

    given = request["restriction"]
    restriction = TimeRestriction(date(given["earliest"]), date(given["latest"]), given["catchup"])
    last = None
    if request["last"] is not None:
        last = timetable.run_info_from_dag_run(dag_run=dag_run(request["last"]))
    info = timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    if info is None:
        return {"next": None}
    interval = info.data_interval
    run_after = date(info.run_after)
    return {
        "next": {
            "logical_date": text(info.logical_date),
            "start": interval and text(interval.start),
            "end": interval and text(interval.end),
            "run_after": text(run_after),
            "partition_key": info.partition_key,
            "partition_date": text(info.partition_date),
            "run_id": run_id(timetable, "scheduled", run_after, interval, info.partition_key),
        }
    }


def name(timetable, request):
    """airflow: SchedulerJobRunner._create_dag_runs"""
    interval = data_interval(request["start"], request["end"])
    run_after = date(request["run_after"])
    return {"run_id": run_id(timetable, request["run_type"], run_after, interval, request["partition_key"])}


def manual(timetable, request):
    """airflow: api.common.trigger_dag._trigger_dag"""
    interval = None
    if request["interval_at"] is not None:
        interval = timetable.infer_manual_data_interval(run_after=date(request["interval_at"]))
    answer = {"start": interval and text(interval.start), "end": interval and text(interval.end), "run_id": None}
    if request["name"]:
        from airflow.utils.types import DagRunType

        answer["run_id"] = timetable.generate_run_id(
            run_type=DagRunType(request["run_type"]), run_after=date(request["run_after"]), data_interval=interval
        )
    return answer


def run_id(timetable, run_type, run_after, interval, partition_key):
    from airflow.utils.types import DagRunType

    return timetable.generate_run_id(
        run_type=DagRunType(run_type), run_after=run_after, data_interval=interval, partition_key=partition_key
    )


def dag_run(run):
    """What `run_info_from_dag_run` looks at, of no session."""
    from airflow.models.dagrun import DagRun

    made = DagRun(
        logical_date=date(run["logical_date"]),
        run_after=date(run["run_after"]),
        data_interval=data_interval(run["start"], run["end"]),
    )
    made.partition_key = run["partition_key"]
    made.partition_date = date(run["partition_date"])
    return made


def data_interval(start, end):
    from airflow.timetables.base import DataInterval

    return DataInterval(date(start), date(end)) if start and end else None


def date(value):
    from airflow._shared.timezones import timezone

    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return timezone.coerce_datetime(value)


def text(value):
    return value and date(value).isoformat()


def what_went_wrong(error):
    """The user's part of the traceback: ours and Airflow's frames above it say nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    while len(frames) > 1 and frames[0].filename == __file__:
        frames.pop(0)
    lines = traceback.format_list(frames)[-6:] + traceback.format_exception_only(error)
    return "".join(lines).replace("\0", "\\0")


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
