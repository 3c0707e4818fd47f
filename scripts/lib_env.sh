# Shared by the scripts next to it: enters the repository and prepares its virtual environment.
# Sourced, not run. PYTHON chooses the interpreter, NEURALXC_VENV another place for the environment.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

VENV="${NEURALXC_VENV:-.venv}"
# One thread unless asked otherwise: small molecules are slower with more, and pytest runs workers.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export MPLBACKEND=Agg

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
    return 1
}

prepare_environment() {
    local python stamp wanted
    if [ ! -x "$VENV/bin/python" ]; then
        python="$(find_python)" || exit 1
        "$python" -m venv "$VENV" || exit 1
    fi
    stamp="$VENV/installed.sha256"
    wanted="$(cat pyproject.toml constraints.txt | "$VENV/bin/python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing into $VENV (once per change of pyproject.toml or constraints.txt)" >&2
        # torch first and pinned: left to the resolver, its dependants may pull in another build.
        "$VENV/bin/python" -m pip install --quiet "$(grep '^torch==' constraints.txt)" \
            && "$VENV/bin/python" -m pip install --quiet -c constraints.txt -e '.[dev]' \
            || { echo "error: the installation failed" >&2; exit 1; }
        echo "$wanted" > "$stamp"
    fi
    PATH="$(cd "$VENV/bin" && pwd):$PATH"
}
