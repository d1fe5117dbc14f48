"""Which changes a watcher hears of, and when."""

from __future__ import annotations

from axonfs.engine import Changes
from axonfs.names import Spec, parse_spec

SPEC = parse_spec("nlp/tiny@1.0.0")


def test_a_watcher_hears_what_was_kept_and_then_each_change_at_once() -> None:
    changes, heard = Changes(), list[tuple[set[str], set[Spec]]]()
    changes.objects(["a", "b"])
    changes.objects(["a"])
    changes.version(SPEC)
    with changes.watched(lambda objects, versions: heard.append((objects, versions))):
        assert heard == [({"a", "b"}, {SPEC})]
        changes.objects(["c"])
        changes.version(SPEC)
        assert heard[1:] == [({"c"}, set()), (set(), {SPEC})]
    changes.objects(["d"])
    assert len(heard) == 3
    with changes.watched(lambda objects, versions: heard.append((objects, versions))):
        assert heard[3:] == [({"d"}, set())]
