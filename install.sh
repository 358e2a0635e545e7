#!/usr/bin/env bash
# Installs AI Infrastructure from this checkout and answers a first task.
set -euo pipefail

usage() {
    cat <<'EOF'
Usage: ./install.sh [options]

  --local        install for this machine without systemd (the default without systemd or root)
  --appliance    install on this server: systemd, nginx, firewall, certificates (the default for
                 root on Debian 12, Debian 13 and Ubuntu 24.04 with systemd, unless root has a
                 local installation already)
  --check        with --appliance: change nothing, say what would change
  --vars FILE    with --appliance: variables instead of questions; docs/install.md lists them
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

say() { printf '%s\n' "$@"; }

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

step() {
    STEP=$((STEP + 1))
    printf '[%d/%d] %s\n' "$STEP" "$STEPS" "$*"
}

# Runs a slow command with its output in the log and a sign of life on the screen, with what is new:
# a line that changes every LOOK_S seconds, or where there is no terminal one every LIFE_S.
quietly() {
    local started=$SECONDS told=$SECONDS code=0 line="" now=""
    "$@" </dev/null >>"$LOG" 2>&1 &
    CHILD=$!
    while kill -0 "$CHILD" 2>/dev/null; do
        if [ -t 1 ]; then
            if [ $((SECONDS - told)) -ge "$LOOK_S" ]; then
                told=$SECONDS
                now=$(news "$line")
                line=$(last_line)
                case "$now" in "nothing new "*) now=$line ;; esac
            fi
            printf '\r      %3d s  %-62.62s' $((SECONDS - started)) "$now"
        elif [ $((SECONDS - told)) -ge "$LIFE_S" ]; then
            told=$SECONDS
            say "      $((SECONDS - started)) s, still at work: $(news "$line")"
            line=$(last_line)
        fi
        sleep 0.5
    done
    if [ -t 1 ]; then printf '\r%76s\r' ""; fi
    wait "$CHILD" || code=$?
    CHILD=""
    if [ "$code" -ne 0 ]; then
        telling "$LOG" | tail -n 15 >&2
        fail "this failed: $* (the whole log is in $LOG)"
    fi
}

# The log's last line. Where that was told already, or is pip's of what it took away, which stands
# there for as long as it unpacks: how much lies in the folder FILLS, and fetched beside it, by now.
news() {
    local line
    line=$(last_line)
    case "$line" in
        "$1" | "Successfully uninstalled "*)
            if [ -d "$FILLS" ]; then
                printf 'fetching and unpacking, %s MB so far' \
                    "$(du -smc "$FILLS" ${SCRATCH:+"$SCRATCH"} 2>/dev/null | tail -n 1 | cut -f 1)"
            else
                printf 'nothing new in %s' "$LOG"
            fi
            ;;
        *) printf '%s' "$line" ;;
    esac
}

# What the log says last in words or numbers, as much of its beginning as fits a line.
last_line() {
    telling "$LOG" | tail -c 20000 | tr '\r' '\n' |
        sed -n '/[[:alnum:]]/h; ${x;s/^[[:space:]]*//;p}' | cut -c -90
}

# The log without pip's word, once a package, on each folder that its configuration names and that
# is not there. All else that it warns of is shown.
telling() { sed '/ is ignored: it is n\?either a \(file nor a directory\|non-existing path\)/d' "$@"; }

# Runs a command with its output indented.
shown() {
    local line code=0
    exec 3< <(exec "$@" </dev/null)
    CHILD=$!
    while IFS= read -r line <&3; do say "      $line"; done
    exec 3<&-
    wait "$CHILD" || code=$?
    CHILD=""
    return "$code"
}

# A command in the background does not hear Ctrl-C. apt-get is let finish: half of it is worse.
interrupted() {
    trap '' INT TERM
    if [ -n "$CHILD" ]; then
        case "$STAGE" in
            packages) say "" "stopping as soon as apt-get is done" ;;
            *) kill "$CHILD" 2>/dev/null || true ;;
        esac
        wait "$CHILD" 2>/dev/null || true
    fi
    printf '\n'
    [ "$MODE" = appliance ] || : >"${LOG:-/dev/null}" # there the whole of it is kept
    fail "interrupted; ./install.sh goes on where this ended" 130
}

