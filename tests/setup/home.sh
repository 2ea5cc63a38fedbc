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

# Sets hybrid_python: Airflow of the test home, Modal's client and hatchling, for the package of an existing Airflow.
make_hybrid_python() {
    local theirs

    make_python hybrid "$test_python" "$repository/tests/hybrid/requirements/tools.txt"
    hybrid_python=$made_python
    theirs=$("$test_python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$theirs" >"$("$hybrid_python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/airflow.pth"
}

# Sets airflow_2_python: Airflow 2.11 and Modal's client.
make_airflow_2_python() {
    make_python airflow-2 "$test_python" "$repository/tests/hybrid/requirements/airflow-2.11.txt"
    airflow_2_python=$made_python
}

# make_python NAME PYTHON LOCK: sets made_python, with pip and what the lock names.
make_python() {
    local at=$setup/$1 uv

    made_python=$at/bin/python
    cmp -s "$3" "$at/installed.txt" && return
    say "Installing $(basename "$3" .txt) for tests (once, up to a minute)"
    rm -rf "$at"
    uv=$(command -v uv || find "$test_home/python" -maxdepth 3 -path '*/uv-*/bin/uv' -print -quit)
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --seed --python "$2" "$at"
        "$uv" pip install --quiet --python "$made_python" --require-hashes --requirement "$3"
    else
        "$2" -m venv "$at"
        "$made_python" -m pip install --quiet --require-hashes --requirement "$3"
    fi
    cp "$3" "$at/installed.txt"
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
