"""The wheel: what it ships, and that its users get types."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import axonfs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

USER = """\
import io
from datetime import datetime
from pathlib import Path

import axonfs
from axonfs import errors


def show(progress: axonfs.Progress) -> None:
    print(f"{progress.done / progress.total:.0%}", progress.path)


def sizes(spec: str) -> dict[str, int]:
    with axonfs.Client(registries="http://models.example.org", offline=True) as client:
        found: axonfs.ModelInfo = client.info(spec)
        created: datetime | None = found.created
        listed: list[axonfs.ModelListing] = client.search("llama", sources=["hf"])
        latest: str | None = client.versions("nlp/tiny").latest
        pinned: axonfs.PinResult = client.pin(spec, include="*.json", progress=show)
        place: Path = client.path(spec, "config.json")
        limit: int = client.status().cache_limit
        print(created, listed, latest, pinned.fetched, place, limit)
        try:
            file: io.BufferedReader = client.open(spec, "config.json")
            with file:
                head: bytes = file.read(8)
            with client.open(spec, "config.json", buffering=0) as raw:
                raw.readinto(bytearray(8))
        except errors.NotFoundError as exc:
            print(exc.spec, exc.hint)
        except errors.AxonError as exc:
            raise SystemExit(exc.exit_code) from exc
        else:
            print(head)
        return {item.path: item.size for item in found.files}
"""

WRONG = """\
import axonfs

axonfs.Clint()
axonfs.Client(cash="/tmp")
size: str = axonfs.Client().info("nlp/tiny").size
axonfs.Client().info("nlp/tiny").size = 3
"""


def uv(*arguments: str | Path) -> None:
    """Run uv, with the network only where its cache lacks something."""
    command = [str(UV), *map(str, arguments)]
    if subprocess.run([*command, "--offline"], capture_output=True, check=False).returncode:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    if not UV.exists():
        pytest.skip("uv is not installed; tools/test installs it")
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    shutil.copytree(ROOT / "axonfs", source / "axonfs", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    uv("build", "--wheel", "--out-dir", source / "dist", source)
    (built,) = (source / "dist").glob("axonfs-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel, without what it depends on."""
    directory = tmp_path_factory.mktemp("environment")
    uv("venv", "--python", sys.executable, directory / "venv")
    python = directory / "venv/bin/python"
    uv("pip", "install", "--python", python, "--no-deps", wheel)
    return python


def mypy(python: Path, script: Path) -> subprocess.CompletedProcess[str]:
    """What `mypy --strict` says of a user's script, away from this checkout."""
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python)]
    command += ["--cache-dir", str(script.parent / "cache"), str(script)]
    return subprocess.run(
        command, cwd=script.parent, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_wheel_has_its_types_its_schema_its_page_and_its_file_system(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {"axonfs/py.typed", "axonfs/formats/manifest.schema.json"} <= set(names)
        page = {path.name for path in (ROOT / "axonfs/page").iterdir() if path.is_file()}
        assert {f"axonfs/page/{name}" for name in page} <= set(names)
        assert not [name for name in names if name.startswith(("tests/", "tools/", "bench/"))]
        (points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        text = archive.read(points).decode()
    assert "[fsspec.specs]\naxonfs = axonfs.client.filesystem:AxonFileSystem\n" in text


def test_the_installed_package_is_imported_without_what_it_depends_on(environment: Path) -> None:
    code = "import axonfs; print(axonfs.__version__, axonfs.errors.ReadError.errno)"
    done = subprocess.run(
        [environment, "-c", code], cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{axonfs.__version__} 5\n"


def test_a_user_s_script_is_type_checked(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    done = mypy(environment, tmp_path / "user.py")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "wrong.py").write_text(WRONG)
    done = mypy(environment, tmp_path / "wrong.py")
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(lines) == 4, done.stdout
    for number, code in ((3, "attr-defined"), (4, "call-arg"), (5, "assignment"), (6, "misc")):
        assert any(f"wrong.py:{number}:" in line and f"[{code}]" in line for line in lines)
