"""A nightly backup with shell commands, and a check that fails when it should.

Shows      `BashOperator` with Jinja templates (params, the run's id, an upstream's XCom), parameters checked
           against a JSON schema, a command that skips itself (exit code 99), environment variables that keep
           values out of the command line, and what a failing leaf does to its run.
Ends       failed, on purpose: `verify_offsite` finds no second copy, and as a leaf it decides the
           run. `archive` (its last line, the XCom, is the archive's file list sorted: "etc/app.conf etc/hosts"),
           `restore_test` and `clean_up` succeed, `upload` is skipped.
Try also   trigger it with the conf {"offsite_copies": 2} and the run succeeds; with
           {"offsite_copies": -1} it is refused before it starts.
"""

from __future__ import annotations

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

with DAG(
    dag_id="nightly_backup",
    schedule=None,
    catchup=False,
    tags=["example"],
    doc_md=__doc__,
    params={
        "keep_days": Param(7, type="integer", minimum=1, description="how long old archives are kept"),
        "offsite_copies": Param(0, type="integer", minimum=0, description="copies found at the other site"),
    },
    default_args={"execution_timeout": datetime.timedelta(minutes=5)},
):
    archive = BashOperator(
        task_id="archive",
        # A worker's own folder, gone afterwards: nothing here needs a disk that tasks share.
        bash_command="""
            set -eu
            work=$(mktemp -d)
            trap 'rm -rf "$work"' EXIT
            mkdir "$work/etc"
            echo "127.0.0.1 localhost" > "$work/etc/hosts"
            echo "keep_days = $KEEP_DAYS" > "$work/etc/app.conf"
            tar -C "$work" -czf "$work/backup.tar.gz" etc/app.conf etc/hosts
            echo "archive of {{ dag.dag_id }}, {{ run_id }}"
            tar -tzf "$work/backup.tar.gz" | sort | paste -sd ' '
        """,
        env={"KEEP_DAYS": "{{ params.keep_days }}"},
        append_env=True,
    )
    restore_test = BashOperator(
        task_id="restore_test",
        bash_command='for f in {{ ti.xcom_pull(task_ids="archive") }}; do echo "restored $f"; done',
    )
    upload = BashOperator(
        task_id="upload",
        bash_command='[ -n "${BACKUP_TARGET:-}" ] || { echo "no BACKUP_TARGET, nothing to do"; exit 99; }',
    )
    verify_offsite = BashOperator(
        task_id="verify_offsite",
        bash_command="""
            echo "copies at the other site: {{ params.offsite_copies }}"
            [ {{ params.offsite_copies }} -gt 0 ] || { echo "there must be at least one" >&2; exit 1; }
        """,
    )
    clean_up = BashOperator(
        task_id="clean_up",
        bash_command='echo "older than {{ params.keep_days }} days: none"',
        trigger_rule="all_done",
    )

    archive >> [restore_test, upload, verify_offsite]
    [restore_test, upload] >> clean_up
