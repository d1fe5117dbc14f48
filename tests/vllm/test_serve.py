"""vLLM serves a model from the mount with a cold cache exactly as from a plain directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vllm.mounting import axonfs, mounted, registry_serving
from tests.vllm.serving import Answer, Vllm, vllm_serving

# A start of vLLM on two cores takes about a minute, and each test starts it twice.
pytestmark = [pytest.mark.vllm, pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Answers:
    """What one server said to the questions that every server is asked."""

    completion: Answer
    chat: Answer


def ask(server: Vllm) -> Answers:
    """Put the same questions to any server."""
    return Answers(
        completion=server.complete("Once upon a time there was a little"),
        chat=server.chat("What is the capital of France?"),
    )


def from_directory(program: Path, model: Path, scratch: Path) -> Answers:
    """Serve the plain directory and ask."""
    with vllm_serving(program, model, scratch) as server:
        return ask(server)


def from_mount(program: Path, model: Path, spec: str, scratch: Path) -> Answers:
    """Publish the directory, mount the registry on a cold cache, serve from there and ask."""
    axonfs("publish", model, spec, "--to", scratch / "registry")
    with (
        registry_serving(scratch / "registry", scratch / "registry.log") as registry,
        mounted(registry, scratch) as mount,
        vllm_serving(program, mount.version(spec), scratch) as server,
    ):
        answers = ask(server)
        fetched = mount.status()["fetch"]["bytes"]
        assert fetched >= size_of(model.glob("*.safetensors")), "the cache was not cold"
        assert fetched <= size_of(model.iterdir()), "bytes were fetched twice"
        return answers


def size_of(files: Iterable[Path]) -> int:
    """Bytes in all of them."""
    return sum(path.stat().st_size for path in files)


def assert_alike(lazy: Answers, plain: Answers) -> None:
    """The same tokens, chosen as surely."""
    assert lazy == plain
    assert lazy.completion.logprobs == pytest.approx(plain.completion.logprobs, abs=1e-3)
    assert lazy.chat.logprobs == pytest.approx(plain.chat.logprobs, abs=1e-3)


def scratch(tmp_path: Path, name: str) -> Path:
    """A directory of its own for each server."""
    directory = tmp_path / name
    directory.mkdir()
    return directory


def test_real_model_answers_alike(vllm_program: Path, smollm2: Path, tmp_path: Path) -> None:
    """`vllm serve MOUNT/NAME/VERSION` needs no flag that a plain directory does not need."""
    plain = from_directory(vllm_program, smollm2, scratch(tmp_path, "plain"))
    spec = "nlp/smollm2-135m-instruct@1.0.0"
    lazy = from_mount(vllm_program, smollm2, spec, scratch(tmp_path, "mount"))
    assert_alike(lazy, plain)
    assert "Paris" in lazy.chat.text


def test_many_shards_answer_alike(vllm_program: Path, random_llama: Path, tmp_path: Path) -> None:
    """A model of many shards loads whole: one wrong weight changes what random weights say."""
    plain = from_directory(vllm_program, random_llama, scratch(tmp_path, "plain"))
    lazy = from_mount(vllm_program, random_llama, "nlp/random@1.0.0", scratch(tmp_path, "mount"))
    assert_alike(lazy, plain)
    assert len(lazy.completion.tokens) == 12
