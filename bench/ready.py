"""The start of `vllm serve` from a cold mount until it is ready, on the machine of host.sh.

The registry is on loopback, so the line takes no part. A start from a local directory comes first.
It also loads vLLM's own files, so it is no fair rival, but it shows what a start takes on this
machine. serve.py makes the fair comparison, which takes longer. AXONFS_BENCH_VLLM is the vllm
program.
"""

from __future__ import annotations

from axonfs.names import parse_spec
from axonfs.publish import publish
from bench.experiment import Answer, experiment
from bench.fixtures import cold_mount, scratch
from bench.origin import serving
from bench.serve import MODEL, SHARD, SPEC, program, ready
from tools.make_llama import make_llama

WHAT = "vllm serve ready, 2 GB"


def main() -> None:
    with experiment("ready", __doc__, quick_rounds=1) as trial, scratch() as work:
        program()
        model = work / "model"
        make_llama(model, MODEL, shard_bytes=SHARD)
        trial.figures["bytes"] = publish(model, parse_spec(SPEC), work / "registry").bytes
        local = ready(model, work)["seconds"]
        trial.answer(Answer(f"{WHAT}, local, the first start", "–", local, "s"))
        with serving(work / "registry", work) as origin, cold_mount(origin.url, work) as mount:
            origin.warm()
            cold = ready(mount.version(SPEC), work)["seconds"]
            trial.answer(Answer(f"{WHAT}, cold", "–", cold, "s"))


if __name__ == "__main__":
    main()
