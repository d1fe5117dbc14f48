"""One `vllm serve` process and the questions that the tests ask of it.

Started in a session of its own, so that stopping it takes the engine core and every worker along:
an orphaned engine holds 3 GB. Blocking; a test uses one server at a time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

from tests.vllm.ports import free_port

READY_SECONDS = 400.0
STOP_SECONDS = 30.0
MODEL = "m"
# In bfloat16 a processor with AMX has a model as small as SmolLM2 say something else.
DTYPE = "float32"
FLAGS = ("--max-model-len", "512", "--enforce-eager", "--max-num-seqs", "4")


@dataclass(frozen=True)
class Answer:
    """What a model said, as text and as the tokens it chose, and how sure it was of each."""

    text: str
    tokens: tuple[int, ...]
    # Not compared: two runs may add up in another order. They tell more than the tokens, though:
    # a wrong weight that does not change the likeliest token changes these.
    logprobs: tuple[float, ...] = field(compare=False)


class VllmFailedError(Exception):
    """The server ended, or did not get ready in time; carries the end of its log."""


@dataclass(frozen=True)
class Vllm:
    """A server that is ready."""

    url: str
    ready_seconds: float

    def complete(self, prompt: str, tokens: int = 12) -> Answer:
        """Continue `prompt` greedily through /v1/completions."""
        body = {"prompt": prompt, "max_tokens": tokens, "logprobs": 0}
        choice = self._ask("completions", body)
        logprobs = choice["logprobs"]["token_logprobs"]
        return Answer(choice["text"], tuple(choice["token_ids"]), tuple(logprobs))

    def chat(self, question: str, tokens: int = 24) -> Answer:
        """Answer `question` greedily through /v1/chat/completions."""
        messages = [{"role": "user", "content": question}]
        body = {"messages": messages, "max_tokens": tokens, "logprobs": True}
        choice = self._ask("chat/completions", body)
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        return Answer(choice["message"]["content"], tuple(choice["token_ids"]), tuple(logprobs))

    def _ask(self, endpoint: str, body: Mapping[str, object]) -> dict[str, Any]:
        fixed = {"model": MODEL, "temperature": 0, "return_token_ids": True}
        response = httpx.post(f"{self.url}/v1/{endpoint}", json={**fixed, **body}, timeout=120)
        response.raise_for_status()
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice


@dataclass(frozen=True)
class Starting:
    """A server that may not be ready yet."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def ready(self) -> Vllm:
        """Wait until it is ready; raises VllmFailedError if it never will be."""
        wait_ready(f"{self.url}/health", self.process, self.log)
        return Vllm(self.url, time.monotonic() - self.began)


@contextlib.contextmanager
def vllm_starting(
    program: Path,
    model: Path,
    scratch: Path,
    *,
    dtype: str = DTYPE,
    flags: Sequence[str] = (),
    variables: Mapping[str, str] = {},
) -> Iterator[Starting]:
    """Start to serve the directory `model`; `scratch` takes the log and vLLM's own caches.

    Args:
        flags, variables: more flags, and environment variables, for vLLM.
    """
    port = free_port()
    command = [str(program), "serve", str(model), "--served-model-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, *FLAGS, *flags]
    settings, log = {**environment(scratch), **variables}, scratch / "vllm.log"
    with log.open("wb") as output, process_group(command, settings, output) as process:
        yield Starting(f"http://127.0.0.1:{port}", process, log, time.monotonic())


@contextlib.contextmanager
def vllm_serving(program: Path, model: Path, scratch: Path) -> Iterator[Vllm]:
    """Serve the directory `model`, and wait until the server is ready."""
    with vllm_starting(program, model, scratch) as starting:
        yield starting.ready()


def environment(scratch: Path) -> dict[str, str]:
    """Our environment, but no way to ask a hub, and nothing written outside `scratch`."""
    settings = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HOME": str(scratch / "huggingface"),
        "VLLM_CACHE_ROOT": str(scratch / "vllm"),
    }
    return os.environ | settings


@contextlib.contextmanager
def process_group(
    command: list[str], environment: dict[str, str], output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a process group of its own and leave nothing of the group behind."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        # Also when the leader is gone: its workers may have outlived it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `url` answers; raises VllmFailedError when that cannot happen any more."""
    deadline = time.monotonic() + READY_SECONDS
    while not answers(url):
        if process.poll() is not None:
            raise VllmFailedError(f"vllm ended with {process.returncode}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise VllmFailedError(f"vllm was not ready in {READY_SECONDS:.0f} s:\n{tail(log)}")
        # No event tells when another program listens; a start takes most of a minute.
        time.sleep(0.25)


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds now."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def tail(log: Path) -> str:
    """The end of a log, which is where vLLM says why."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])
