"""What the vLLM tests need from outside, and the models that they serve.

tools/test provides vLLM and SmolLM2 and names them in the environment; without those names the
tests are skipped, since setting them up takes gigabytes and minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.make_llama import Size, make_llama

SHARD_BYTES = 8 << 20


def provided(variable: str) -> Path:
    """A path that tools/test passes on."""
    value = os.environ.get(variable)
    if value is None:
        pytest.skip(f"{variable} is not set; tools/test sets up vLLM and sets it")
    return Path(value)


@pytest.fixture(scope="session")
def vllm_program() -> Path:
    """The `vllm` command."""
    return provided("AXONFS_TEST_VLLM")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a real model, in a plain directory."""
    return provided("AXONFS_TEST_SMOLLM2")


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated model of many small shards, in a plain directory."""
    directory = tmp_path_factory.mktemp("random-llama")
    make_llama(directory, Size(), shard_bytes=SHARD_BYTES)
    return directory
