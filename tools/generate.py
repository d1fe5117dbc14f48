"""Let vLLM answer one question with a model directory, in one process.

Run it with the Python of the vLLM environment; standard output has only the answer.

    python tools/generate.py MODEL QUESTION
"""

from __future__ import annotations

import os
import sys
import tempfile


def generate(model: str, question: str, caches: str) -> str:
    """The greedy answer of the instruct model in the directory `model`."""
    # Before the import of vllm, which reads them. One process starts in half the time of three.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CACHE_ROOT": caches,
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    }
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=model,
        dtype="float32",  # bfloat16 gives another answer on processors with AMX
        max_model_len=512,
        max_num_seqs=4,
        enforce_eager=True,
        distributed_executor_backend="uni",
    )
    messages = [{"role": "user", "content": question}]
    (output,) = llm.chat(messages, SamplingParams(max_tokens=32, temperature=0), use_tqdm=False)
    answer: str = output.outputs[0].text
    return answer


def main(arguments: list[str]) -> int:
    """Print the answer, or the usage."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as caches:
        print(generate(arguments[0], arguments[1], caches))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
