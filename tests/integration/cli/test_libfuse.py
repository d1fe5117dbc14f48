"""Without libfuse3 or pyfuse3: what mounts says what to install, and everything else works."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import axonfs
from axonfs.connection import libfuse
from tests.support.commands import Run
from tests.support.registry import RegistryServer, published

PACKAGE = Path(axonfs.__file__).parent
BUILT = list(PACKAGE.glob("fuse/_native.*so"))


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=debian\n")
    candidates = (str(tmp_path / "os-release"),)
    monkeypatch.setattr(platform, "_os_release_candidates", candidates)
    monkeypatch.setattr(platform, "_os_release_cache", None)


@pytest.fixture
def release_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A release wheel, on a machine without libfuse3."""
    monkeypatch.setattr(libfuse, "BUNDLED", tmp_path)
    monkeypatch.setattr(libfuse, "SONAMES", ("libfuse3.so.999",))


@pytest.mark.usefixtures("debian", "release_wheel")
def test_a_mount_without_libfuse_names_the_package(run: Run, tmp_path: Path) -> None:
    done = run("mount", str(tmp_path / "models"), "--registry", "http://127.0.0.1:9")
    assert done.code == 1
    assert done.err == "axonfs: libfuse3 is not installed; apt install fuse3\n"
    assert not (tmp_path / "models").exists()


@pytest.mark.usefixtures("debian", "release_wheel")
def test_doctor_without_libfuse_names_the_package(run: Run) -> None:
    done = run("doctor", "--json")
    (check,) = (item for item in json.loads(done.out) if item["name"] == "libfuse3")
    assert (done.code, check["state"], check["hint"]) == (1, "fail", "apt install fuse3")


def test_an_installation_from_source_without_pyfuse3_names_the_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "pyfuse3" else importlib.util.find_spec(name)

    monkeypatch.setattr(libfuse, "BUNDLED", tmp_path / "none")
    monkeypatch.setattr(libfuse, "find_spec", find)
    done = run("mount", str(tmp_path / "models"), "--registry", "http://127.0.0.1:9")
    assert done.code == 1
    assert "pip install 'axonfs[pyfuse3]'" in done.err


def test_what_needs_no_mount_never_imports_pyfuse3(tmp_path: Path) -> None:
    """It works where libfuse3 is missing: publish, search, pin, the client, the registry server."""
    registry, cache = published(tmp_path), tmp_path / "cache"
    model = tmp_path / "models/nlp/tiny/1.0.0"
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pyfuse3' or name.endswith('._native'):\n"
        "            raise ImportError('libfuse3.so.3: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from axonfs.cli.main import main\n"
        "sys.exit(main())\n"
    )
    with RegistryServer(registry) as server:
        source = ("--registry", server.url)
        for words in (
            ("search", "tiny", *source),
            ("pin", "nlp/tiny@1.0.0", *source, "--cache", str(cache)),
            ("info", "nlp/tiny@1.0.0", *source, "--cache", str(cache)),
            ("publish", str(model), "nlp/other@1.0.0", "--to", str(registry)),
            ("list", "--cache", str(cache)),
        ):
            done = subprocess.run(
                [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
            )
            assert (done.returncode, "pyfuse3" in done.stderr) == (0, False), (words, done.stderr)


@pytest.mark.skipif(not BUILT, reason="the extension is not built")
def test_a_release_wheel_uses_its_own_extension_and_pyfuse3(tmp_path: Path) -> None:
    """Those for the newest libfuse3 that is there, before a pyfuse3 of the environment."""
    copy = tmp_path / "axonfs"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    name = libfuse.soname()
    assert name is not None
    for soname in libfuse.SONAMES:
        (copy / "fuse/bundled" / soname / "pyfuse3").mkdir(parents=True)
        (copy / "fuse/bundled" / soname / "pyfuse3/__init__.py").touch()
        shutil.copy(BUILT[0], copy / "fuse/bundled" / soname)
    code = "import axonfs.fuse._native as n, pyfuse3 as p; print(n.__file__, p.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    directory = copy / "fuse/bundled" / name
    assert done.stdout.split() == [
        str(directory / BUILT[0].name),
        str(directory / "pyfuse3/__init__.py"),
    ]
