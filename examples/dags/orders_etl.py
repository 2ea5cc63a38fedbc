"""Orders, from raw lines to a table: the TaskFlow ETL that most people write first.

Shows      plain functions as tasks, values handed on as XComs (one dict split into several keys by
           `multiple_outputs`), a parameter with a default, and a load that may be repeated.
Ends       success: 4 tasks at their first try. `load` returns
           {"AT": 42.5, "DE": 120.0, "FR": 17.25}; two of the seven lines are rejected.
Make it yours: read the lines in `extract` from where your orders lie, and give `database` a path
           that every worker sees.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from pathlib import Path

from airflow.sdk import Param, dag, get_current_context, task

RAW_ORDERS = """\
order_id,country,amount
1001,DE,80.00
1002,AT,42.50
1003,FR,seventeen
1004,DE,40.00
1005,FR,17.25
1006,,9.99
1007,DE,0.00
"""


@dag(
    schedule=None,
    catchup=False,
    tags=["example"],
    doc_md=__doc__,
    params={
        "database": Param(
            ":memory:",
            type="string",
            description="SQLite file that the totals are written to; ':memory:' writes none",
        )
    },
)
def orders_etl():
    @task
    def extract() -> list[dict]:
        """Read the raw lines as they came, with nothing decided yet."""
        return list(csv.DictReader(io.StringIO(RAW_ORDERS)))

    @task(multiple_outputs=True)
    def clean(lines: list[dict]) -> dict:
        """Sort the lines into those that can be used and those that need a look."""
        accepted, rejected = [], []
        for line in lines:
            try:
                amount = float(line["amount"])
                if not line["country"]:
                    raise ValueError("no country")
            except ValueError as reason:
                rejected.append({"order_id": line["order_id"], "reason": str(reason)})
            else:
                accepted.append({"country": line["country"], "amount": amount})
        return {"accepted": accepted, "rejected": rejected}

    @task
    def report(rejected: list[dict]) -> int:
        """Say in the log what was left out, and count it."""
        for line in rejected:
            print(f"order {line['order_id']} left out: {line['reason']}")
        return len(rejected)

    @task
    def load(accepted: list[dict]) -> dict[str, float]:
        """Write one row a country and day. A second run of the same day replaces the first one's rows."""
        context = get_current_context()
        day = context["dag_run"].run_after.date().isoformat()
        database = context["params"]["database"]
        if database != ":memory:":
            Path(database).parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(database) as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS orders"
                " (day TEXT, country TEXT, amount REAL, PRIMARY KEY (day, country))"
            )
            db.execute("DELETE FROM orders WHERE day = ?", (day,))
            db.executemany(
                "INSERT INTO orders VALUES (?, ?, ?)"
                " ON CONFLICT (day, country) DO UPDATE SET amount = amount + excluded.amount",
                [(day, line["country"], line["amount"]) for line in accepted],
            )
            rows = db.execute(
                "SELECT country, amount FROM orders WHERE day = ? ORDER BY country", (day,)
            ).fetchall()
        for country, amount in rows:
            print(f"{day}  {country}  {amount:10.2f}")
        return dict(rows)

    sorted_lines = clean(extract())
    report(sorted_lines["rejected"])
    load(sorted_lines["accepted"])


orders_etl()
