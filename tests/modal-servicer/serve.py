"""Starts the servicer that Modal's own client is tested with, and prints its address.

usage: serve.py PATH-OF-CONFTEST
"""

import asyncio
import importlib.util
import os
import sys

PATH = sys.argv[1]
TOKEN = ("ak-test", "as-test")

# The module's own folder holds what it imports.
sys.path.insert(0, os.path.dirname(PATH))
spec = importlib.util.spec_from_file_location("conftest", PATH)
conftest = importlib.util.module_from_spec(spec)
sys.modules["conftest"] = conftest
spec.loader.exec_module(conftest)


async def main():
    with conftest.blob_server_factory() as blobs:
        async with conftest.servicer_factory(blobs, TOKEN) as servicer:
            print(servicer.client_addr, flush=True)
            await asyncio.Event().wait()


asyncio.run(main())
