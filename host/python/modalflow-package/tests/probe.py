"""The function that the cases deploy in the place of `modalflow.worker.run_workload`: what it does is the task's name."""

import json
import os
import signal
import time
import uuid


def run_workload(call):
    import modal

    work = json.loads(call["workload"])
    if "workload" in work:
        ti = json.loads(work["workload"])["ti"]
        task, key = ti["task_id"], [ti["dag_id"], ti["task_id"], ti["run_id"], ti["try_number"]]
    else:
        task, key = work["command"][4], work["command"]
    starts = modal.Dict.from_name(os.environ["PROBE_DICT"])
    starts[f"{modal.current_function_call_id()} {uuid.uuid4()}"] = key
    starts[f"image of {key[5] if 'command' in work else key[2]}"] = os.environ.get("PROBE_IMAGE", "")
    print(f"{task} begins", flush=True)
    what = task.split(".")[0]
    if what == "hang":
        time.sleep(600)
    if what == "slow":
        time.sleep(3)
    if what == "raise":
        raise ValueError("unlucky")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "left":
        return {"exit_code": 0, "left": True}
    if what == "twice":
        # The first container is at work when the second one comes.
        if list(starts.values()).count(key) > 1:
            return {"exit_code": 0, "left": True}
        time.sleep(600)
    return {"exit_code": 1 if what == "exit_1" else 0}
