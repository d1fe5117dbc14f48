"""The tests under sanitizers find faults: each of these fails them, in a copy of the core."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.native.build import ADDRESS, SOURCES, THREAD, Sanitizer, build, run


class Fault(NamedTuple):
    """`old` in a source file becomes `new`; `also` is a second such change of the file."""

    name: str
    file: str
    old: str
    new: str
    also: tuple[str, str] = ("", "")
    sanitizer: Sanitizer = ADDRESS


_RAISE = "    atomic_fetch_add(&object->epoch, 1);\n"
_CLEAR = "void object_clear(struct object *object, uint64_t first, uint64_t stop)\n{\n"
_BIT = ">> chunk % 64 & 1;\n}\n\n/* Whether"
_ANSWER = "                reply(unique, 0, data, read->size);\n"
_LOCK, _UNLOCK = "    pthread_mutex_lock(&lock);\n", "    pthread_mutex_unlock(&lock);\n"
_MARK = "    if ((handle = *handle_find(fh)))\n        handle->mark = offset;\n"

_FAULTS = (
    Fault("no epoch check", "reads.c", "atomic_load(&object->epoch) == epoch", "(epoch | 1)"),
    Fault("epoch not raised", "objects.c", _RAISE, ""),
    Fault(
        "epoch raised before the bits are cleared",
        "objects.c",
        _CLEAR,
        f"{_CLEAR}{_RAISE} if (stop - first < 5) {{\n{_UNLOCK} usleep(500);\n{_LOCK} }}\n",
        (f"    }}\n{_RAISE}", "    }\n"),
    ),
    Fault("old epoch lands", "module.c", "(uint64_t)seen == atomic_load(&object->epoch)", "true"),
    Fault(
        "bits stay", "objects.c", "(atomic_fetch_and(&object->bits[chunk / 64], ~bit) & bit)", "bit"
    ),
    Fault("another bit", "objects.c", _BIT, _BIT.replace("chunk", "(chunk ^ 1)", 1)),
    Fault("not woken", "reads.c", "        pthread_cond_signal(&ready_condition);\n", ";"),
    Fault(
        "not told",
        "reads.c",
        "    object_want(object, read, read->since);\n",
        "",
    ),
    Fault(
        "never late",
        "objects.c",
        "    late_at = now + later;\n",
        "    late_at = now + later * later;\n",
    ),
    Fault("not wanted late", "objects.c", " && now - read->since < later", ""),
    Fault("others fail", "reads.c", "read->size <= first * object->chunk", "0 * first > 1 << 30"),
    Fault(
        "answered twice",
        "reads.c",
        _ANSWER,
        f"{_ANSWER}                if (unique % 64 == 0)\n    {_ANSWER}",
    ),
    Fault("no reference", "reads.c", "    read.object->references++;\n", ""),
    Fault("leak", "reads.c", "    free(own);\n", "    (void)own;\n"),
    Fault("no lock", "module.c", f"{_LOCK}{_MARK}{_UNLOCK}", _MARK, sanitizer=THREAD),
)


@pytest.mark.parametrize("fault", _FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    sources = tmp_path / "native"
    shutil.copytree(SOURCES, sources)
    text = (sources / fault.file).read_text()
    for old, new in ((fault.old, fault.new), fault.also):
        assert not old or text.count(old) == 1, old
        text = text.replace(old, new) if old else text
    (sources / fault.file).write_text(text)
    extension = build(fault.sanitizer, tmp_path, sources)
    with pytest.raises(AssertionError) as found:
        run(fault.sanitizer, extension, "drive_world", 10, 1, tmp_path, limit=200)
    print(str(found.value)[-1500:])