# An empty log tells nobody anything.
leave() {
    if [ -n "$SCRATCH" ]; then rm -rf "$SCRATCH"; fi
    if [ -n "$LOG" ] && [ ! -s "$LOG" ]; then rm -f "$LOG"; fi
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
    command -v socat >/dev/null || echo socat
    command -v rg >/dev/null || echo ripgrep
    command -v unshare >/dev/null && command -v setpriv >/dev/null || echo util-linux
    python=$(find_python)
    if [ -z "$python" ]; then
        echo python3
        echo python3-venv
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    if [ -n "$python" ] && ! command -v redis-server >/dev/null && ! has_embedded_redis "$python"; then
        echo redis-server
    fi
}

# Whether Redis comes along as a Python package: pyproject.toml says for which it does.
has_embedded_redis() {
    "$1" -c 'import platform, sys; sys.exit(sys.version_info >= (3, 13) or platform.machine() != "x86_64")'
}

# Twice at most: which Python came decides about Redis.
install_packages() {
    local wanted
    mapfile -t wanted < <(missing_packages)
    if [ "${#wanted[@]}" -eq 0 ]; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        fail "missing: ${wanted[*]} (so Debian calls them). Install them, then run this again" 3
    elif [ "$(id -u)" -ne 0 ]; then
        fail "missing: ${wanted[*]}. Install them, then run this again:
    sudo apt-get update && sudo apt-get install -y ${wanted[*]}" 3
    fi
    say "      installing ${wanted[*]}"
    STAGE=packages
    [ "$UPDATED" = yes ] || quietly apt-get update
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"
    STAGE=""
    case " ${wanted[*]} " in
        *" redis-server "*) systemctl disable --now redis-server >>"$LOG" 2>&1 || true ;; # we start our own
    esac
    if [ -z "$(find_python)" ]; then
        fail "this system's Python is older than 3.11; install Python 3.11 or newer, then run this again" 3
    fi
    if [ "$UPDATED" = no ]; then
        UPDATED=yes
        install_packages
    fi
}

# Root's agents work as an account that owns nothing.
make_hands_account() {
    if [ "$(id -u)" -eq 0 ] && ! id ai-hands >/dev/null 2>&1; then
        useradd --system --no-create-home --shell /usr/sbin/nologin ai-hands
        say "      made the account ai-hands: agents' tools run as it, never as root"
    fi
}

# As the agents' tools will run, before anything large is fetched.
try_sandbox() {
    local said switch=() key keys=() name
    [ "$(id -u)" -ne 0 ] || switch=(runuser -u ai-hands --)
    if said=$(cd / && "${switch[@]}" bwrap --unshare-user --disable-userns --unshare-pid --unshare-net \
        --ro-bind / / --proc /proc --dev /dev true 2>&1); then
        return
    fi
    say "      ${said:-bwrap said nothing}" >&2
    case "$said" in
        *"Read-only file system"*)
            fail "this is a container whose /proc/sys is read-only, so agents could not be sandboxed in it.
    Use a virtual machine, or start the container with a writable /proc/sys and nesting allowed" 3
            ;;
    esac
    for key in kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 \
        user.max_user_namespaces=15000; do
        name=${key%=*}
        if [ -e "/proc/sys/${name//.//}" ]; then keys+=("$key"); fi
    done
    fail "user namespaces are refused on this machine, so agents could not be sandboxed. As root:
    sysctl -w ${keys[*]}
    To keep it after a restart, put these into a file in /etc/sysctl.d, one a line" 3
}

# The runtime of the agents' sandbox, pinned and checked by hash, and a trial of the whole.
install_sandbox() {
    say "      the sandbox's runtime, from npm's configured registry"
    quietly .venv/bin/python -m agents --install-sandbox
    quietly .venv/bin/python -m agents --canary
}

# PyTorch's build for NVIDIA cards is 3 GB that a machine without one has no use for. The build for
# processors wins by itself wherever pip finds it; where it does not, say so before it is fetched.
look_at_torch() {
    local wanted report
    wanted=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
    if [ -z "$wanted" ] || [ -e /proc/driver/nvidia/version ]; then return; fi
    say "      looking which build of PyTorch pip's package index has"
    report=$(.venv/bin/python -m pip install --disable-pip-version-check --quiet --dry-run \
        --ignore-installed --no-deps --report - "$wanted" 2>>"$LOG") || return 0
    if grep -Eq '"(nvidia|cuda)-' <<<"$report"; then
        say "      this machine has no NVIDIA card, and pip's package index has PyTorch for those only (3 GB)." \
            "      For the small build, also at each update: Ctrl-C, this, and ./install.sh again:" \
            "      $PWD/.venv/bin/python -m pip config set global.extra-index-url <index of PyTorch's CPU builds>"
    fi
}

