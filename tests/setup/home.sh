# Sourced by tests/run and tests/bench/run after toolchain.sh: a MODALFLOW_HOME for tests, made by the host itself, so
# that Airflow and Postgres are found or fetched in exactly the way a user's are. Writes nothing outside $setup.

setup=${MODALFLOW_TEST_SETUP:-$repository/target/tests}
test_home=$setup/home

# Sets test_python (it has Airflow), test_postgres (the directory of Postgres's programs), postgres_user (whom they run
# as when we are root).
make_test_home() {
    local state=$test_home/envs/setup/state.json

    mkdir -p "$setup"
    # `create` is asked each time there is nothing finished; what an interrupted one left, it clears away itself.
    if ! MODALFLOW_HOME=$test_home modalflow-host env show --env setup >/dev/null 2>&1; then
        say "Making a Python with Airflow, and finding Postgres (once, about three minutes)"
        MODALFLOW_HOME=$test_home modalflow-host create --env setup
    fi
    test_python=$(json python "$(find "$test_home/python" -maxdepth 2 -path '*-3.*/modalflow.json' -print -quit)")
    test_postgres=$(json postgres.binaries "$state")
    postgres_user=$(json postgres.user.name "$state")
}

# Sets test_modal_python: Modal's own client, in a small environment of its own, by a lock with hashes.
make_modal_python() {
    local lock=$repository/tests/requirements-modal.txt at=$setup/modal uv

    test_modal_python=$at/bin/python
    cmp -s "$lock" "$at/installed.txt" && return
    say "Installing Modal's client for tests (once, a few seconds)"
    rm -rf "$at"
    # pip first: it knows the user's package index. Where Python comes without it, the host has fetched uv.
    if python3 -m venv "$at" 2>/dev/null; then
        "$test_modal_python" -m pip install --quiet --require-hashes --requirement "$lock"
    else
        rm -rf "$at"
        uv=$(command -v uv || find "$test_home/python" -maxdepth 3 -path '*/uv-*/bin/uv' -print -quit)
        "$uv" venv --quiet --python "$test_python" "$at"
        "$uv" pip install --quiet --python "$test_modal_python" --require-hashes --requirement "$lock"
    fi
    cp "$lock" "$at/installed.txt"
}

# json KEY FILE: the value at KEY (parts joined by dots); nothing where there is none.
json() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
value = json.load(open(sys.argv[2]))
for part in sys.argv[1].split("."):
    value = value.get(part) if isinstance(value, dict) else None
print("" if value is None else value)
PYTHON
}
