# What bin/test and bin/quickstart share: words, Debian packages, the Python environment, process ids.
# shellcheck shell=bash
# Sourced with ROOT set to the repository; every function says in its first line what it does.

say() { printf '==> [%3d s] %s\n' $SECONDS "$*"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

clean_environment() {  # what a user's shell may carry must not change what is run or found
    unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS PYTEST_ADDOPTS VIRTUAL_ENV CDPATH
    unset LIBVIRT_DEFAULT_URI
    export LC_ALL=C.UTF-8 PYTHONNOUSERSITE=1 PATH=$PATH:/usr/sbin:/sbin
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

packages() {  # SECTION... -> the packages of these sections of bin/_packages
    awk -v wanted=" $* " '/^#/ || !NF {next} /^\[/ {gsub(/[][]/, ""); on = index(wanted, " " $0 " "); next} on' \
        "$ROOT/bin/_packages"
}

missing_packages() {  # SECTION... -> those not installed
    local installed
    # shellcheck disable=SC2046
    installed=$(dpkg-query -W -f='${db:Status-Abbrev}:${Package}\n' $(packages "$@") 2>/dev/null | sed -n 's/^ii *://p') || true
    packages "$@" | grep -vxF -- "$installed" || true
}

install_packages() {  # SECTION...: install what is missing, starting no daemon
    local missing
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    say "installing Debian packages: $missing"
    # shellcheck disable=SC2086
    without_daemons apt_get install --no-install-recommends $missing
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -q update >"$APT_LOG" 2>&1 &&
        DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "$@" \
            >>"$APT_LOG" 2>&1
}

without_daemons() {  # COMMAND...: run it while a policy-rc.d forbids packages to start services
    local policy=/usr/sbin/policy-rc.d saved='' status=0
    APT_LOG=$(mktemp)
    if [ -e $policy ]; then saved=$(mktemp -u $policy.XXXXXX); mv $policy "$saved"; fi
    # shellcheck disable=SC2064
    trap "restore_policy '$saved'" EXIT
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod +x $policy
    "$@" || status=$?
    restore_policy "$saved"
    trap - EXIT
    if [ $status != 0 ]; then
        tail -n 30 "$APT_LOG" >&2
        fail "apt-get failed; the whole log is $APT_LOG. Is the package mirror reachable?"
    fi
    rm -f "$APT_LOG"
}

restore_policy() {
    rm -f /usr/sbin/policy-rc.d
    if [ -n "$1" ]; then mv "$1" /usr/sbin/policy-rc.d; fi
}

new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {  # print a Python that can make the environment
    local candidate
    for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then command -v "$candidate"; return; fi
    done
    fail "needs Python 3.11 or newer with venv${PYTHON:+ (PYTHON=$PYTHON is not that)}: apt-get install python3 python3-venv"
}

ensure_venv() {  # EXTRA...: make .venv hold micronova with these extras; at once when nothing has changed
    local stamp=$ROOT/.venv/.installed sum had='' extra wanted=''
    sum=$(printf '%s' "$ROOT" | cat "$ROOT/setup.cfg" "$ROOT/pyproject.toml" - | sha256sum | cut -d' ' -f1)
    if ! new_enough "$ROOT/.venv/bin/python"; then make_venv; fi
    if [ -f "$stamp" ]; then had=$(sed -n 2p "$stamp"); fi
    for extra in "$@"; do
        case " $had " in *" $extra "*) ;; *) wanted="$wanted $extra" ;; esac
    done
    if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$sum" ] && [ -z "$wanted" ]; then return; fi
    wanted=$(xargs <<< "$had $wanted")
    say "installing micronova${wanted:+ with $wanted} into .venv"
    rm -f "$stamp"
    (cd "$ROOT" && .venv/bin/python -m pip install -q --disable-pip-version-check --root-user-action=ignore \
        -e ".${wanted:+[${wanted// /,}]}") || fail "pip failed, see above. Is the package index reachable?"
    printf '%s\n%s\n' "$sum" "$wanted" > "$stamp"
}

make_venv() {
    local python
    python=$(find_python)
    say "making .venv with $python ($("$python" -V))"
    "$python" -m venv --clear "$ROOT/.venv"
}

# A process id is remembered with the process's start time, so that a stale file never points at a stranger. One that has
# ended has none, though nobody may have asked for its end yet: in containers process 1 often does not.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'; }
remember_pid() { printf '%s %s\n' "$2" "$(start_time "$2")" > "$1"; }  # FILE PID
running_pid() {  # FILE -> the process id, or status 1 when that process is gone
    local pid started
    read -r pid started 2>/dev/null < "$1" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

wait_until() {  # SECONDS COMMAND...: poll; status 1 when it never succeeded
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -le $deadline ] || return 1
        sleep 0.1
    done
}
