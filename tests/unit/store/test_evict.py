"""The choice of what to evict: enough, no more than needed, oldest first, never what is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axonfs.store.evict import HEADROOM, Limit, Rules, choose_victims, limits_of, taken
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
RULES = st.builds(
    Rules,
    st.sampled_from([0.0, 10.0, 50.0]),
    st.dictionaries(st.sampled_from(["nlp", "hf/*", "vision"]), st.integers(0, 3000)),
)
OBJECTS = st.fixed_dictionaries({"nlp": SOME, "hf/*": SOME, "vision": SOME})


def all_of(over: int, infos: list[ObjectInfo]) -> list[Limit]:
    """The limit of the whole cache that is exceeded by `over` bytes."""
    limit = sum(each.present_bytes for each in infos) - over
    return [Limit(limit, limit)]


@given(INFOS, SOME, SOME, st.integers(-10, 5000))
def test_victims_are_the_oldest_that_suffice(
    infos: list[ObjectInfo], pinned: set[str], held: set[str], over: int
) -> None:
    by_digest = {each.digest: each for each in infos}
    chosen = choose_victims(infos, pinned, held, all_of(over, infos))
    victims = [by_digest[digest] for digest in chosen]
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


@given(INFOS, SOME, SOME, RULES, OBJECTS)
def test_each_limit_is_kept_by_objects_that_it_is_for(
    infos: list[ObjectInfo],
    pinned: set[str],
    held: set[str],
    rules: Rules,
    objects: dict[str, set[str]],
) -> None:
    now, whole = 100.0, 2000
    limits = [*limits_of(infos, rules, objects, now), Limit(whole, whole)]
    victims = choose_victims(infos, pinned, held, limits)
    assert len(victims) == len(set(victims))
    assert not set(victims) & (pinned | held)
    left = [each for each in infos if each.digest not in victims]
    free = {each.digest for each in left if each.present_bytes} - pinned - held
    old = {each.digest for each in infos if rules.ttl and now - each.accessed > rules.ttl}
    assert not free & old, "what nothing used for long is left"
    used = taken(left, {scope: objects[scope] for scope in rules.quotas})
    for scope, most in rules.quotas.items():
        assert used[scope] <= most or not free & objects[scope], "a namespace is over its quota"
    total = sum(each.present_bytes for each in left)
    assert total <= whole or not free
    exceeded = [limit for limit in limits if _used(limit, infos) > limit.most]
    covered = {each.digest for each in infos if any(limit.covers(each) for limit in exceeded)}
    assert set(victims) <= covered, "an object went for which no limit is exceeded"


def _used(limit: Limit, infos: list[ObjectInfo]) -> int:
    return sum(each.present_bytes for each in infos if limit.covers(each))


@given(INFOS, RULES, OBJECTS)
def test_a_second_look_finds_nothing_more(
    infos: list[ObjectInfo], rules: Rules, objects: dict[str, set[str]]
) -> None:
    limits = limits_of(infos, rules, objects, 100.0)
    gone = choose_victims(infos, set(), set(), limits)
    left = [each for each in infos if each.digest not in gone]
    assert choose_victims(left, set(), set(), limits_of(left, rules, objects, 100.0)) == []


def test_a_namespace_gives_up_its_own_least_recently_used() -> None:
    """Also where another namespace has older ones; and a little more than it has to."""
    infos = [info(name, 100, float(age)) for age, name in enumerate(NAMES)]
    rules, objects = Rules(quotas={"nlp": 380}), {"nlp": set(NAMES[4:])}
    limits = limits_of(infos, rules, objects, 0.0)
    assert choose_victims(infos, set(), set(), limits) == [NAMES[4]]
    assert choose_victims(infos, {NAMES[4]}, {NAMES[5]}, limits) == [NAMES[6]]
    assert limits[0].goal == int(380 * HEADROOM)


def test_what_a_quota_evicts_counts_for_the_whole() -> None:
    infos = [info(NAMES[0], 100, 1.0), info(NAMES[1], 100, 2.0)]
    rules, objects = Rules(quotas={"nlp": 0}), {"nlp": {NAMES[1]}}
    limits = [*limits_of(infos, rules, objects, 0.0), Limit(100, 100)]
    assert choose_victims(infos, set(), set(), limits) == [NAMES[1]]


def test_a_file_that_two_namespaces_share_counts_for_both() -> None:
    infos = [info(NAMES[0], 100, 1.0, private_of=NAMES[5])]
    objects = {"nlp": {NAMES[5]}, "hf/*": {NAMES[5], NAMES[6]}}
    assert taken(infos, objects) == {"nlp": 100, "hf/*": 100}


def test_a_bad_object_goes_before_an_older_good_one() -> None:
    infos = [info(NAMES[0], 500, 1.0), info(NAMES[1], 500, 9.0, "wrong sha256")]
    assert choose_victims(infos, set(), set(), all_of(1, infos)) == [NAMES[1]]


def test_a_pin_keeps_private_objects_of_its_content_too() -> None:
    infos = [info(NAMES[0], 500, 1.0, private_of=NAMES[5]), info(NAMES[1], 500, 2.0)]
    assert choose_victims(infos, {NAMES[5]}, set(), all_of(1000, infos)) == [NAMES[1]]


def test_an_object_is_held_under_its_own_key() -> None:
    infos = [info(NAMES[0], 500, 1.0, private_of=NAMES[5]), info(NAMES[5], 500, 2.0)]
    assert choose_victims(infos, set(), {NAMES[5]}, all_of(1000, infos)) == [NAMES[0]]
