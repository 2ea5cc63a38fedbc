"""Puts the host's binary into the wheel and names the machines that it runs on. Called by hatchling."""

import os
import platform
import re
import shutil
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "MODALFLOW_HOST_BINARY"


class CarryHost(BuildHookInterface):
    def initialize(self, version, build_data):
        binary = os.environ.get(VARIABLE)
        if not binary:
            raise SystemExit(f"{VARIABLE} is not set: run build-wheel, or name a modalflow-host that was built for release")
        carried = Path(self.root, "modalflow", "bin", "modalflow-host")
        carried.parent.mkdir(exist_ok=True)
        shutil.copyfile(binary, carried)
        carried.chmod(0o755)
        build_data["artifacts"].append("/modalflow/bin/modalflow-host")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(carried)}"

    def finalize(self, version, build_data, artifact_path):
        shutil.rmtree(Path(self.root, "modalflow", "bin"))


def platform_tag(binary: Path) -> str:
    """`manylinux_2_N_…`: the newest glibc that the binary asks for."""
    needed = {int(minor) for minor in re.findall(rb"\bGLIBC_2\.(\d+)", binary.read_bytes())}
    if not needed:
        raise SystemExit(f"{binary} is not linked with glibc: only such binaries are packed")
    return f"manylinux_2_{max(needed)}_{platform.machine()}"
