#!/usr/bin/env bash
# Installs whatever the tests need, then runs every gate and every test.
# Usage: tests/run.sh [pytest arguments]   (CI=true: an absent tool is a failure, not a skip)
set -euo pipefail
cd "$(dirname "$0")/.."

# Thousands of processes start here: where the environment forbids compiled files, each would
# compile all it imports anew.
unset PYTHONDONTWRITEBYTECODE

PACKAGES=(tmux git bubblewrap socat util-linux redis-server ripgrep procps espeak-ng)
COMMANDS=(tmux git bwrap socat setpriv redis-server rg ps espeak-ng)
# Pages, and what of them asks a person's leave.
PACKAGES+=(chromium-headless-shell chromium)
COMMANDS+=(chromium-headless-shell chromium)
# Backups, also to another machine; an SSH server is not put on somebody's own.
PACKAGES+=(restic)
COMMANDS+=(restic)
if [ -n "${CI:-}" ]; then
    PACKAGES+=(openssh-server)
    COMMANDS+=(sshd)
fi
# The installer's server: a root of its own, booted beside this machine by root. AI_INFRA_TEST_SERVER=0: not.
if [ "$(id -u)" = 0 ] && [ "${AI_INFRA_TEST_SERVER:-}" != 0 ]; then
    PACKAGES+=(mmdebstrap systemd-container)
    COMMANDS+=(mmdebstrap systemd-nspawn)
fi
# What the escape tests try to get out with: a way that is not installed proves nothing.
PACKAGES+=(netcat-openbsd openssh-client iputils-ping curl wget binutils iproute2 perl)
COMMANDS+=(nc ssh ping curl wget strings ip perl)
# Certificates: an authority of our own and what asks it.
PACKAGES+=(certbot pebble pebble)
COMMANDS+=(certbot pebble pebble-challtestsrv)

# A real nginx, as an ordinary process on high ports.
PACKAGES+=(nginx)
COMMANDS+=(nginx)

missing() {
    for index in "${!COMMANDS[@]}"; do
        command -v "${COMMANDS[$index]}" >/dev/null || echo "${PACKAGES[$index]}"
    done
    # The agents' own Python makes virtual environments, too.
    if [ -x /usr/bin/python3 ] && ! /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null; then
        echo python3-venv
    fi
    if ! /usr/bin/python3 -c 'import certbot_dns_cloudflare' 2>/dev/null; then
        echo python3-certbot-dns-cloudflare
    fi
}

find_python() {
    for name in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

install_tools() {
    local wanted
    mapfile -t wanted < <(missing)
    [ -n "$(find_python)" ] || wanted+=(python3 python3-venv)
    [ "${#wanted[@]}" -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: ${wanted[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
    else
        echo "missing, some tests will skip: apt-get install ${wanted[*]}" >&2
    fi
}

install_tools
if [ "$(id -u)" = 0 ] && ! id ai-hands >/dev/null 2>&1; then
    useradd --system --no-create-home --shell /usr/sbin/nologin ai-hands
fi
[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
stamp=.venv/.installed-for-tests fresh=
if ! cmp -s pyproject.toml "$stamp"; then
    echo "installing Python packages (PyTorch among them: some minutes, without a word)"
    # Not compiled ahead: the tests import a part of it.
    .venv/bin/pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]' 2> >(grep -v '^WARNING: Location' >&2)
    cp pyproject.toml "$stamp"
    fresh=1
fi

.venv/bin/python -m agents --install-sandbox >/dev/null || echo "no sandbox runtime: its tests will fail" >&2

export PATH="$PWD/.venv/bin:$PATH"
# What was just installed is compiled by one process, on the core that the checks leave free: else
# each of the tests' workers would compile the same at the same time.
if [ -n "$fresh" ]; then
    python -m pytest -n 0 --collect-only -q >/dev/null 2>&1 &
    compiling=$!
    trap 'kill "$compiling" 2>/dev/null || true' EXIT
fi
echo "== format"; ruff format --check .
echo "== lint"; ruff check .
echo "== types"; mypy
echo "== floors"; lint-imports

[ -z "$fresh" ] || wait "$compiling" || true

# Where nobody is there to look, one that fails is tried once more, and the run names it.
again=()
[ -z "${CI:-}" ] || again=(--reruns 1 -rR)
echo "== tests"; exec python -m pytest -n 4 --dist loadgroup --max-worker-restart=2 "${again[@]}" "$@"
