# The appliance's part of install.sh, which sources this: a server with systemd, as root.
# What it uses of install.sh: say, fail, step, quietly, packages_here, shown, find_python, install_python_packages,
# look_at_torch; YES, CHECK, VARS, TASK, PURGE, FOLDER, LOG.

OPT=/opt/ai-infra ETC=/etc/ai-infra STATE=/var/lib/ai-infra LOGS=/var/log/ai-infra
#: What of a checkout is the product.
PARTS=(base pai agents supervisor workers portal provision config systemd nginx docs install.sh
    pyproject.toml README.md LICENSE CHANGELOG.md)

# Whether this machine can be one: root, systemd as the first process, a system that we know.
fits_appliance() {
    [ "$(id -u)" -eq 0 ] && [ -d /run/systemd/system ] && [ -r /etc/os-release ] || return 1
    case "$(. /etc/os-release && printf '%s:%s' "$ID" "${VERSION_ID:-}")" in
        debian:12 | debian:13 | ubuntu:24.04) ;;
        *) return 1 ;;
    esac
}

need_appliance() {
    [ "$(id -u)" -eq 0 ] || fail "the appliance wants root: sudo ./install.sh --appliance" 3
    [ -d /run/systemd/system ] || fail "the appliance wants systemd, which does not run here: ./install.sh --local" 3
    fits_appliance || fail "the appliance is for Debian 12, Debian 13 and Ubuntu 24.04; here: ./install.sh --local" 3
}

# One at a time: two would take each other's half for their own.
alone() {
    exec 9>/run/lock/ai-infra-install.lock
    flock -n 9 || fail "another install.sh is at work on this machine" 4
}

ask() {
    local name=$1 question=$2 secret=${3:-} answer=""
    printf '      %s' "$question"
    if [ -n "$secret" ]; then IFS= read -rs answer </dev/tty || answer=""; printf '\n'; else
        IFS= read -r answer </dev/tty || answer=""
    fi
    ANSWERS[$name]=$answer
}

# All questions before anything is done. What was answered once is kept, but for the key.
answers() {
    declare -gA ANSWERS=()
    if [ -n "$VARS" ]; then
        [ -r "$VARS" ] || fail "cannot read $VARS" 2
        VARS=$(realpath -- "$VARS")
        return
    fi
    [ "$YES" = no ] && [ "$CHECK" = no ] && [ ! -e "$ETC/vars.yml" ] && [ -t 1 ] && { : </dev/tty; } 2>/dev/null || return 0
    say "" "Four questions; Enter leaves each as it says."
    ask ai_domain "Name of this server, such as ai.example.org (Enter: its address): "
    [ -z "${ANSWERS[ai_domain]}" ] || ask ai_email "Mail for the certificate authority (Enter: none): "
    ask key "Your SSH public key, for ssh ai@this-server (Enter: the keys of root): "
    ask anthropic_api_key "Anthropic API key (Enter: the rehearsal model first): " secret
    say ""
}

# A string as YAML and JSON read it.
quoted() { python3 -c 'import json, sys; print(json.dumps(sys.argv[1]))' "$1"; }

# Before anything of ours is here: what must be there again after --uninstall.
remember() {
    mkdir -p "$ETC" "$LOGS"
    chmod 0750 "$LOGS"
    if [ ! -e "$ETC/packages-before" ]; then
        local came=/dev/null
        [ ! -e "$FOLDER.packages-came" ] || came=$FOLDER.packages-came
        packages_here | LC_ALL=C comm -23 - "$came" >"$ETC/.packages"
        mv "$ETC/.packages" "$ETC/packages-before"
        rm -f "$FOLDER.packages-came"
        apt-mark showmanual 2>/dev/null | sort -u >"$ETC/packages-manual"
    fi
    if [ ! -e "$ETC/firewall-ports" ]; then
        { ss -Hltn 2>/dev/null || true; } | awk '{print $4}' |
            grep -vE '^(127\.|\[::1\]|\[::ffff:127\.)' | sed 's/.*://' | sort -un >"$ETC/.ports" || true
        mv "$ETC/.ports" "$ETC/firewall-ports"
    fi
    local had
    if [ ! -e "$ETC/folders-before" ]; then
        for had in /var/www /var/backups/ai-infra /etc/systemd/journald.conf.d /etc/letsencrypt /var/lib/letsencrypt \
            /var/log/letsencrypt /etc/nginx /var/log/nginx /var/lib/nginx /etc/postgresql /var/lib/postgresql \
            /var/log/postgresql /etc/redis /var/lib/redis /var/log/redis /etc/fail2ban /var/lib/fail2ban \
            /var/log/fail2ban.log; do
            [ ! -e "$had" ] || printf '%s\n' "$had"
        done >"$ETC/.folders"
        mv "$ETC/.folders" "$ETC/folders-before"
    fi
}

