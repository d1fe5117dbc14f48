"""Registry data as Axon's own repository has it, in full: 62 manifests that its generator wrote.

Every file's sha256 is a placeholder; that of the package is one too, but for ten models. Sizes are
small, and the ten packages hold what they should.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from axonfs.names import parse_spec
from tests.support.axon import MANIFEST
from tests.support.files import write_files
from tests.support.packages import package_of

PLACEHOLDER = "placeholder-sha256-checksum"
FILE = "model.bin"
VERIFIED = (
    "audio/whisper-base@1.0.0",
    "generation/stable-diffusion-2-1@2.1.0",
    "nlp/bert-base-uncased@1.0.0",
    "nlp/distilbert-base-uncased@1.0.0",
    "nlp/gpt2@1.0.0",
    "nlp/roberta-base@1.0.0",
    "nlp/t5-base@1.0.0",
    "vision/resnet50@1.0.0",
    "vision/vit-base-patch16-224@1.0.0",
    "vision/yolov8n@1.0.0",
)
UNVERIFIED = (
    "nlp/EleutherAI/gpt-neo-1.3B@1.0.0",
    "nlp/EleutherAI/gpt-neo-2.7B@1.0.0",
    "nlp/ProsusAI/finbert@1.0.0",
    "nlp/albert-base-v2@1.0.0",
    "nlp/allenai/scibert_scivocab_uncased@1.0.0",
    "nlp/bert-base-multilingual-cased@1.0.0",
    "nlp/bert-large-uncased@1.0.0",
    "nlp/cardiffnlp/twitter-roberta-base-sentiment@1.0.0",
    "nlp/dbmdz/bert-base-french-cased@1.0.0",
    "nlp/dbmdz/bert-base-german-cased@1.0.0",
    "nlp/dbmdz/bert-base-italian-cased@1.0.0",
    "nlp/dbmdz/bert-base-spanish-cased@1.0.0",
    "nlp/dbmdz/bert-base-turkish-cased@1.0.0",
    "nlp/deepset/bert-base-cased-squad2@1.0.0",
    "nlp/deepset/roberta-base-squad2@1.0.0",
    "nlp/distilgpt2@1.0.0",
    "nlp/facebook/bart-base@1.0.0",
    "nlp/facebook/bart-large@1.0.0",
    "nlp/google/electra-base-discriminator@1.0.0",
    "nlp/google/flan-t5-base@1.0.0",
    "nlp/google/flan-t5-large@1.0.0",
    "nlp/gpt2-large@1.0.0",
    "nlp/j-hartmann/emotion-english-distilroberta-base@1.0.0",
    "nlp/microsoft/DialoGPT-large@1.0.0",
    "nlp/microsoft/DialoGPT-medium@1.0.0",
    "nlp/microsoft/DialoGPT-small@1.0.0",
    "nlp/microsoft/deberta-base@1.0.0",
    "nlp/nlptown/bert-base-multilingual-uncased-sentiment@1.0.0",
    "nlp/sentence-transformers/all-MiniLM-L6-v2@1.0.0",
    "nlp/sentence-transformers/all-mpnet-base-v2@1.0.0",
    "nlp/sentence-transformers/paraphrase-MiniLM-L6-v2@1.0.0",
    "nlp/sentence-transformers/paraphrase-mpnet-base-v2@1.0.0",
    "nlp/xlm-roberta-base@1.0.0",
    "nlp/xlm-roberta-large@1.0.0",
    "nlp/xlnet-base-cased@1.0.0",
    "vision/densenet121@1.0.0",
    "vision/densenet169@1.0.0",
    "vision/efficientnet-b0@1.0.0",
    "vision/efficientnet-b4@1.0.0",
    "vision/mobilenet_v2@1.0.0",
    "vision/resnet101@1.0.0",
    "vision/resnet152@1.0.0",
    "vision/resnet18@1.0.0",
    "vision/resnet34@1.0.0",
    "vision/yolov5l@1.0.0",
    "vision/yolov5m@1.0.0",
    "vision/yolov5s@1.0.0",
    "vision/yolov5x@1.0.0",
    "vision/yolov8l@1.0.0",
    "vision/yolov8m@1.0.0",
    "vision/yolov8s@1.0.0",
    "vision/yolov8x@1.0.0",
)
SPECS = (*VERIFIED, *UNVERIFIED)

_MANIFEST = """\
apiVersion: v1
kind: Model
metadata:
    name: {name}
    namespace: {namespace}
    version: {version}
    description: {name} model
    authors:
        - name: Hugging Face
          organization: Hugging Face
    license: Apache-2.0
    created: 2025-11-05T14:23:58.952074+05:30
    updated: 2025-11-05T14:23:58.952074+05:30
    tags:
        - {namespace}
        - transformer
spec:
    framework:
        name: PyTorch
        version: 2.0.0
    format:
        type: pytorch
        files:
            - path: model.bin
              size: {size}
              sha256: placeholder-sha256-checksum
    io:
        inputs:
            - name: input
              dtype: float32
              shape:
                - -1
                - -1
        outputs:
            - name: output
              dtype: float32
              shape:
                - -1
                - -1
    requirements:
        compute:
            cpu:
                min_cores: 2
                recommended_cores: 4
            memory:
                min_gb: 2
                recommended_gb: 4
        storage:
            min_gb: 0.5
            recommended_gb: 1
distribution:
    package:
        url: http://localhost:8080/{package}
        size: {package_size}
        sha256: {sha256}
    registry:
        url: http://localhost:8080
        namespace: {namespace}
"""


def bytes_of(spec: str) -> bytes:
    """What the file of a version holds."""
    return (spec.encode() * 300)[:5000]


def write_registry(directory: Path) -> None:
    """All 62 versions, each with its package, and an answer to any search, which has them all."""
    found = [
        {"namespace": item.namespace, "name": item.name, "version": item.version}
        for item in map(parse_spec, SPECS)
    ]
    files = {"api/v1/search": json.dumps(found).encode()}
    for spec in SPECS:
        parsed, package = parse_spec(spec), package_of({FILE: bytes_of(spec)})
        path = f"packages/{parsed.namespace}-{parsed.name}-{parsed.version}.axon"
        files[path] = package
        verified = hashlib.sha256(package).hexdigest() if spec in VERIFIED else PLACEHOLDER
        document = _MANIFEST.format(
            name=parsed.name,
            namespace=parsed.namespace,
            version=parsed.version,
            size=len(bytes_of(spec)),
            package=path,
            package_size=len(package),
            sha256=verified,
        )
        files[MANIFEST.format(f"{parsed.model}/{parsed.version}")] = document.encode()
    write_files(directory, files)
