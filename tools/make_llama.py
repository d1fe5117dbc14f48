"""Write a Llama of any size with random weights, as a directory of shards that vLLM serves.

Needs only numpy, downloads nothing, and holds one tensor in memory at a time, so a benchmark can
make ten gigabytes. The same options always give the same bytes, so a test can compare two runs. The
tokenizer is a byte-level BPE trained here on toy text.

    python tools/make_llama.py OUT [--hidden 512 --layers 8 --shard-mb 32 --seed 0 …]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Shape = tuple[int, ...]

TEXT = """
the quick brown fox jumps over lazy dog model weight chunk cache lazily fetch range request file
system mount llama token serve prompt answer once upon a time there was little
"""
SPECIAL = ("<unk>", "<s>", "</s>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
HEAD_SIZE = 64
HEADS_PER_KEY_HEAD = 4


@dataclass(frozen=True)
class Size:
    """The numbers that fix a Llama's tensors."""

    hidden: int = 512
    layers: int = 8
    intermediate: int = 1408
    # As many as the toy text teaches; ids past those have a weight but no text.
    vocabulary: int = 384

    @property
    def heads(self) -> int:
        return self.hidden // HEAD_SIZE

    @property
    def key_heads(self) -> int:
        return max(1, self.heads // HEADS_PER_KEY_HEAD)

    def tensors(self) -> Iterator[tuple[str, Shape]]:
        """Names and shapes, in the order in which a loader meets them."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            for name, shape in self._layer_tensors():
                yield f"model.layers.{layer}.{name}.weight", shape
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    def _layer_tensors(self) -> Iterator[tuple[str, Shape]]:
        keys = self.key_heads * HEAD_SIZE
        yield "input_layernorm", (self.hidden,)
        yield "self_attn.q_proj", (self.hidden, self.hidden)
        yield "self_attn.k_proj", (keys, self.hidden)
        yield "self_attn.v_proj", (keys, self.hidden)
        yield "self_attn.o_proj", (self.hidden, self.hidden)
        yield "post_attention_layernorm", (self.hidden,)
        yield "mlp.gate_proj", (self.intermediate, self.hidden)
        yield "mlp.up_proj", (self.intermediate, self.hidden)
        yield "mlp.down_proj", (self.hidden, self.intermediate)

    def config(self) -> dict[str, object]:
        """The model's config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": HEAD_SIZE,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "torch_dtype": "bfloat16",
        }


def nbytes(shape: Shape) -> int:
    """Bytes of a bfloat16 tensor of that shape."""
    return 2 * math.prod(shape)


def shards(tensors: Iterable[tuple[str, Shape]], limit: int) -> list[list[tuple[str, Shape]]]:
    """Cut the tensors into runs of at most `limit` bytes; a larger tensor stands alone."""
    cut: list[list[tuple[str, Shape]]] = []
    room = 0
    for name, shape in tensors:
        if not cut or nbytes(shape) > room:
            cut.append([])
            room = limit
        cut[-1].append((name, shape))
        room -= nbytes(shape)
    return cut


def weights(generator: np.random.Generator, shape: Shape) -> bytes:
    """A tensor as bfloat16 bytes: norms are one, all else is drawn to keep a signal's size.

    Evenly and not normally, which makes a whole model in half the time.
    """
    if len(shape) == 1:
        values = np.ones(shape, dtype=np.float32)
    else:
        values = generator.random(shape, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32((12 / shape[1]) ** 0.5)
    # bfloat16 is the upper half of a float32; numpy has no such type of its own.
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


def safetensors_header(tensors: Sequence[tuple[str, Shape]]) -> bytes:
    """The head of a safetensors file: its own length, then JSON, padded to 8 bytes."""
    ends = list(itertools.accumulate(nbytes(shape) for _, shape in tensors))
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for (name, shape), start, end in zip(tensors, [0, *ends], ends, strict=False):
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_weights(out: Path, size: Size, shard_bytes: int, seed: int) -> None:
    """Write the shards and the index that names them."""
    generator = np.random.default_rng(seed)
    cut = shards(size.tensors(), shard_bytes)
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(cut, start=1):
        name = f"model-{number:05}-of-{len(cut):05}.safetensors"
        weight_map.update(dict.fromkeys((tensor for tensor, _ in tensors), name))
        with (out / name).open("wb") as shard:
            shard.write(safetensors_header(tensors))
            for _, shape in tensors:
                shard.write(weights(generator, shape))
    total = sum(nbytes(shape) for _, shape in size.tensors())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(out / "model.safetensors.index.json", index)


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level BPE, as GPT-2 fixed it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(0x100) if byte not in printable)
    alphabet = {byte: chr(byte) for byte in printable}
    return alphabet | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


def merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join each occurrence of `pair`, from the left."""
    merged: list[str] = []
    for symbol in symbols:
        # A pair of equal symbols must not join with what was joined just now: that one is longer.
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def train_bpe(text: Iterable[str], merges: int) -> list[tuple[str, str]]:
    """Learn up to `merges` merges, the most frequent pair first and ties by the pair itself."""
    alphabet = byte_alphabet()
    words = Counter(tuple(alphabet[byte] for byte in word.encode()) for word in text)
    learned: list[tuple[str, str]] = []
    while len(learned) < merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            pairs.update(dict.fromkeys(itertools.pairwise(word), count))
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        learned.append(best)
        words = Counter({merge(word, best): count for word, count in words.items()})
    return learned


def tokenizer(vocabulary: int, seed: int) -> dict[str, object]:
    """A tokenizer.json: special tokens, bytes, then what was learned from shuffled toy text."""
    source = random.Random(seed)
    words = TEXT.split()
    text = words + [f" {source.choice(words)}" for _ in range(20_000)]
    merges = train_bpe(text, vocabulary - len(SPECIAL) - 0x100)
    tokens = [*SPECIAL, *byte_alphabet().values(), *dict.fromkeys(a + b for a, b in merges)]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(number, text) for number, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special_token(), sequence("A")],
            "pair": [special_token(), sequence("A"), sequence("B")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def added_token(number: int, text: str) -> dict[str, object]:
    """How tokenizer.json declares a special token."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": True} | flags


def special_token() -> dict[str, object]:
    """The place of `<s>` in a post-processor's template."""
    return {"SpecialToken": {"id": "<s>", "type_id": 0}}


def sequence(name: str) -> dict[str, object]:
    """The place of an input text in a post-processor's template."""
    return {"Sequence": {"id": name, "type_id": 0}}


def tokenizer_config() -> dict[str, object]:
    """The tokenizer_config.json to go with it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }


def write_json(path: Path, value: object) -> None:
    """One way of writing JSON, so that the same options give the same bytes."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def make_llama(out: Path, size: Size, *, shard_bytes: int, seed: int = 0) -> None:
    """Write the whole model directory; `out` may exist."""
    out.mkdir(parents=True, exist_ok=True)
    write_weights(out, size, shard_bytes, seed)
    write_json(out / "config.json", size.config())
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    write_json(out / "generation_config.json", {"_from_model_config": True} | ids)
    write_json(out / "tokenizer.json", tokenizer(size.vocabulary, seed))
    write_json(out / "tokenizer_config.json", tokenizer_config())
    readme = (
        "---\nlicense: apache-2.0\nlibrary_name: transformers\n---\nA Llama with random weights.\n"
    )
    (out / "README.md").write_text(readme)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options and write the directory."""
    parser = argparse.ArgumentParser(description="Write a Llama with random weights.")
    parser.add_argument("out", type=Path)
    for field, default in vars(Size()).items():
        parser.add_argument(f"--{field}", type=int, default=default)
    parser.add_argument("--shard-mb", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.hidden % HEAD_SIZE:
        parser.error(f"--hidden must be a multiple of {HEAD_SIZE}")
    size = Size(options.hidden, options.layers, options.intermediate, options.vocabulary)
    make_llama(options.out, size, shard_bytes=options.shard_mb << 20, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
