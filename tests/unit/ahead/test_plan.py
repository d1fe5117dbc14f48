"""What a load reads of a version, over the file lists of real repositories."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.ahead.plan import AHEAD, SMALL, Plan, following, plan, reads_back, starts_load
from axonfs.formats.manifest import FileEntry

BIG = 4 << 30
TOKENIZER = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]


def entry(path: str, size: int) -> FileEntry:
    return FileEntry(path, size, hashlib.sha256(path.encode()).hexdigest())


def files(*paths: str) -> list[FileEntry]:
    """The entries of a manifest; what looks like weights is big."""
    weights = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")
    return [entry(path, BIG if path.endswith(weights) else 700) for path in sorted(paths)]


def weights(found: Plan) -> list[str]:
    return [item.path for item in found.weights]


def small(found: Plan) -> list[str]:
    return [item.path for item in found.small]


def index_of(*shards: str) -> str:
    return json.dumps({"metadata": {}, "weight_map": {f"w.{name}": name for name in shards}})


SHARDS = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
LLAMA = files(
    ".gitattributes",
    "LICENSE.txt",
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    *SHARDS,
    "original/consolidated.00.pth",
    "original/params.json",
    "original/tokenizer.model",
    *TOKENIZER,
)
MISTRAL = files(
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "generation_config.json",
    *SHARDS[:3],
    "model.safetensors.index.json",
    "params.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model.v3",
)
GPT2 = files(
    "64.tflite",
    "config.json",
    "flax_model.msgpack",
    "merges.txt",
    "model.safetensors",
    "onnx/config.json",
    "onnx/decoder_model.onnx",
    "onnx/decoder_with_past_model.onnx",
    "pytorch_model.bin",
    "rust_model.ot",
    "tf_model.h5",
    "tokenizer.json",
    "vocab.json",
)
MINILM = files(
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "onnx/model.onnx",
    "onnx/model_O4.onnx",
    "openvino/openvino_model.bin",
    "pytorch_model.bin",
    "sentence_bert_config.json",
    "tf_model.h5",
    "train_script.py",
    "vocab.txt",
)
DIFFUSERS = files(
    "README.md",
    "feature_extractor/preprocessor_config.json",
    "model_index.json",
    "safety_checker/config.json",
    "safety_checker/model.fp16.safetensors",
    "safety_checker/model.safetensors",
    "safety_checker/pytorch_model.bin",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "unused/config.json",
    "unused/model.safetensors",
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned.ckpt",
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("config.json", True),
        ("unet/config.json", True),
        ("params.json", True),
        ("model_index.json", True),
        ("model.safetensors.index.json", True),
        ("deep/er/pytorch_model.bin.index.json", True),
        ("index.json", False),
        ("faiss.index.json", False),
        ("generation_config.json", False),
        ("adapter_config.json", False),
        ("tokenizer.json", False),
        ("model.safetensors", False),
        ("config.json/model.safetensors", False),
    ],
)
def test_what_begins_a_load(path: str, expected: bool) -> None:
    assert starts_load(path) is expected


def test_a_sharded_model_leaves_the_original_format_alone() -> None:
    found = plan(LLAMA, "config.json")
    assert weights(found) == SHARDS
    assert small(found) == [
        "LICENSE.txt",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        *TOKENIZER,
    ]
    assert [item.path for item in found.guides] == ["model.safetensors.index.json"]


def test_the_index_says_exactly_which_shards_there_are() -> None:
    odd = [*LLAMA, *files("model.safetensors", "stale-00001-of-00009.safetensors")]
    text = index_of(*reversed(SHARDS), "absent.safetensors", "../up.safetensors")
    found = plan(odd, "config.json", texts={"model.safetensors.index.json": text})
    assert weights(found) == SHARDS


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"weight_map": []}', '{"weight_map": {"a": 5}}', "[" * 100_000]
)
def test_a_malformed_index_is_ignored(text: str) -> None:
    found = plan(LLAMA, "config.json", texts={"model.safetensors.index.json": text})
    assert weights(found) == SHARDS


def test_the_opened_file_says_the_format() -> None:
    """vLLM opens params.json, and reads consolidated files, where a version has both formats."""
    assert weights(plan(MISTRAL, "config.json")) == SHARDS[:3]
    assert weights(plan(MISTRAL, "params.json")) == ["consolidated.safetensors"]
    assert weights(plan(LLAMA, "original/params.json")) == ["original/consolidated.00.pth"]
    assert small(plan(LLAMA, "original/params.json"))[0] == "original/params.json"
    both = files(*SHARDS, "p-1-of-2.bin", "p-2-of-2.bin", "p.bin.index.json", "config.json")
    assert weights(plan(both, "p.bin.index.json")) == ["p-1-of-2.bin", "p-2-of-2.bin"]
    assert weights(plan(both, "config.json")) == SHARDS


def test_only_consolidated_files() -> None:
    found = plan(files("config.json", "consolidated.safetensors", "x.bin"), "config.json")
    assert weights(found) == ["consolidated.safetensors"]


def test_one_format_out_of_many() -> None:
    assert weights(plan(GPT2, "config.json")) == ["model.safetensors"]
    assert small(plan(GPT2, "config.json")) == [
        "config.json",
        "merges.txt",
        "tokenizer.json",
        "vocab.json",
    ]
    # Which of several graphs is loaded cannot be known.
    assert weights(plan(GPT2, "onnx/config.json")) == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pytorch_model.bin", "training_args.bin", "optimizer.bin"], ["pytorch_model.bin"]),
        (["a.pt", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"], ["a.pt"]),
        (["tf_model.h5", "flax_model.msgpack"], ["tf_model.h5"]),
        (["flax_model.msgpack"], ["flax_model.msgpack"]),
        (["model.onnx"], ["model.onnx"]),
        (["m-Q4_K_M.gguf"], ["m-Q4_K_M.gguf"]),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], []),
        (["m-Q4_K_M.gguf", "mmproj-f16.gguf"], ["m-Q4_K_M.gguf", "mmproj-f16.gguf"]),
        (["m-Q4.gguf", "mmproj-f16.gguf", "mmproj-f32.gguf"], ["m-Q4.gguf"]),
        (["m-10-of-11.gguf", "m-9-of-11.gguf"], ["m-9-of-11.gguf", "m-10-of-11.gguf"]),
        (["model.fp16.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["model.fp16.safetensors"], ["model.fp16.safetensors"]),
        ([], []),
    ],
)
def test_versions_without_safetensors_and_with_variants(
    names: list[str], expected: list[str]
) -> None:
    assert weights(plan(files("config.json", *names), "config.json")) == expected


def test_a_sentence_transformer_has_modules() -> None:
    found = plan(MINILM, "config.json")
    assert weights(found) == ["model.safetensors", "2_Dense/model.safetensors"]
    assert "1_Pooling/config.json" in small(found)
    assert "modules.json" in small(found)
    assert weights(plan(MINILM, "2_Dense/config.json")) == ["2_Dense/model.safetensors"]


def test_a_pipeline_has_components() -> None:
    found = plan(DIFFUSERS, "model_index.json")
    assert "v1-5-pruned-emaonly.safetensors" not in weights(found)
    assert "unused/model.safetensors" in weights(found)
    text = json.dumps(
        {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "transformer": ["diffusers", "SD3Transformer2DModel"],
        }
    )
    found = plan(DIFFUSERS, "model_index.json", texts={"model_index.json": text})
    assert weights(found) == [
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    ]
    assert "tokenizer/merges.txt" in small(found)
    assert weights(plan(DIFFUSERS, "text_encoder/config.json")) == [
        "text_encoder/model.safetensors"
    ]


def test_everything_has_the_small_files_first() -> None:
    found = plan(LLAMA, "config.json", everything=True)
    assert {*small(found), *weights(found)} == {item.path for item in LLAMA}
    assert "original/tokenizer.model" in small(found)
    assert small(found)[:2] == ["LICENSE.txt", "config.json"]
    assert weights(found)[-1] == "original/consolidated.00.pth"


def test_a_large_text_is_data() -> None:
    found = plan([entry("corpus.json", SMALL), entry("config.json", 7)], "config.json")
    assert small(found) == ["config.json"]


NAMES = st.lists(
    st.text("a1٣/.-", min_size=1, max_size=8).map(lambda text: f"x{text}.safetensors"),
    unique=True,
)


@given(NAMES, st.booleans())
def test_a_plan_is_a_part_of_the_version_and_names_nothing_twice(
    names: list[str], everything: bool
) -> None:
    version = files(*names, "config.json")
    found = plan(version, "config.json", everything=everything)
    chosen = small(found) + weights(found)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {item.path for item in version}
    assert chosen[0] == "config.json"
    assert not everything or len(chosen) == len(version)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"),
        ("model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"),
        ("model-00003-of-00003.safetensors", None),
        ("sub/model-00001-of-00003.safetensors", None),
        ("model-0009.bin", "model-0010.bin"),
        ("model.Q4_K_M.gguf", None),
        ("log-001.txt", None),
    ],
)
def test_the_shard_after_a_shard(path: str, expected: str | None) -> None:
    version = files(
        *(f"model-0000{number}-of-00003.safetensors" for number in (3, 1, 2)),
        "model-0010.bin",
        "model-0009.bin",
        "model.Q5_K_M.gguf",
        "model.Q4_K_M.gguf",
        "sub/model-00001-of-00003.safetensors",
        "log-001.txt",
        "log-002.txt",
    )
    assert next((entry.path for entry in following(version, path)), None) == expected
    if expected:
        assert weights(plan(version, path))[:2] == [path, expected]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("consolidated.00.pth", "consolidated.01.pth"),
        ("model-rank-0-part-0.safetensors", "model-rank-0-part-1.safetensors"),
        ("params_shard_9.bin", "params_shard_10.bin"),
        ("layer_01-model_states.pt", "layer_02-model_states.pt"),
        ("model-1-of-2.gguf", "model-2-of-2.gguf"),
        ("variables.data-00000-of-00002", "variables.data-00001-of-00002"),
    ],
)
def test_other_names_of_shards(first: str, second: str) -> None:
    version = files(second, first)
    assert [entry.path for entry in following(version, first)] == [second]
    assert following(version, second) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model-7b.safetensors", "model-13b.safetensors"),
        ("model.Q4_0.gguf", "model.Q8_0.gguf"),
        ("a-00001-of-00002.bin", "a-00001-of-00003.bin"),
        ("log-001.txt", "log-002.txt"),
        ("sub/m-00001-of-00002.bin", "m-00002-of-00002.bin"),
    ],
)
def test_what_are_no_shards_of_one_model(one: str, other: str) -> None:
    assert following(files(one, other), one) == following(files(one, other), other) == ()


def test_shards_that_are_read_in_reverse_order() -> None:
    paths = [f"model-0000{number}-of-00004.bin" for number in (1, 2, 3, 4)]
    version = files(*paths)
    assert reads_back(version, paths[3], [])  # begins with the last one
    assert reads_back(version, paths[2], ["config.json", paths[0], paths[3], paths[2]])
    assert not reads_back(version, paths[0], [])
    assert not reads_back(version, paths[3], ["config.json", paths[2]])
    assert weights(plan(version, paths[2], back=True)) == [paths[2], paths[1]]


def test_a_shard_that_another_manifest_of_the_version_has() -> None:
    version = files("model-001.safetensors", "model-003.safetensors")
    assert [one.path for one in following(version, "model-002.safetensors")] == [version[1].path]
    for other in ("model-004.safetensors", "model-00001-of-00005.safetensors"):
        assert following(version, other) == ()
        assert reads_back(version, other, [])
        assert plan(version, other) == Plan()


@pytest.mark.parametrize(
    ("size", "count"),
    [(AHEAD, 1), (AHEAD - 1, 2), (AHEAD // 4, 4), (AHEAD // 4 - 1, 5), (1, 9), (100 * AHEAD, 1)],
)
def test_small_shards_are_fetched_together(size: int, count: int) -> None:
    version = [entry(f"model-0000{number}-of-00010.safetensors", size) for number in range(10)]
    assert following(version, version[0].path) == tuple(version[1:][:count])
    assert following(version, version[8].path) == (version[9],)


@given(st.permutations(range(1, 13)))
def test_shards_are_in_natural_order(order: list[int]) -> None:
    version = [entry(f"model-{number}.safetensors", BIG) for number in order]
    expected = [f"model-{number}.safetensors" for number in range(1, 13)]
    assert weights(plan(version, "config.json")) == expected
