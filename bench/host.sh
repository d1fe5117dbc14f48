#!/usr/bin/env bash
# What AxonFS does on this machine: `scale`, `cold` and `warm` with 1, 4, 8 and 16 readers, and, if the machine has a
# GPU, with torch loads into it, and with vLLM `vllm serve` from the mount. Under five minutes on 16 cores, and no network.
#
#   bench/host.sh [NAME]            writes bench/results/hosts/NAME/*.json and bench/details.md; NAME is "16-cores" or so
#   bench/host.sh --pack FOLDER     on a machine with a network: the wheels for a host without one
#
# It needs, and checks first: Linux, root, /dev/fuse, fusermount3, nginx, curl and openssl; 12 GiB free in
# AXONFS_BENCH_DIR (default /var/tmp) and 6 GiB in /dev/shm; and one of
#   - .venv in this checkout, made by tools/bench or tools/test, or carried here with its Python at the same path;
#   - PYTHON, a Python in whose environment AxonFS is installed from this checkout;
#   - wheels/ beside this checkout, or in AXONFS_BENCH_WHEELS, made by --pack for this version of Python.
# torch is that of `python3` on the PATH, or of AXONFS_BENCH_TORCH; vLLM is `vllm` on the PATH, or AXONFS_BENCH_VLLM.

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"

READERS=(1 4 8 16)
# What the bench imports beside AxonFS and its packages.
PACKAGES=(httpx numpy pyfuse3 safetensors)
WHEELS=${AXONFS_BENCH_WHEELS:-$ROOT/../wheels}
cd "$ROOT"

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

pack() {
    find_python || die "needs Python 3.11, 3.12 or 3.13; set PYTHON to its path."
    "$PYTHON" -m pip wheel -q --wheel-dir "$1" -c tools/requirements.lock "${PACKAGES[@]}" "$ROOT" ||
        die "could not build the wheels; $network_hint."
}

# Whether this Python runs the mount and the bench of this checkout, with its compiled modules.
IMPORTS="import axonfs.fuse.session, axonfs.cli.main, bench.ready"
runs_bench() { [[ -x $1 && -n $(compgen -G "$ROOT/axonfs/*/*.so") ]] && "$1" -c "$IMPORTS" 2>/dev/null; }

need_environment() {
    if [[ -n ${PYTHON:-} ]]; then
        PYTHON=$(command -v "$PYTHON") || die "PYTHON is no command."
        runs_bench "$PYTHON" || die "PYTHON does not run the bench. Its error, unless axonfs/ has no compiled modules:
$("$PYTHON" -c "$IMPORTS" 2>&1 | tail -n 1)"
        return
    fi
    runs_bench "$VENV/bin/python" || unpack
    PYTHON=$VENV/bin/python
}

unpack() {
    [[ -d $WHEELS ]] || die "needs an environment: .venv, PYTHON, or wheels in $WHEELS. See bench/host.sh --help."
    find_python || die "needs Python 3.11, 3.12 or 3.13, with the module venv; set PYTHON to its path."
    "$PYTHON" -m venv --clear "$VENV" >&2 || die "could not make a virtual environment in $VENV."
    "$VENV/bin/python" -m pip install -q --no-index --find-links "$WHEELS" "${PACKAGES[@]}" axonfs >&2 ||
        die "could not install from $WHEELS; pip's output is above. Was it packed with $("$PYTHON" -V)?"
    # The checkout's own modules come first, so its compiled ones must lie beside them.
    (cd "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" &&
        find axonfs -name '*.so' -exec cp --parents {} "$ROOT" \;)
    runs_bench "$VENV/bin/python" || die "the wheels in $WHEELS do not fit this checkout: pack them from it."
}

need_programs() {
    local name missing=()
    for name in fusermount3 nginx curl openssl; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$name" >/dev/null || missing+=("$name")
    done
    ((${#missing[@]} == 0)) ||
        die "needs ${missing[*]} (Debian and Ubuntu: apt-get install fuse3 nginx-light curl openssl)."
}

# need_space FOLDER GIB
need_space() {
    local free
    free=$(($(df --output=avail -k "$1" | tail -n 1) >> 20))
    ((free >= $2)) || die "needs $2 GiB free in $1, which has $free."
}

need_host() {
    [[ $(uname -s) == Linux ]] || die "needs Linux."
    ((EUID == 0)) || die "needs root, to sample the processors and for passthrough."
    need_fuse_device
    need_environment
    need_space "$BENCH_DIR" 12
    need_space /dev/shm 6
    need_programs
}

# ask EXPERIMENT ARGUMENT…: a failure does not prevent the others.
ask() {
    "$PYTHON" -m "bench.$1" "${@:2}" </dev/null || failed+=("$1")
}

find_vllm() {
    export AXONFS_BENCH_VLLM=${AXONFS_BENCH_VLLM:-$(command -v vllm)}
    has_gpu && [[ -x $AXONFS_BENCH_VLLM ]]
}

find_torch() {
    export AXONFS_BENCH_TORCH=${AXONFS_BENCH_TORCH:-$torch}
    has_gpu && "$AXONFS_BENCH_TORCH" -c "import torch, safetensors" 2>/dev/null
}

case ${1:-} in
-h | --help) usage && exit 0 ;;
--pack) pack "${2:?--pack needs a folder}" && exit 0 ;;
-*) usage >&2 && exit 2 ;;
esac

BENCH_DIR=${AXONFS_BENCH_DIR:-/var/tmp}
name=${1:-$(nproc)-cores}
export AXONFS_BENCH_RESULTS=$ROOT/bench/results/hosts/$name
failed=()
step "what this needs" need_host
torch=$(command -v python3 || true)
export PATH=$(dirname "$PYTHON"):$PATH:/usr/sbin:/sbin
step "scale" ask scale --rounds 1 --readers "${READERS[@]}"
step "cold" ask cold --rounds 1 --readers "${READERS[@]}"
step "warm" ask warm --rounds 1 --readers "${READERS[@]}"
if find_torch; then
    step "safetensors into the GPU" ask gpu --quick
else
    say "==> no load into a GPU: it needs a GPU, and a Python with torch in AXONFS_BENCH_TORCH"
fi
if find_vllm; then
    step "vllm serve" ask ready --quick
else
    say "==> no vllm serve: it needs a GPU, and vllm on the PATH or in AXONFS_BENCH_VLLM"
fi
step "bench/details.md" "$PYTHON" -m bench.report

say_timings
if ((${#failed[@]})); then die "failed: ${failed[*]}; their errors are above."; fi
say ""
say "The results are in $AXONFS_BENCH_RESULTS; bench/details.md has the table."
