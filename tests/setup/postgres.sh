# Sourced by tests/run and tests/bench/run after home.sh: a Postgres of their own, with Airflow's empty schema in the
# database `airflow_template`. It lives in a new directory under /tmp, listens on loopback alone, is gone afterwards.

# start_postgres [SETTING…]: sets postgres_url, a superuser's. SETTINGs are Postgres's own, like fsync=off.
start_postgres() {
    local packed=$setup/postgres.tar

    [ -f "$packed" ] || pack_postgres "$packed"
    lay_out_postgres
    tar -C "$postgres_directory" -xpf "$packed"
    launch_postgres "$@"
}

# Immediate, since nothing of it is kept.
stop_postgres() {
    [ -n "${postgres_directory:-}" ] || return 0
    as_postgres pg_ctl -D "$postgres_directory/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$postgres_directory"
    postgres_directory=""
}

# pack_postgres FILE: a cluster after `airflow db migrate`, stopped and packed, so that every start is a fresh one.
pack_postgres() {
    local template

    say "Making a test database with Airflow's schema (once, about 20 s)"
    lay_out_postgres
    as_postgres initdb -D "$postgres_directory/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --wal-segsize=4 \
        >"$setup/initdb.log"
    launch_postgres fsync=off
    template=${postgres_url%/*}/airflow_template
    "$test_python" -c 'import sys, psycopg2
connection = psycopg2.connect(sys.argv[1])
connection.autocommit = True
connection.cursor().execute("CREATE DATABASE airflow_template")' "$postgres_url"
    env AIRFLOW_HOME="$setup/airflow" AIRFLOW__CORE__LOAD_EXAMPLES=False \
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://${template#*://}" \
        "$(dirname "$test_python")/airflow" db migrate >"$setup/migrate.log" 2>&1 ||
        fail "airflow db migrate did not succeed" "see $setup/migrate.log"
    as_postgres pg_ctl -D "$postgres_directory/data" -m fast -w stop >/dev/null
    tar -C "$postgres_directory" -cf "$1.new" data
    mv "$1.new" "$1"
    stop_postgres
}

lay_out_postgres() {
    postgres_directory=$(mktemp -d /tmp/modalflow-postgres.XXXXXX)
    trap stop_postgres EXIT
    trap 'exit 130' INT TERM
    [ "$(id -u)" != 0 ] || chown "$postgres_user" "$postgres_directory"
}

launch_postgres() {
    local port setting options

    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    options="-p $port -k $postgres_directory -c listen_addresses=127.0.0.1 -c max_connections=300"
    for setting in "$@"; do options+=" -c $setting"; done
    as_postgres pg_ctl -D "$postgres_directory/data" -l "$postgres_directory/log" -o "$options" -w start >/dev/null ||
        fail "Postgres does not start" "its programs are in $test_postgres"
    postgres_url=postgresql://postgres@127.0.0.1:$port/postgres
}

# Postgres refuses to run as root.
as_postgres() {
    local program=$test_postgres/$1
    shift
    if [ "$(id -u)" = 0 ]; then
        (cd / && exec runuser -u "$postgres_user" -- "$program" "$@")
    else
        (cd / && exec "$program" "$@")
    fi
}
