"""Which changes a watcher hears of, and when."""

from __future__ import annotations

from axonfs.engine import MAX_KEPT, Changes
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


def test_without_a_watcher_a_bounded_number_of_changes_is_kept() -> None:
    changes, heard = Changes(), list[tuple[set[str], set[Spec]]]()
    for number in range(MAX_KEPT + 10):
        changes.objects([f"{number}", f"{number}.5"])
        changes.version(Spec("nlp", "tiny", f"1.0.{number}"))
    with changes.watched(lambda objects, versions: heard.append((objects, versions))):
        assert [(len(kept[0]), len(kept[1])) for kept in heard] == [(MAX_KEPT, MAX_KEPT)]
        changes.objects(map(str, range(2 * MAX_KEPT)))
    assert len(heard[1][0]) == 2 * MAX_KEPT