bootstrap() {
    local wanted=()
    find_python >/dev/null
    [ -n "$(find_python)" ] || wanted+=(python3)
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || wanted+=(python3-venv)
    /usr/bin/python3 -c "import apt" 2>/dev/null || wanted+=(python3-apt)
    command -v ss >/dev/null || wanted+=(iproute2)
    [ "${#wanted[@]}" -eq 0 ] && return
    say "      installing ${wanted[*]}"
    STAGE=packages
    quietly dpkg --configure -a
    # A fresh server may be at its own updates for some minutes.
    local line=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y
        --no-install-recommends "${wanted[@]}")
    if ! "${line[@]}" </dev/null >>"$LOG" 2>&1; then # known packages need no list of new ones
        quietly apt-get -o DPkg::Lock::Timeout=300 update
        quietly "${line[@]}"
    fi
    STAGE=""
}

# The product as a release of its own. A version that is there with other contents is made anew.
bring_release() {
    local version now part parts=()
    for part in "${PARTS[@]}"; do [ ! -e "$FOLDER/$part" ] || parts+=("$part"); done
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$FOLDER/pyproject.toml")
    RELEASE=$OPT/releases/$version
    if [ "$FOLDER" = "$(realpath -m "$RELEASE")" ]; then return; fi
    now=$(cd "$FOLDER" && find "${parts[@]}" -type f ! -path '*/__pycache__/*' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$RELEASE/.fingerprint" 2>/dev/null)" != "$now" ]; then
        mkdir -p "$RELEASE"
        find "$RELEASE" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
        (cd "$FOLDER" && tar -c --exclude=__pycache__ --exclude='*.egg-info' --owner=0 --group=0 \
            --mode=go-w -f - "${parts[@]}") |
            tar -x -C "$RELEASE" -f -
        chmod 0755 "$OPT" "$OPT/releases" "$RELEASE"
        printf '%s\n' "$now" >"$RELEASE/.fingerprint"
        say "      $RELEASE"
    else
        say "      already there: $RELEASE"
    fi
}

appliance() {
    need_appliance
    alone
    umask 0022
    answers
    if [ "$CHECK" = yes ]; then check_only; return; fi
    remember
    LOG=$LOGS/install.log
    touch "$LOG" && chmod 0640 "$LOG"
    printf '\n== %s install.sh\n' "$(date --iso-8601=seconds)" >>"$LOG"
    say "AI Infrastructure, the appliance; log in $LOG"
    STEPS=4
    step "bringing the product and its Python (some minutes the first time)"
    bootstrap
    bring_release
    cd "$RELEASE"
    umask 0022
    install_python_packages
    step "setting the machine up"
    keep_answers
    local line=(.venv/bin/python -m provision.runner --log "$LOG" --vars "$ETC/vars.yml" --set "ai_release=$RELEASE")
    "${line[@]}" || fail "it is not whole yet; run this again, it goes on where this ended (log: $LOG)"
    step "proving that it works"
    local how=()
    [ "$TASK" = yes ] || how=(--no-task)
    .venv/bin/python -m provision.attest "${how[@]}" || fail "it does not work as it should; see above, and: ai-infra doctor"
    step "done"
    farewell
}

