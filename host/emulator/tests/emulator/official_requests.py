"""Asks with Modal's official client for what `our_requests` asks with ours: an image, functions, a variant, files, a sandbox."""

import io
import os
import pathlib
import sys

# The newer requests for sandboxes are another family.
os.environ["MODAL_SANDBOX_V2"] = "0"

import modal  # noqa: E402
from modal.exception import UnimplementedError  # noqa: E402

pathlib.Path("ops_work.py").write_text("def run(payload):\n    return payload\n\n\ndef tick():\n    return None\n")
sys.path.insert(0, os.getcwd())
import ops_work  # noqa: E402

image = modal.Image.from_registry("debian:12-slim").dockerfile_commands("RUN true", "ENV A=b")
volume = modal.Volume.from_name("requests", create_if_missing=True, version=2)
secret = modal.Secret.from_name("requests")

app = modal.App("requests", tags={"team": "data"})
common = dict(
    image=image,
    volumes={"/vol": volume},
    secrets=[secret],
    cpu=0.25,
    memory=(256, 512),
    timeout=120,
    retries=0,
    include_source=False,
)
app.function(
    name="run", single_use_containers=True, max_containers=2, scaledown_window=60, region="us-east", **common
)(ops_work.run)
app.function(name="tick", schedule=modal.Cron("0 0 1 1 *"), startup_timeout=90, **common)(ops_work.tick)
app.deploy()

variant = modal.Function.from_name("requests", "run").with_options(
    memory=2048, gpu="a100:2", timeout=77, max_containers=3, scaledown_window=30
)
os.environ["MODAL_PAYLOAD_FORMAT"] = "cbor"
variant.spawn({"a": 1}).cancel(terminate_containers=True)

with volume.batch_upload(force=True) as batch:
    batch.put_file(io.BytesIO(b"print(1)" + bytes(100)), "dags/x.py")
modal.Dict.from_name("requests", create_if_missing=True).put("k", "v", skip_if_exists=True)
modal.Queue.from_name("requests", create_if_missing=True).put("v")

try:
    modal.Sandbox.create(
        "sleep", "60", app=app, image=image, encrypted_ports=[8080], timeout=60, secrets=[secret], cpu=0.5, memory=128
    )
except UnimplementedError:
    pass

from modal.cli.server import _DirectServerCls  # noqa: E402

direct = modal.App("direct")
direct.server(
    image=image,
    name="Server",
    port=8080,
    routing_region="us-east",
    startup_timeout=30,
    unauthenticated=True,
    include_source=False,
)(_DirectServerCls)
direct.deploy()
