"""Let transformers load a model directory, and print how the model goes on with a text.

python tools/installing/write_sentence.py MODEL TEXT
"""

from __future__ import annotations

import os
import sys


def write(model: str, text: str) -> str:
    """The greedy continuation of `text`, on one line."""
    # Before the first import of transformers, which reads them.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokens = tokenizer(text, return_tensors="pt")
    written = loaded.generate(**tokens, max_new_tokens=24, do_sample=False)
    sentence: str = tokenizer.decode(written[0], skip_special_tokens=True)
    return " ".join(sentence.split())


def main(arguments: list[str]) -> int:
    """Print one line, or the usage."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    print(write(arguments[0], arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