keep_answers() {
    local name key
    if [ -n "$VARS" ]; then
        install -m 0600 "$VARS" "$ETC/.vars.yml"
        mv "$ETC/.vars.yml" "$ETC/vars.yml"
    elif [ ! -e "$ETC/vars.yml" ]; then
        (
            umask 077
            for name in "${!ANSWERS[@]}"; do
                [ -n "${ANSWERS[$name]}" ] || continue
                case "$name" in
                    key) printf 'users_admin_keys: [%s]\n' "$(quoted "${ANSWERS[key]}")" ;;
                    *) printf '%s: %s\n' "$name" "$(quoted "${ANSWERS[$name]}")" ;;
                esac
            done >"$ETC/.vars.yml"
        )
        mv "$ETC/.vars.yml" "$ETC/vars.yml"
    fi
    key=${ANTHROPIC_API_KEY:-}
    unset ANTHROPIC_API_KEY
    # The key stays in no file of answers: it is laid where the installation takes it from, once.
    if [ -z "$key" ]; then
        key=$(sed -n 's/^anthropic_api_key: *"\{0,1\}\([!-~]*[!#-~]\)"\{0,1\} *$/\1/p' "$ETC/vars.yml")
    fi
    sed -i '/^anthropic_api_key:/d' "$ETC/vars.yml"
    if [ -n "$key" ]; then (umask 077 && printf '%s\n' "$key" >"$ETC/anthropic-api-key.new"); fi
}

# Says what would change and changes nothing: ansible alone, in a folder that goes away.
check_only() {
    local scratch python=$OPT/current/.venv/bin/python vars=()
    scratch=$(mktemp -d)
    SCRATCH=$scratch
    LOG=$scratch/log
    say "AI Infrastructure, the appliance: what would change (nothing is changed)"
    if [ ! -x "$python" ]; then
        /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null ||
            fail "to look ahead, python3-venv is needed: apt-get install python3-venv" 3
        quietly /usr/bin/python3 -m venv "$scratch/venv"
        quietly "$scratch/venv/bin/python" -m pip install --disable-pip-version-check $(sed -n 's/^ *"\(ansible-[^"]*\)".*/\1/p' "$FOLDER/pyproject.toml")
        python=$scratch/venv/bin/python
        say "      would bring: $OPT/releases/$(sed -n 's/^version = "\(.*\)"/\1/p' "$FOLDER/pyproject.toml"), and its Python packages"
    fi
    [ -e "$ETC/vars.yml" ] && vars=(--vars "$ETC/vars.yml")
    [ -z "$VARS" ] || vars=(--vars "$VARS")
    cd "$FOLDER"
    PYTHONDONTWRITEBYTECODE=1 "$python" -m provision.runner --check --log "$LOG" "${vars[@]}" --set "ai_release=$FOLDER" ||
        fail "the check could not be finished"
}

farewell() {
    local address
    address=$(sed -n 's/^AI_INFRA_PUBLIC_URL="\(.*\)"/\1/p' "$ETC/settings.env")
    [ -n "$address" ] || address=https://$(ip -o -4 addr show scope global 2>/dev/null | awk '{sub("/.*", "", $4); print $4; exit}' || true)
    [ "$address" != https:// ] || address=https://$(hostname)
    say "" "It runs, and starts with the machine. What now:"
    say "  portal   $address"
    say "           sign in: $(ai-infra login-link 2>/dev/null | sed 's|^[a-z]*://[^/]*|'"$address"'|')"
    say "  watch    ssh ai@this-server, then: tmux attach -t ai-infrastructure"
    say "  ask      ai-infra ask 'What is in the workspace?'"
    say "  state    ai-infra status; systemctl status 'ai-*'"
}

uninstall_appliance() {
    need_appliance
    alone
    LOG=$(mktemp /tmp/ai-infra-uninstall.XXXXXX.log)
    STEPS=2
    local python=$OPT/current/.venv/bin/python
    [ -x "$python" ] || python=$(ls -d "$OPT"/releases/*/.venv/bin/python 2>/dev/null | tail -n 1)
    step "stopping, and taking back what was changed"
    if [ -n "$python" ] && "$python" -c 'import ansible_runner' 2>/dev/null; then
        # Its own files go in the end: ansible runs from a copy of the project.
        (cd "$(dirname "$(dirname "$(dirname "$python")")")" && "$python" -m provision.runner \
            --playbook uninstall.yml --log "$LOG" --set "uninstall_purge=$PURGE") ||
            fail "not all of it could be taken back; run this again (log: $LOG)"
    else
        fail "the installation's Python is gone; run ./install.sh --appliance first, then this again"
    fi
    step "removing the product"
    cd /
    rm -rf "$OPT"
    if [ "$PURGE" = yes ]; then
        rm -rf "$ETC" "$LOGS"
        say "Uninstalled, with its data. The machine is as it was."
    else
        say "Uninstalled. Kept: $STATE, $ETC and the database; --uninstall --purge removes them, too."
    fi
    rm -f "$LOG"
}
