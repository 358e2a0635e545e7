#!/usr/bin/env bash
# Installs AI Infrastructure from this checkout and answers a first task.
set -euo pipefail

usage() {
    cat <<'EOF'
Usage: ./install.sh [options]

  --local        install for this machine without systemd (the default)
  --yes          ask nothing
  --no-task      do not send the first task
  --uninstall    stop everything and remove the installation; your state is kept
  --purge        with --uninstall: remove the state too (tasks, memory, workspaces, settings)
  --help         this text

Environment:
  AI_INFRA_HOME        where the state lives (default ~/.ai-infra)
  AI_INFRA_PORT        the portal's port on 127.0.0.1 (default 8000)
  ANTHROPIC_API_KEY    the model provider's key; without one the rehearsal model answers
  ANTHROPIC_BASE_URL   another server that speaks the Messages API
EOF
}

say() { printf '%s\n' "$*"; }

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

step() {
    STEP=$((STEP + 1))
    printf '[%d/%d] %s\n' "$STEP" "$STEPS" "$*"
}

# Runs a slow command with its output in the log and a sign of life on the screen.
quietly() {
    local started=$SECONDS pid code=0
    "$@" >>"$LOG" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 1 ]; then printf '\r      %ds ' $((SECONDS - started)); fi
        sleep 0.5
    done
    if [ -t 1 ]; then printf '\r            \r'; fi
    wait "$pid" || code=$?
    if [ "$code" -ne 0 ]; then
        tail -n 15 "$LOG" >&2
        fail "this failed: $* (the whole log is in $LOG)"
    fi
}

# The first Python that is new enough; empty when there is none.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

# Names the Debian packages that are missing, one a line.
missing_packages() {
    local python
    command -v tmux >/dev/null || echo tmux
    command -v git >/dev/null || echo git
    command -v bwrap >/dev/null || echo bubblewrap
    command -v unshare >/dev/null || echo util-linux
    python=$(find_python)
    if [ -z "$python" ]; then
        echo python3
        echo python3-venv
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
}

install_packages() {
    local wanted
    mapfile -t wanted < <(missing_packages)
    if [ "${#wanted[@]}" -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing: ${wanted[*]}. Install them, then run this again:
    sudo apt-get update && sudo apt-get install -y ${wanted[*]}" 3
    fi
    say "      installing ${wanted[*]}"
    quietly apt-get update
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"
    if [ -z "$(find_python)" ]; then
        fail "this system's Python is older than 3.11; install Python 3.11 or newer, then run this again" 3
    fi
}

# Root's agents work as an account that owns nothing.
make_hands_account() {
    if [ "$(id -u)" -eq 0 ] && ! id ai-hands >/dev/null 2>&1; then
        useradd --system --no-create-home --shell /usr/sbin/nologin ai-hands
        say "      made the account ai-hands: agents' tools run as it, never as root"
    fi
}

check_user_namespaces() {
    if unshare --user --map-current-user true 2>/dev/null || unshare --user true 2>/dev/null; then
        return
    fi
    fail "user namespaces are refused on this machine, so agents could not be sandboxed. As root:
    sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0" 3
}

install_python_packages() {
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv >>"$LOG" 2>&1 ||
        fail "could not make .venv (see $LOG)"
    if cmp -s pyproject.toml .venv/.installed; then
        say "      already there"
        return
    fi
    quietly .venv/bin/pip install --disable-pip-version-check --editable .
    quietly .venv/bin/python -m compileall -q .venv/lib base pai agents supervisor workers portal
    cp pyproject.toml .venv/.installed
}

link_command() {
    local folder=/usr/local/bin
    [ "$(id -u)" -eq 0 ] || folder=$HOME/.local/bin
    mkdir -p "$folder"
    if [ ! -e "$folder/ai-infra" ] || [ "$(readlink "$folder/ai-infra")" = "$PWD/.venv/bin/ai-infra" ]; then
        ln -sfn "$PWD/.venv/bin/ai-infra" "$folder/ai-infra"
    fi
    case ":$PATH:" in
        *":$folder:"*) COMMAND=ai-infra ;;
        *) COMMAND=$PWD/.venv/bin/ai-infra ;;
    esac
    [ "$(readlink "$folder/ai-infra")" = "$PWD/.venv/bin/ai-infra" ] || COMMAND=$PWD/.venv/bin/ai-infra
}

ask_for_key() {
    local key="" file=$AI_INFRA_HOME/secrets/anthropic-api-key
    if [ -s "$file" ] || [ -n "${AI_INFRA_ANTHROPIC_BASE_URL:-${ANTHROPIC_BASE_URL:-}}" ]; then
        return
    fi
    key=${ANTHROPIC_API_KEY:-}
    if [ -z "$key" ] && [ "$YES" = no ] && [ -t 1 ] && { : </dev/tty; } 2>/dev/null; then
        printf '      Anthropic API key (Enter: try the system with the rehearsal model first): '
        IFS= read -rs key </dev/tty || key=""
        printf '\n'
    fi
    if [ -n "$key" ]; then
        (umask 077 && mkdir -p "$AI_INFRA_HOME/secrets" && printf '%s\n' "$key" >"$file")
        say "      key kept in $file (mode 0600)"
    else
        say "      no key: the rehearsal model will answer, which thinks nothing and costs nothing"
    fi
    unset ANTHROPIC_API_KEY
}

