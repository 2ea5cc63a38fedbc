#!/usr/bin/env python3
"""Looks at an environment through Airflow's own UI, as a person would, and takes pictures of what it saw.

    check.py --url http://127.0.0.1:8080 --user admin --password … --run-id RUN [--images FOLDER]

Expects the example DAGs and one finished run of orders_etl; `tests/ui/run` provides both. Sees that run, its
tasks, one task's log and an XCom; then triggers a run through the page, waits until it succeeded, and looks at its
log too. Exit code 1 and what the page showed instead, if anything is missing. Needs Chromium on PATH.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from browser import Browser, PageError

DAG_ID = "orders_etl"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--run-id", required=True, help=f"a run of {DAG_ID} that ended in success")
    parser.add_argument("--images", type=Path, help="folder for the pictures; without it none are kept")
    parser.add_argument("--seconds", type=float, default=60, help="how long the run triggered here may take")
    arguments = parser.parse_args()
    with Browser() as browser:
        look = Look(browser, arguments)
        steps = [look.log_in, look.list_dags, look.see_run, look.read_log, look.read_xcom, look.trigger_run, look.see_graph]
        for step in steps:
            print(f"{step.__doc__} ... ", end="", flush=True)
            try:
                step()
            except PageError as error:
                print("no")
                print(f"error: {error}", file=sys.stderr)
                if arguments.images:
                    browser.screenshot(arguments.images / "failure.png")
                return 1
            print("yes")
    return 0


class Look:
    """The steps, in their order. Each is named for what is seen."""

    def __init__(self, browser: Browser, arguments: argparse.Namespace):
        self.browser = browser
        self.arguments = arguments
        self.dag = f"{arguments.url.rstrip('/')}/dags/{DAG_ID}"
        self.run = f"{self.dag}/runs/{arguments.run_id}"

    def picture(self, name: str) -> None:
        if self.arguments.images:
            self.browser.screenshot(self.arguments.images / f"{name}.png")

    def log_in(self) -> None:
        """one can log in"""
        self.browser.goto(self.arguments.url)
        self.browser.fill("input[name=username]", self.arguments.user)
        self.browser.fill("input[name=password]", self.arguments.password)
        self.browser.click("button[type=submit]")
        self.browser.see("Welcome")

    def list_dags(self) -> None:
        """the DAGs are listed"""
        self.browser.goto(f"{self.arguments.url.rstrip('/')}/dags")
        for dag_id in (DAG_ID, "release_gate", "nightly_backup"):
            self.browser.see(dag_id)

    def see_run(self) -> None:
        """the run and its tasks are there"""
        self.browser.goto(self.run)
        self.browser.see(self.arguments.run_id)
        for text in ("Success", "extract", "clean", "report", "load", "4 Task Instances"):
            self.browser.see(text)

    def read_log(self) -> None:
        """a task's log can be read"""
        self.browser.goto(f"{self.run}/tasks/load")
        self.browser.see("Returned value was: {'AT': 42.5, 'DE': 120.0, 'FR': 17.25}")

    def read_xcom(self) -> None:
        """an XCom can be read"""
        self.browser.goto(f"{self.run}/tasks/load/xcom")
        for text in ("return_value", "DE", "42.5", "17.25"):
            self.browser.see(text)

    def trigger_run(self) -> None:
        """a run triggered on the page succeeds"""
        links = f"""[...document.querySelectorAll('a[href*="/dags/{DAG_ID}/runs/"]')].map(a => a.pathname.split("/")[4])"""
        self.browser.goto(f"{self.dag}/runs")
        self.browser.wait_for(f"{links}.length", "a link to a run")
        known = json.dumps(sorted(set(self.browser.evaluate(links))))
        self.browser.click("button[data-testid=trigger-dag-button]")
        self.browser.click("button[data-testid=trigger-dag-submit]")
        new = self.browser.wait_for(f"{links}.find(run => !{known}.includes(run))", "the new run")
        self.browser.goto(f"{self.dag}/runs/{new}")
        self.browser.see("4 Task Instances")
        state = "document.querySelector('[data-testid=state-badge]').innerText.trim()"  # the first one is the run's
        ended = self.browser.wait_for(
            f"['Success', 'Failed'].find(s => s === {state})", "the new run's end", self.arguments.seconds
        )
        if ended != "Success":
            raise PageError(f"the run triggered on the page ended as {ended}")
        badges = "[...document.querySelectorAll('[data-testid=state-badge]')].map(e => e.innerText.trim())"
        self.browser.wait_for(f"{badges}.filter(s => s === 'Success').length === 5", "success of the run and its four tasks")
        self.picture("ui-run")

    def see_graph(self) -> None:
        """the graph is drawn"""
        self.browser.click("button[aria-label^='Show Graph']")
        self.browser.wait_for("document.querySelectorAll('.react-flow__node').length >= 4", "the graph's four nodes")
        self.picture("ui-graph")


if __name__ == "__main__":
    sys.exit(main())
