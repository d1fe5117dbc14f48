"""What is read out of README.md and config.json, and that neither can make a publish fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.publish.metadata import Description, describe, format_of

CONFIG = b'{"architectures": ["BertModel"], "model_type": "bert", "transformers_version": "4.1"}'
README = """\ufeff---
license: [apache-2.0]
description: Finds sentences
  that are alike
library_name: sentence-transformers
tags:
- feature-extraction
- bert
- 7
pipeline_tag: sentence-similarity
---
# all-MiniLM
"""


def test_everything_that_is_said_is_taken() -> None:
    assert describe(["model.safetensors", "pytorch_model.bin"], README.encode(), CONFIG) == (
        Description(
            description="Finds sentences that are alike",
            license="apache-2.0",
            framework="sentence-transformers",
            format="safetensors",
            tags=("feature-extraction", "bert", "sentence-similarity", "BertModel"),
        )
    )


def test_the_config_alone_says_transformers() -> None:
    told = describe(["pytorch_model.bin"], b"", CONFIG)
    assert (told.framework, told.tags) == ("transformers", ("bert", "BertModel"))


def test_the_format_alone_says_its_framework() -> None:
    assert describe(["model.onnx"], b"", b"").framework == "onnx"


@pytest.mark.parametrize(
    ("readme", "title"),
    [
        ("# Title", "Title"),
        ("\n\nwords\n## Second #\n", "Second"),
        ("---\nlicense: mit\n---\n\n# After\n", "After"),
        ("---\n# a comment, no title\n---\nwords\n", ""),
        ("words only", ""),
        ("#hashtag", ""),
        ("# \x1b[2Jbold", "?[2Jbold"),
    ],
)
def test_without_a_description_the_title_is_one(readme: str, title: str) -> None:
    assert describe([], readme.encode(), b"").description == title


@pytest.mark.parametrize(
    "readme",
    ["---\nlicense: &a mit\n---\n", "---\n[\n---\n", "---\n- a\n---\n", "---\nlicense: mit"],
)
def test_front_matter_that_is_none_says_nothing(readme: str) -> None:
    assert describe([], readme.encode(), b"") == Description()


@given(st.binary(), st.binary())
def test_any_bytes_will_do(readme: bytes, config: bytes) -> None:
    told = describe(["x"], b"---\n" + readme + b"\n---\n# t", config)
    assert (told.format, told.framework) == ("", "")


@pytest.mark.parametrize("config", [b"[", b"[]", b"[" * 100_000, b'{"architectures": 5}', b"\xff"])
def test_a_config_that_is_none_says_nothing(config: bytes) -> None:
    assert describe([], b"", config) == Description()


@pytest.mark.parametrize(
    ("paths", "form"),
    [
        (["a/Model.GGUF"], "gguf"),
        (["model.onnx", "x.safetensors"], "safetensors"),
        (["consolidated.00.pth"], "pytorch"),
        (["tf_model.h5"], "tensorflow"),
        (["flax_model.msgpack"], "flax"),
        (["tokenizer.json", "README.md"], ""),
    ],
)
def test_the_format_comes_from_the_names_of_the_weights(paths: list[str], form: str) -> None:
    assert format_of(paths) == form