# A port given once is kept, so that later commands need not repeat it.
keep_port() {
    local file=$AI_INFRA_HOME/config/settings.toml
    [ -n "${AI_INFRA_PORT:-}" ] || return 0
    mkdir -p "$AI_INFRA_HOME/config"
    touch "$file"
    if grep -q '^port *=' "$file"; then
        sed -i "s/^port *=.*/port = $AI_INFRA_PORT/" "$file"
    else
        sed -i "1i port = $AI_INFRA_PORT" "$file"
        [ -s "$file" ] || printf 'port = %s\n' "$AI_INFRA_PORT" >"$file"
    fi
}

first_task() {
    local text='Look at the workspace and write down in REHEARSAL.md or NOTES.md what you find there.'
    say ""
    say "First task: $text"
    .venv/bin/ai-infra ask --effort standard "$text" || fail "the first task failed; see: $COMMAND doctor"
}

goodbye() {
    local prefix=""
    [ "$AI_INFRA_HOME" = "$HOME/.ai-infra" ] || prefix="AI_INFRA_HOME=$AI_INFRA_HOME "
    say ""
    say "It runs. What now:"
    say "  portal     $(.venv/bin/ai-infra login-link)   (one-time link, valid 15 minutes)"
    say "  watch      $prefix$COMMAND attach      (tmux; Ctrl+b d leaves, Ctrl+b n is the next window)"
    say "  ask        $prefix$COMMAND ask 'What is in the workspace?'"
    say "  state      $prefix$COMMAND status"
    say "  stop       $prefix$COMMAND down"
}

uninstall() {
    local link folder
    STEPS=2
    step "stopping"
    if [ -x .venv/bin/ai-infra ]; then
        .venv/bin/ai-infra down || fail "could not stop everything; nothing was removed"
    fi
    step "removing"
    for folder in /usr/local/bin "$HOME/.local/bin"; do
        link=$folder/ai-infra
        if [ "$(readlink "$link" 2>/dev/null)" = "$PWD/.venv/bin/ai-infra" ]; then rm -f "$link"; fi
    done
    if [ "$PURGE" = yes ]; then
        folder=$(.venv/bin/python -c 'from base import settings; print(settings.load().workspaces)' 2>/dev/null || true)
        case "$folder" in /var/lib/ai-infra-workspaces/*) rm -rf "$folder" ;; esac
        rm -rf "$AI_INFRA_HOME"
        say "      removed $AI_INFRA_HOME"
    else
        say "      kept your state in $AI_INFRA_HOME (--purge removes it)"
    fi
    rm -rf .venv
    say "Uninstalled."
}

main() {
    STEP=0 STEPS=5 YES=no TASK=yes UNINSTALL=no PURGE=no COMMAND=ai-infra
    while [ $# -gt 0 ]; do
        case "$1" in
            --local) ;;
            --yes | -y) YES=yes ;;
            --no-task) TASK=no ;;
            --uninstall) UNINSTALL=yes ;;
            --purge) PURGE=yes ;;
            --help | -h) usage; exit 0 ;;
            --appliance) fail "this version installs in local mode only; run ./install.sh --local" 2 ;;
            *) usage >&2; fail "unknown option: $1" 2 ;;
        esac
        shift
    done
    if [ "$PURGE" = yes ] && [ "$UNINSTALL" = no ]; then fail "--purge goes with --uninstall" 2; fi
    cd "$(dirname "${BASH_SOURCE[0]}")"
    [ -f pyproject.toml ] || fail "run this from a checkout of AI Infrastructure" 2
    export AI_INFRA_HOME=${AI_INFRA_HOME:-$HOME/.ai-infra}
    if [ "$UNINSTALL" = yes ]; then
        uninstall
        return
    fi
    LOG=$(mktemp "${TMPDIR:-/tmp}/ai-infra-install.XXXXXX.log")
    say "AI Infrastructure, local mode; state in $AI_INFRA_HOME, log in $LOG"
    step "checking the machine"
    install_packages
    make_hands_account
    check_user_namespaces
    step "installing Python packages into .venv (a minute or two the first time)"
    install_python_packages
    link_command
    step "configuring"
    keep_port
    ask_for_key
    step "starting"
    .venv/bin/ai-infra up || fail "it did not start; see: .venv/bin/ai-infra doctor"
    step "first task through the whole system"
    if [ "$TASK" = yes ]; then first_task; else say "      left out (--no-task)"; fi
    goodbye
}

main "$@"
