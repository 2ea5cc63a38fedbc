"""`modal deploy`, `run`, `app …` and calls of what was deployed, against the emulator.

Arguments: the app's file, which round it is, and where a container finds its code; in the second round two calls.
"""

import os
import re
import subprocess
import sys
import time

import modal

FILE, ROUND, CODE_FOLDER = sys.argv[1:4]


def run(*words):
    done = subprocess.run(
        [sys.executable, "-m", "modal", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    text = re.sub(r"\b(ap|ta|fc|in|fu)-[A-Za-z0-9]{22}\b", r"\1-ID", done.stdout)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d( UTC|:\d\d\+00:00)", "TIME", text)
    text = re.sub(r"python:3\.\d+\.\d+", "python:VERSION", text)
    text = re.sub(r"\d+\.\d+s", "N s", text).replace(FILE, "FILE")
    text = re.sub(r"[━┏┓┗┛┡┩┃│└┘├┤┬┴┼─┳╇┻]+", "|", text)
    print("$ modal", *(word.replace(FILE, "FILE") for word in words))
    lines = [re.sub(r"\s*\|[\s|]*", " | ", re.sub(r"  +", " ", line)).strip() for line in text.splitlines()]
    # Functions are created at once, and what a container prints comes beside what the program prints.
    created = sorted(line for line in lines if "Created Function" in line)
    lines = [created.pop(0) if "Created Function" in line else line for line in lines]
    for line in sorted(lines) if words[0] == "run" else lines:
        if line.strip("| "):
            print("  " + line)
    if done.returncode:
        print("  ->", done.returncode)


def function(name):
    return modal.Function.from_name("shop", name)


def outcome(call):
    try:
        return call()
    except BaseException as error:
        text = re.sub(r"\b(in|ta|fc|im)-[A-Za-z0-9]{22}\b", r"\1-ID", str(error))
        return f"{type(error).__name__}: {text}"


def until_there(name):
    volume = modal.Volume.from_name("stock")
    end = time.monotonic() + 60
    while name not in [entry.path for entry in volume.listdir("/")]:
        assert time.monotonic() < end, name
        time.sleep(0.05)


def until_no_container():
    """A stopped app's containers take a moment to leave."""
    end = time.monotonic() + 60
    while subprocess.check_output([sys.executable, "-m", "modal", "container", "list", "--json"]).strip() != b"[]":
        assert time.monotonic() < end
        time.sleep(0.05)


def broken():
    app = modal.App("broken")
    image = modal.Image.debian_slim().dockerfile_commands("RNU make")

    @app.function(image=image, serialized=True)
    def never():
        pass

    with app.run():
        pass


if ROUND == "first":
    print("bad image:", outcome(broken))
    run("deploy", FILE)
    call = function("work").spawn(5)
    print("spawn, get:", call.get(timeout=60))
    print("again by id:", modal.FunctionCall.from_id(call.object_id).get(timeout=0))
    print("exception:", outcome(lambda: function("work").remote(13)))
    cwd, file, has_token = function("place").remote()
    print("place:", cwd, file.replace(CODE_FOLDER, "CODE"), has_token)
    print("map:", list(function("work").map([1, 2, 3])))
    call = function("large").experimental_spawn_map([1, 2])
    print("spawned map:", [len(call.get(timeout=60, index=index)) for index in range(2)])
    print("generator:", list(function("squares").remote_gen(4)))
    print("large:", len(function("large").remote(3 << 20)))
    print("large, spawned:", len(function("large").spawn(20_000).get(timeout=60)))
    print("large argument:", len(function("work").remote("x" * (3 << 20))))
    print("timeout:", outcome(lambda: function("slow").remote()))
    print("retries:", function("flaky").remote())
    print("single use:", len({function("once").remote() for _ in range(2)}))
    print("together:", len(set(function("together").map(range(4)))))

    variant = function("slow").with_options(timeout=100)
    call = variant.spawn()
    print("not yet:", outcome(lambda: call.get(timeout=2)))
    call.cancel(terminate_containers=True)
    print("terminated:", outcome(lambda: call.get(timeout=60)))

    Counter = modal.Cls.from_name("shop", "Counter")
    ten = Counter(start=10)
    print("class:", ten.add.remote(5), ten.add.remote(5), Counter().add.remote(1))

    volume = modal.Volume.from_name("stock")
    until_there("ticks.txt")
    print("ticks:", b"".join(volume.read_file("ticks.txt")).splitlines()[0])
    lines = sorted(b"".join(volume.read_file("done.txt")).split(), key=len)
    print("volume:", sorted(lines[:-1]), len(lines[-1]))
    run("app", "logs", "shop", "--tail", "100", "--search", "working on 5")
    run("app", "logs", "shop", "--since", "1h", "--source", "stderr", "--search", "colour")
    run("run", f"{FILE}::main")
    run("app", "history", "shop")
    run("deploy", FILE, "--tag", "two")
    run("app", "rollback", "shop")
    run("app", "history", "shop", "--json")
    ended = function("work").spawn(6)
    ended.get(timeout=60)
    running = function("nap").spawn()
    until_there("naps.txt")
    print("calls:", ended.object_id, running.object_id)
else:
    call = modal.FunctionCall.from_id(sys.argv[4])
    print("result of the life before:", call.get(timeout=0))
    running = modal.FunctionCall.from_id(sys.argv[5])
    print("result of what ran:", running.get(timeout=60))
    volume = modal.Volume.from_name("stock")
    print("starts of it:", len(b"".join(volume.read_file("naps.txt")).splitlines()))
    print("still deployed:", function("work").remote(8))
    run("app", "logs", "shop", "--search", "working on 6")
    run("app", "stop", "shop", "--yes")
    print("stopped:", outcome(lambda: function("work").remote(1)))
    until_no_container()
    run("app", "list", "--json")
    run("container", "list", "--json")
