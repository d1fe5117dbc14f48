"""The choice of what to evict: enough, no more than needed, oldest first, never what is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axonfs.store.evict import choose_victims
from axonfs.store.records import ObjectInfo

NAMES = [f"{number:064x}" for number in range(8)]


def info(
    digest: str,
    present: int,
    accessed: float,
    quarantined: str | None = None,
    private_of: str | None = None,
) -> ObjectInfo:
    return ObjectInfo(
        digest, 1000, 100, present, present == 1000, quarantined, accessed, private_of
    )


INFOS = st.lists(
    st.builds(info, st.sampled_from(NAMES), st.integers(0, 1000), st.floats(0, 100)),
    unique_by=lambda each: each.digest,
)
SOME = st.sets(st.sampled_from(NAMES))


@given(INFOS, SOME, SOME, st.integers(-10, 5000))
def test_victims_are_the_oldest_that_suffice(
    infos: list[ObjectInfo], pinned: set[str], held: set[str], over: int
) -> None:
    by_digest = {each.digest: each for each in infos}
    victims = [by_digest[digest] for digest in choose_victims(infos, pinned, held, over)]
    free = [
        each
        for each in infos
        if each.digest not in pinned | held and each.present_bytes > 0 and each not in victims
    ]
    assert not {each.digest for each in victims} & (pinned | held)
    assert all(each.present_bytes > 0 for each in victims)
    freed = sum(each.present_bytes for each in victims)
    assert freed >= over or not free, "bytes were left that could have gone"
    if victims:
        assert freed - victims[-1].present_bytes < over, "the last one was not needed"
        assert all(each.accessed >= victims[-1].accessed for each in free)


def test_a_bad_object_goes_before_an_older_good_one() -> None:
    infos = [info(NAMES[0], 500, 1.0), info(NAMES[1], 500, 9.0, "wrong sha256")]
    assert choose_victims(infos, set(), set(), 1) == [NAMES[1]]


def test_a_pin_keeps_private_objects_of_its_content_too() -> None:
    infos = [info(NAMES[0], 500, 1.0, private_of=NAMES[5]), info(NAMES[1], 500, 2.0)]
    assert choose_victims(infos, {NAMES[5]}, set(), 1000) == [NAMES[1]]


def test_an_object_is_held_under_its_own_key() -> None:
    infos = [info(NAMES[0], 500, 1.0, private_of=NAMES[5]), info(NAMES[5], 500, 2.0)]
    assert choose_victims(infos, set(), {NAMES[5]}, 1000) == [NAMES[0]]
