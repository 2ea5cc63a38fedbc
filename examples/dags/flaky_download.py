"""A download from a server that is busy at first: retries, with a delay that grows.

Shows      `retries`, `retry_delay`, exponential backoff with a ceiling, a task that knows which try it is,
           and an error that no retry mends (`AirflowFailException`: fails at once, whatever is left).
Ends       success. `download` fails twice and succeeds on its third try (it goes by its own
           `try_number`, so it does so on any worker), then `verify` runs once. `download` returns
           {"bytes": 4096, "tries": 3}. All in about 10 seconds, most of it waiting.
"""

from __future__ import annotations

import datetime
import hashlib

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

BUSY_TRIES = 2


@dag(schedule=None, catchup=False, tags=["example"], doc_md=__doc__)
def flaky_download():
    @task(
        retries=4,
        retry_delay=datetime.timedelta(seconds=1),
        retry_exponential_backoff=True,
        max_retry_delay=datetime.timedelta(seconds=5),
    )
    def download() -> dict:
        """Fail as long as the server is busy. Each try's log tells of that try alone."""
        this_try = get_current_context()["ti"].try_number
        print(f"try {this_try}: asking the server")
        if this_try <= BUSY_TRIES:
            raise ConnectionError(f"503 Service Unavailable (try {this_try})")
        return {"bytes": len(body()), "tries": this_try}

    @task(retries=4)
    def verify(receipt: dict) -> str:
        """Compare with what was promised. The same wrong file again would help nobody: no more tries."""
        if receipt["bytes"] != len(body()):
            raise AirflowFailException(f"{receipt['bytes']} bytes came, {len(body())} were promised")
        return hashlib.sha256(body()).hexdigest()

    verify(download())


def body() -> bytes:
    return bytes(range(256)) * 16


flaky_download()
