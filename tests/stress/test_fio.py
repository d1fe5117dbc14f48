"""fio writes a file with a checksum in each block, and checks what the mount gives back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import MountFactory
from tests.support.nginx import nginx
from tests.support.profile import SEED, report, scaled

pytestmark = [
    pytest.mark.mount,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("fio"), reason="fio is not installed"),
]

MIB = scaled(24, 256)
WAYS = {
    "sequential": ("--rw=read", "--ioengine=psync", "--bs=64k"),
    "random": ("--rw=randread", "--ioengine=psync", "--bs=4k-64k", "--bs_unaligned=0"),
    "direct": ("--rw=randread", "--ioengine=libaio", "--direct=1", "--iodepth=16", "--bs=64k"),
    "mapped": ("--rw=randread", "--ioengine=mmap", "--bs=64k"),
}
COMMON = (
    *("--name=job", "--verify=crc32c", "--verify_interval=4k", "--verify_fatal=1"),
    *(f"--size={MIB}m", f"--randseed={SEED}", "--thread", "--output-format=json"),
    "--verify_state_save=0",
)


def run_fio(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """fio on one file."""
    command = ["fio", *COMMON, f"--filename={path}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def fio(path: Path, *options: str) -> int:
    """Have fio verify one file, or lay it out; the bytes that it read."""
    done = run_fio(path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    assert job["error"] == 0
    return int(job["read"]["io_bytes"])


def flipped(path: Path) -> Path:
    """A copy with one wrong bit, which fio has to find for its verdict to mean anything."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 100] ^= 4
    copy = path.parent.parent / "flipped"
    copy.write_bytes(data)
    return copy


def test_verified(tmp_path: Path, start_mount: MountFactory) -> None:
    """Each block is right, read in a row and at random, through O_DIRECT and a mapping, cold in a
    cache that is too small and again from the kernel."""
    (tmp_path / "model").mkdir()
    laid_out = tmp_path / "model/weights.bin"
    fio(laid_out, "--rw=write", "--bs=64k", "--do_verify=0")
    for options in WAYS.values():
        assert run_fio(flipped(laid_out), "--readonly", *options).returncode != 0
    publish(tmp_path / "model", parse_spec("fio/laid-out@1.0.0"), tmp_path / "registry")
    read = 0
    with nginx(tmp_path / "registry", tmp_path / "nginx") as url:
        for limit in (MIB // 2, 4 * MIB):
            cache = tmp_path / f"cache{limit}"
            mount = start_mount(url, cache=cache, options=("--cache-size", str(limit << 20)))
            for _ in range(2):
                for options in WAYS.values():
                    path = mount.path / "fio/laid-out/1.0.0/weights.bin"
                    read += fio(path, "--readonly", "--allow_file_create=0", *options)
            mount.stop()
    assert read >= 2 * 2 * len(WAYS) * (MIB << 20) * 0.9
    report("fio", bytes=read, ways=len(WAYS))
