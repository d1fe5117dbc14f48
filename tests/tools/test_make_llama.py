"""The generated model: its files say the same thing, and say it again the next time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize

from tools.make_llama import SPECIAL, Size, byte_alphabet, make_llama, merge, shards, train_bpe

SMALL = Size(hidden=64, layers=2, intermediate=128, vocabulary=300)
SHARD_BYTES = 100_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_llama(tmp_path / "model", SMALL, shard_bytes=SHARD_BYTES)
    return tmp_path / "model"


def test_shards_hold_each_tensor_once(model: Path) -> None:
    index = json.loads((model / "model.safetensors.index.json").read_text())
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path in sorted(model.glob("*.safetensors")):
        for name, tensor in deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
            assert name not in found
            found[name] = (path.name, tuple(tensor["shape"]))
    assert {name: shape for name, (_, shape) in found.items()} == dict(SMALL.tensors())
    assert {name: shard for name, (shard, _) in found.items()} == index["weight_map"]
    assert len(set(index["weight_map"].values())) > 2


def test_same_options_give_same_bytes(model: Path, tmp_path: Path) -> None:
    make_llama(tmp_path / "again", SMALL, shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "again") == contents(model)


def test_other_seed_gives_other_weights(model: Path, tmp_path: Path) -> None:
    make_llama(tmp_path / "other", SMALL, shard_bytes=SHARD_BYTES, seed=1)
    shard = next(model.glob("model-00001*")).name
    assert (tmp_path / "other" / shard).read_bytes() != (model / shard).read_bytes()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_vocabulary_fits_the_embedding(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert [vocabulary[text] for text in SPECIAL] == [0, 1, 2]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= SMALL.vocabulary


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(2, 100))
def test_shards_keep_order_and_limit(widths: list[int], limit: int) -> None:
    tensors = [(str(number), (width,)) for number, width in enumerate(widths)]
    cut = shards(tensors, limit)
    assert [tensor for shard in cut for tensor in shard] == tensors
    assert all(len(shard) == 1 or sum(2 * w for _, (w,) in shard) <= limit for shard in cut)


def test_alphabet_names_every_byte_differently() -> None:
    assert len(set(byte_alphabet().values())) == 256


@given(st.text("ab", max_size=20))
def test_merge_joins_from_the_left(text: str) -> None:
    assert (
        merge(tuple(text), ("a", "a"))
        == tuple(
            symbol
            for run in text.split("b")
            for symbol in (*["aa"] * (len(run) // 2), *run[: len(run) % 2], "b")
        )[:-1]
    )


def test_most_frequent_pair_is_learned_first() -> None:
    assert train_bpe(["abab", "ab", "ac"], 2) == [("a", "b"), ("ab", "ab")]
