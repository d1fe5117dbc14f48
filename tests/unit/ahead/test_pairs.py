"""Which second open of a version shows a load."""

from __future__ import annotations

import os
import subprocess

import pytest

from axonfs.ahead.pairs import RECENT_SECONDS, REMEMBERED, Pairs
from axonfs.ahead.walks import MOST_AT_ONCE
from axonfs.names import parse_spec

SPEC = parse_spec("nlp/one@1")
SHARDS = [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
ME = os.getpid()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (SHARDS[0], SHARDS[1], SHARDS[0]),
        (SHARDS[1], SHARDS[0], SHARDS[0]),
        ("config.json", "model.safetensors", "model.safetensors"),
        (SHARDS[0], SHARDS[0], None),
        (SHARDS[0], "README.md", None),
        ("config.json", "tokenizer.json", None),
    ],
)
def test_the_second_file_shows_a_load(first: str, second: str, expected: str | None) -> None:
    pairs = Pairs()
    assert pairs.opened(SPEC, first, ME, 0.0) is None
    assert pairs.opened(SPEC, second, ME, 1.0) == expected


def test_but_not_long_after_the_first_one() -> None:
    pairs = Pairs()
    pairs.opened(SPEC, SHARDS[0], ME, 0.0)
    assert pairs.opened(SPEC, SHARDS[1], ME, RECENT_SECONDS) is None


def test_nor_if_one_program_after_the_other_opens_a_file() -> None:
    pairs = Pairs()
    ended = subprocess.Popen(["true"])
    ended.wait()
    pairs.opened(SPEC, SHARDS[0], ended.pid, 0.0)
    assert pairs.opened(SPEC, SHARDS[1], ME, 0.0) is None
    assert pairs.opened(SPEC, SHARDS[2], ended.pid + 1, 0.0) == SHARDS[1]  # another thread


def test_a_walk_through_the_shards_of_many_versions_is_soon_no_load() -> None:
    pairs, found = Pairs(), []
    for number in range(2 * REMEMBERED):
        spec = parse_spec(f"nlp/model{number}@1")
        found += [pairs.opened(spec, shard, ME, number / 100) for shard in SHARDS]
    assert len([path for path in found if path]) == 2 * MOST_AT_ONCE