# The mark stands while .venv is half made; one found at the start means: begin anew.
install_python_packages() {
    if [ -e .venv/.half-made ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -rf .venv
    fi
    if cmp -s pyproject.toml .venv/.installed; then
        say "      already there"
        return
    fi
    mkdir -p .venv
    touch .venv/.half-made
    [ -x .venv/bin/python ] || quietly "$(find_python)" -m venv .venv
    SCRATCH=$(mktemp -d)
    look_at_torch
    FILLS=.venv
    quietly env TMPDIR="$SCRATCH" .venv/bin/python -m pip install --disable-pip-version-check --editable .
    quietly .venv/bin/python -m compileall -q base pai agents supervisor workers portal provision
    FILLS=""
    cp pyproject.toml .venv/.installed
    rm -f .venv/.half-made
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
    OURS=$(printf '%q' "$COMMAND")
    [ "$AI_INFRA_HOME" = "$HOME/.ai-infra" ] || OURS="AI_INFRA_HOME=$(printf '%q' "$AI_INFRA_HOME") $OURS"
}

ask_for_key() {
    local key file=$AI_INFRA_HOME/secrets/anthropic-api-key
    key=${ANTHROPIC_API_KEY:-}
    unset ANTHROPIC_API_KEY
    if [ -s "$file" ] && { [ -z "$key" ] || [ "$key" = "$(cat "$file")" ]; }; then
        say "      the key in $file is used"
        return
    elif [ -z "$key" ] && [ -n "${AI_INFRA_ANTHROPIC_BASE_URL:-${ANTHROPIC_BASE_URL:-}}" ]; then
        say "      the model is at ${AI_INFRA_ANTHROPIC_BASE_URL:-$ANTHROPIC_BASE_URL}"
        return
    fi
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
}

# What the running programs were started with: their code, and which model answers.
fingerprint() {
    local key=$AI_INFRA_HOME/secrets/anthropic-api-key
    {
        find base pai agents supervisor workers portal config pyproject.toml -type f \
            ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 cat
        if [ -s "$key" ]; then stat -c %Y "$key"; fi
        printf '%s' "${AI_INFRA_ANTHROPIC_BASE_URL:-${ANTHROPIC_BASE_URL:-}}"
    } | cksum
}

start() {
    local mark=$AI_INFRA_HOME/.started-with now
    now=$(fingerprint)
    if [ -e "$mark" ] && [ "$(cat "$mark")" != "$now" ] &&
        ! .venv/bin/python -m supervisor status --json 2>/dev/null | grep -q '"state": "down"'; then
        say "      it runs with the code or key of before; restarting"
        shown .venv/bin/ai-infra down || fail "could not stop it; see: $OURS doctor"
    fi
    shown .venv/bin/ai-infra up || fail "it did not start; see: $OURS doctor"
    printf '%s\n' "$now" >"$mark"
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
    local text='Look at the workspace and write into a file what you find there.'
    say "      $text" ""
    .venv/bin/ai-infra ask --effort standard "$text" || fail "the first task failed; see: $OURS doctor"
}

goodbye() {
    local link port
    link=$(.venv/bin/ai-infra login-link) || fail "no login link; see: $OURS doctor"
    port=${link#*://*:}
    port=${port%%/*}
    say "" "It runs. What now:"
    say "  portal   $link"
    say "           (signs you in once, within 15 minutes; another: $OURS login-link)"
    if [ -n "${SSH_CONNECTION:-}" ]; then
        say "           from your own computer first: ssh -L $port:127.0.0.1:$port $(id -un)@$(server_address)"
    fi
    say "  watch    $OURS attach    (tmux: Ctrl+b n next window, Ctrl+b d leave)"
    say "  ask      $OURS ask 'What is in the workspace?'"
    say "  state    $OURS status"
    say "  stop     $OURS down    (start: $OURS up, also when the machine was restarted)"
}

# The address by which the person who is logged in reached this machine.
server_address() {
    local theirs their_port ours rest
    read -r theirs their_port ours rest <<<"$SSH_CONNECTION"
    printf '%s' "$ours"
}

# Whether programs of another home run from this checkout. A pattern among grep's arguments
# would find grep itself.
in_use() { grep -qsF -f <(printf '%s\n' "$PWD/.venv/bin/python") /proc/[0-9]*/cmdline; }

uninstall() {
    local link folder
    STEPS=2
    step "stopping"
    if [ -x .venv/bin/ai-infra ] && [ -d "$AI_INFRA_HOME" ]; then
        shown .venv/bin/ai-infra down || fail "could not stop everything; nothing was removed"
    fi
    step "removing"
    if [ "$PURGE" = yes ]; then
        purge
    else
        say "      kept your state in $AI_INFRA_HOME (--uninstall --purge removes it)"
    fi
    if in_use; then
        say "      kept .venv: something still runs from it, another installation or an open ai-infra command;" \
            "      end that and run this again to remove it, too"
        return
    fi
    for folder in /usr/local/bin "$HOME/.local/bin"; do
        link=$folder/ai-infra
        if [ "$(readlink "$link" 2>/dev/null)" = "$PWD/.venv/bin/ai-infra" ]; then rm -f "$link"; fi
    done
    if [ -x .venv/bin/python ]; then .venv/bin/python -m agents --remove-sandbox || true; fi
    rm -rf .venv ./*.egg-info
    find base pai agents supervisor workers portal provision -name __pycache__ -prune -exec rm -rf {} +
    say "Uninstalled. This checkout is all that is left of it; remove it as you like."
}

# Everything this home wrote, wherever its settings put it.
purge() {
    local folders folder
    if [ ! -d "$AI_INFRA_HOME" ]; then
        say "      there is no $AI_INFRA_HOME"
        return
    fi
    folders=$(.venv/bin/python -c \
        'from base import settings as s; c = s.load(); print(c.run, c.workspaces, sep="\n")' 2>/dev/null) || true
    while IFS= read -r folder; do
        case "$folder" in /tmp/ai-infra-* | /var/lib/ai-infra-workspaces/*) rm -rf "$folder" ;; esac
    done <<<"$folders"
    chattr -a "$AI_INFRA_HOME/audit/heads.jsonl" 2>/dev/null || true # append-only where it can be
    rm -rf "$AI_INFRA_HOME"
    say "      removed $AI_INFRA_HOME"
    rmdir /var/lib/ai-infra-workspaces 2>/dev/null || true
    if [ "$(id -u)" -eq 0 ] && id ai-hands >/dev/null 2>&1 && ! [ -e /var/lib/ai-infra-workspaces ] &&
        ! in_use && userdel ai-hands 2>/dev/null; then
        say "      removed the account ai-hands"
    fi
}

# Makes AI_INFRA_HOME absolute. It must be a folder of its own: --purge removes it whole.
check_home() {
    local home=${AI_INFRA_HOME:-$HOME/.ai-infra} real other
    case "$home" in "~/"*) home=$HOME/${home#"~/"} ;; esac
    home=$(realpath -ms -- "$home")
    real=$(realpath -m -- "$home")
    for other in "$HOME" "$FOLDER"; do
        case "$(realpath -m -- "$other")/" in
            "${real%/}/"*) fail "AI_INFRA_HOME=$home holds other things; name a folder of its own" 2 ;;
        esac
    done
    # A trial of the sandbox alone leaves `run`.
    if [ -n "$(ls -A -I run -- "$home" 2>/dev/null)" ] && ! [ -d "$home/config" ]; then
        fail "AI_INFRA_HOME=$home is not empty and not ours; name a folder of its own" 2
    fi
    export AI_INFRA_HOME=$home
}

check_port() {
    case "${AI_INFRA_PORT:-8000}" in
        *[!0-9]* | ??????*) fail "AI_INFRA_PORT=$AI_INFRA_PORT is no port: a number from 1 to 65535" 2 ;;
    esac
    if [ "${AI_INFRA_PORT:-8000}" -lt 1 ] || [ "${AI_INFRA_PORT:-8000}" -gt 65535 ]; then
        fail "AI_INFRA_PORT=$AI_INFRA_PORT is no port: a number from 1 to 65535" 2
    fi
}

# The appliance where one can be, unless this account has a local installation already.
choose_mode() {
    [ -z "$MODE" ] || return 0
    MODE=local
    if [ -r "$FOLDER/provision/appliance.sh" ] && fits_appliance; then
        if [ -e /etc/ai-infra/packages-before ] || ! [ -d "${AI_INFRA_HOME:-$HOME/.ai-infra}/config" ]; then MODE=appliance; fi
    fi
}

# What dpkg has here, a name a line.
packages_here() { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' | awk '$1 == "ii" {print $2}' | LC_ALL=C sort -u; }

# Piped from a URL: the rest of the product is fetched first. What git brings is told to `remember`.
fetch_source() {
    local folder=${AI_INFRA_SOURCE_FOLDER:-/usr/local/src/ai-infrastructure} before
    [ -n "${AI_INFRA_SOURCE:-}" ] || fail "run this from a checkout, or name one to fetch: AI_INFRA_SOURCE=<git URL>" 2
    if ! command -v git >/dev/null; then
        [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || fail "git is missing" 3
        say "fetching git" >&2
        before=$(packages_here)
        apt-get install -y -qq --no-install-recommends git ca-certificates >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends git ca-certificates; } >&2 ||
            fail "git could not be installed" 3
        mkdir -p "$(dirname "$folder")"
        packages_here | LC_ALL=C comm -13 <(printf '%s\n' "$before") - >"$folder.packages-came"
    fi
    if [ -d "$folder/.git" ]; then git -C "$folder" pull --quiet --ff-only; else git clone --quiet --depth 1 "$AI_INFRA_SOURCE" "$folder"; fi ||
        fail "could not fetch $AI_INFRA_SOURCE"
    exec "$folder/install.sh" "$@"
}

main() {
    local given=("$@")
    MODE="" CHECK=no VARS=""
    STEP=0 STEPS=5 YES=no TASK=yes UNINSTALL=no PURGE=no COMMAND=ai-infra OURS=ai-infra CHILD="" STAGE="" LOG="" SCRATCH="" FILLS="" UPDATED=no LIFE_S=10 LOOK_S=4
    while [ $# -gt 0 ]; do
        case "$1" in
            --local) MODE=local ;;
            --appliance) MODE=appliance ;;
            --check) CHECK=yes ;;
            --vars) VARS=${2:-}; [ -n "$VARS" ] || fail "--vars wants a file" 2; shift ;;
            --yes | -y) YES=yes ;;
            --no-task) TASK=no ;;
            --uninstall) UNINSTALL=yes ;;
            --purge) PURGE=yes ;;
            --help | -h) usage; exit 0 ;;
            *) usage >&2; fail "unknown option: $1" 2 ;;
        esac
        shift
    done
    if [ "$PURGE" = yes ] && [ "$UNINSTALL" = no ]; then fail "--purge goes with --uninstall" 2; fi
    [ -n "${HOME:-}" ] || fail "HOME is not set" 2
    FOLDER=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]:-.}")")
    PATH=$PATH:/usr/sbin:/sbin
    if ! { [ -f "$FOLDER/pyproject.toml" ] && [ -d "$FOLDER/supervisor" ]; }; then fetch_source "${given[@]}"; fi
    # shellcheck source=provision/appliance.sh
    if [ -r "$FOLDER/provision/appliance.sh" ]; then . "$FOLDER/provision/appliance.sh"; fi
    choose_mode
    if [ "$MODE" = appliance ]; then
        trap interrupted INT TERM
        trap leave EXIT
        if [ "$UNINSTALL" = yes ]; then uninstall_appliance; else appliance; fi
        return
    fi
    if [ "$CHECK" = yes ] || [ -n "$VARS" ]; then fail "--check and --vars go with --appliance" 2; fi
    check_home
    check_port
    cd "$FOLDER"
    trap interrupted INT TERM
    trap leave EXIT
    if [ "$UNINSTALL" = yes ]; then
        uninstall
        return
    fi
    LOG=$(mktemp "${TMPDIR:-/tmp}/ai-infra-install.XXXXXX.log")
    say "AI Infrastructure, local mode; state in $AI_INFRA_HOME, log in $LOG"
    step "checking the machine"
    install_packages
    make_hands_account
    try_sandbox
    step "installing Python packages into .venv (some minutes the first time)"
    install_python_packages
    mkdir -p "$AI_INFRA_HOME/config" # from here on it is known as ours, should this end half way
    install_sandbox
    link_command
    step "configuring"
    keep_port
    ask_for_key
    step "starting"
    start
    step "first task through the whole system"
    if [ "$TASK" = yes ]; then first_task; else say "      left out (--no-task)"; fi
    if [ -s "$LOG" ]; then mv -f "$LOG" "$AI_INFRA_HOME/logs/install.log"; fi
    goodbye
}

# In braces, so that nothing runs before all of this file has arrived.
{
    main "$@"
    exit
}
