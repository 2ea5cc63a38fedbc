"""An app that the official client deploys, and that the official container runtime runs."""

import os
import sys
import time

import modal

app = modal.App("shop")
image = (
    modal.Image.debian_slim()
    .run_commands("false")
    .env({"COLOR": "blue"})
    .workdir("/nowhere/else")
)
volume = modal.Volume.from_name("stock", create_if_missing=True, version=2)


@app.function(
    image=image,
    volumes={"/stock": volume},
    secrets=[modal.Secret.from_dict({"WORD": "hush"})],
)
def work(x):
    print("working on", x)
    print("colour", os.environ["COLOR"], "word", os.environ["WORD"], file=sys.stderr)
    with open("/stock/done.txt", "a") as file:
        file.write(f"{x}\n")
    if x == 13:
        raise ValueError("unlucky")
    return x * 2


@app.function(image=image)
def place():
    return os.getcwd(), __file__, "MODAL_TOKEN_SECRET" in os.environ


@app.function(image=image)
def large(size):
    return b"x" * size


@app.function(image=image)
def squares(n):
    for number in range(n):
        yield number * number


@app.function(image=image, timeout=1)
def slow():
    time.sleep(60)


@app.function(image=image, volumes={"/stock": volume})
def nap():
    with open("/stock/naps.txt", "a") as file:
        file.write("nap\n")
    time.sleep(3)
    return "slept"


@app.function(
    image=image,
    volumes={"/stock": volume},
    retries=modal.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0),
)
def flaky():
    with open("/stock/tries.txt", "a+") as file:
        file.write("x")
        file.seek(0)
        tries = len(file.read())
    if tries < 3:
        raise RuntimeError(f"try {tries}")
    return tries


@app.function(image=image, single_use_containers=True)
def once():
    return os.environ["MODAL_TASK_ID"]


@app.function(image=image, max_containers=1)
@modal.concurrent(max_inputs=4)
async def together(x):
    import asyncio

    await asyncio.sleep(0.05)
    return os.environ["MODAL_TASK_ID"]


@app.function(image=image, schedule=modal.Period(seconds=1), volumes={"/stock": volume})
def tick():
    with open("/stock/ticks.txt", "a") as file:
        file.write("tick\n")


@app.cls(image=image)
class Counter:
    start: int = modal.parameter(default=0)

    @modal.enter()
    def up(self):
        self.number = self.start

    @modal.method()
    def add(self, amount):
        self.number += amount
        return self.number


@app.local_entrypoint()
def main():
    print("remote:", work.remote(21))
    print("map:", list(work.map([1])))
