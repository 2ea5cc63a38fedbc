"""Holds the requests of two recordings against each other, field by field, and prints what differs.

usage: compare_requests.py OURS OFFICIAL
"""

import base64
import json
import re
import sys

WATCHED = """AppCreate AppPublish DictUpdate FunctionBindParams FunctionCallCancel FunctionCreate FunctionMap FunctionPrecreate
ImageGetOrCreate QueuePut SandboxCreate VolumeGetOrCreate VolumePutFiles2""".split()


def plain(value):
    """Ids without their chance, and texts that are compared as they are."""
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return re.sub(r"\b(ap|fu|fc|in|im|mo|vo|st|di|qu|de|en)-[A-Za-z0-9]{22}\b", r"\1-ID", value)
    return value


def recording(path):
    asked = {}
    for line in open(path):
        record = json.loads(line)
        if record["rpc"] in WATCHED:
            asked.setdefault(record["rpc"], []).append(plain(record["request"]))
    for requests in asked.values():
        # What is asked at the same time comes in any order, and what is asked twice is asked once.
        requests[:] = sorted({json.dumps(one, sort_keys=True) for one in requests})
        requests[:] = [json.loads(one) for one in requests]
    return asked


def differences(path, ours, official):
    if ours == official:
        return
    if isinstance(ours, dict) and isinstance(official, dict):
        for key in sorted(ours.keys() | official.keys()):
            yield from differences(f"{path}.{key}", ours.get(key), official.get(key))
    elif isinstance(ours, list) and isinstance(official, list) and len(ours) == len(official):
        for index, (one, other) in enumerate(zip(ours, official)):
            yield from differences(f"{path}[{index}]", one, other)
    else:
        yield f"{path}: ours {json.dumps(ours)}, official {json.dumps(official)}"


ours, official = (recording(path) for path in sys.argv[1:3])
for rpc in WATCHED:
    mine, theirs = ours.get(rpc, []), official.get(rpc, [])
    found = list(differences("", mine, theirs))
    print(f"{rpc}: {len(mine)} and {len(theirs)} requests" + ("" if found else ", the same"))
    for line in found:
        print("  " + line)
