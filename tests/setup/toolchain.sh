# Sourced by examples/run, tests/run and tests/bench/run: how they talk, and what they need from the machine.
# It installs nothing and changes nothing outside the shell that sources it.

# A step that begins. Talk goes to stderr; stdout is for results.
say() { printf '\n==> %s\n' "$*" >&2; }

# A line about the step that is under way.
note() { printf '    %s\n' "$*" >&2; }

# The end, with what the reader can do about it.
fail() {
    printf '\nerror: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# at_least FOUND WANTED: both are versions like 1.95.0.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# cargo that answers, a linker, Python; each new enough.
need_toolchain() {
    local wanted found at

    command -v cargo >/dev/null || fail "no cargo on PATH" "install Rust, for example from https://rustup.rs"
    if ! cargo --version >/dev/null 2>&1; then
        # rustup looks for its toolchains in HOME. With another HOME than the one it was installed in, they are still
        # beside the cargo on PATH: ~/.cargo/bin/cargo, ~/.rustup.
        at=$(dirname "$(dirname "$(command -v cargo)")")
        if [ -z "${RUSTUP_HOME:-}" ] && [ -d "$(dirname "$at")/.rustup" ]; then
            export RUSTUP_HOME="$(dirname "$at")/.rustup" CARGO_HOME="${CARGO_HOME:-$at}"
        fi
        cargo --version >/dev/null || fail "cargo does not start" "rustup default stable"
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
    found=$(cargo --version | cut -d ' ' -f 2)
    at_least "$found" "$wanted" || fail "Rust $found is too old, $wanted or newer is needed" "rustup update stable"

    command -v cc >/dev/null || fail "no C linker (cc), which cargo needs" "apt-get install build-essential"

    command -v python3 >/dev/null || fail "no python3 on PATH" "apt-get install python3"
    found=$(python3 -c 'import platform; print(platform.python_version())')
    at_least "$found" 3.10 || fail "Python $found is too old, 3.10 or newer is needed"
}

# The host, optimised; sets host and puts it on PATH. cargo prints its own progress; when nothing changed this takes a moment.
build_host() {
    say "Building modalflow-host (the first time takes minutes: it compiles a WebAssembly engine)"
    cargo build --release --locked --manifest-path "$repository/Cargo.toml" -p modalflow-host
    host=${CARGO_TARGET_DIR:-$repository/target}/release/modalflow-host
    export PATH="$(dirname "$host"):$PATH"
}
