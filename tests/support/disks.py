"""Small real file systems that can be full, read-only or broken. Root alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN: from then on everything fails with EIO
_FREEZE, _THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW
_NO_LOG_FLUSH = (2).to_bytes(4, "little")


class Disk:
    """One mounted file system; `close` takes it away, used or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def tmpfs(cls, path: Path, size: int) -> Disk:
        path.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", path)
        return cls(path)

    @classmethod
    def ext4(cls, path: Path, size: int) -> Disk:
        image = path.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", image)
        path.mkdir()
        _run("mount", "-o", "loop,errors=remount-ro", image, path)
        return cls(path)

    def fill(self, leave: int = 0) -> Path:
        """Use up the space but for `leave` bytes; returns the file to remove."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:
            for unit in (MIB, 4096, 4096):  # what a sync gives back goes as well
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(unit))
                os.fsync(file.fileno())
            file.truncate(max(file.seek(0, os.SEEK_END) - leave, 0))
        return filler

    def make_read_only(self) -> None:
        """As the kernel does after an error, also while files are open for writing."""
        device = re.search(rf"^(\S+) {self.path} ", Path("/proc/mounts").read_text(), re.MULTILINE)
        assert device is not None
        trigger = Path("/sys/fs/ext4", Path(device[1]).name, "trigger_fs_error")
        trigger.write_text("a test")

    def break_down(self) -> None:
        """Nothing can be read or written any more."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Writes hang, as on a disk that does not answer, until the block is left."""
        descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, _THAW, 0)
            os.close(descriptor)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
