"""Plans a prefetch: the files that a load will read, and their order.

Pure: takes a version's files and the path that was opened, and returns entries; no I/O, no clock.
walks.py decides whether an open is a load, and load.py fetches.

All loaders of a directory read about the same files, but the weights in one format only: a
repository often has the same weights as safetensors, .bin, .h5 and GGUF. A plan has one of these.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from axonfs.formats.manifest import FileEntry

CONFIG = "config.json"
MODEL_INDEX = "model_index.json"  # diffusers: one subfolder per component
INDEX = ".index.json"
# Behind a shard the next one is fetched, and more if they are small: as many bytes as readahead
# fetches of a large file.
AHEAD = 256 << 20
# Loaders read these files before the weights. If one is larger than SMALL it is data, not settings.
SMALL = 64 << 20
_READ_FIRST = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".yaml", ".yml")

# In the order in which loaders prefer them, if the opened file does not tell the format.
_FORMATS = (
    ".safetensors",
    "consolidated.safetensors",
    ".bin",
    ".pt",
    ".pth",
    "consolidated.pth",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
)
_PREFERRED = {"params.json": ("consolidated.safetensors", "consolidated.pth")}
# Formats with one file per quantisation, of which a load reads one.
_ALTERNATIVES = (".gguf", ".onnx")

_SUFFIX = re.compile(r"\.(safetensors|bin|pt|pth|gguf|h5|msgpack|onnx)$")
_TRAINING = re.compile(r"training_args|optimizer|scheduler|scaler|rng_state|random_states")
_SHARD = re.compile(r"-[0-9]+-of-[0-9]+")
# The numbers of a shard. Others of less than three digits are a size or a quantisation.
_NUMBER = re.compile(
    r"[-_.][0-9]+(?=-of-)|(?<!-of)[-_.](?:[0-9]{3,}|0[0-9])(?=\.)"
    r"|(?<=part|rank)[-_.]?[0-9]+(?=[-_.])|(?<=shard|layer)[-_.]?[0-9]+(?=[-_.])"
)
_MODULE = re.compile(r"[0-9]+_\w+")  # sentence-transformers: 1_Pooling, 2_Dense


@dataclass(frozen=True, slots=True)
class Plan:
    """Entries in the order in which to fetch them: `small` ones first, then the `weights`.

    `guides` are small files whose text names the weights; once their text is local, the plan is
    made again with it.
    """

    small: tuple[FileEntry, ...] = ()
    weights: tuple[FileEntry, ...] = ()
    guides: tuple[FileEntry, ...] = ()


def starts_load(path: str) -> bool:
    """Whether loaders open the file at `path` before any weights."""
    name = path.rpartition("/")[2]
    if name in (CONFIG, MODEL_INDEX) or name in _PREFERRED:
        return True
    return name.endswith(INDEX) and _format(name.removesuffix(INDEX)) is not None


def plan(
    files: Sequence[FileEntry],
    trigger: str,
    *,
    everything: bool = False,
    texts: Mapping[str, str] | None = None,
    back: bool = False,
) -> Plan:
    """The files of a load that begins by opening `trigger`; for weights, they and the next shards.

    Args:
        trigger: a path for which `starts_load` or `is_weights` is true.
        everything: plan every file of the version, in all formats.
        texts: the texts of the guides, by path.
        back: the loader reads the shards in reverse order.
    """
    if everything:
        small = [entry for entry in files if _is_small(entry)]
        rest = [entry for entry in files if not _is_small(entry)]
        return Plan(_natural(small), _natural(rest))
    if not starts_load(trigger):
        # The rest of this one first: a reader that jumps leaves holes, and comes back to them.
        own = (entry for entry in files if entry.path == trigger)
        return Plan(weights=(*own, *following(files, trigger, back=back)))
    folders = _by_folder(files)
    home, _, opened = trigger.rpartition("/")
    texts = texts or {}
    parts = [
        _of_folder(folders.get(folder, {}), name, texts)
        for folder, name in _folders_read(folders, home, opened, texts)
    ]
    return Plan(
        _natural(entry for part in parts for entry in part.small),
        tuple(entry for part in parts for entry in part.weights),
        tuple(entry for part in parts for entry in part.guides),
    )


def is_weights(path: str) -> bool:
    """Whether the file at `path` has weights, by its name."""
    return _format(path.rpartition("/")[2]) is not None or _series(path) is not None


def following(
    files: Sequence[FileEntry], path: str, *, back: bool = False
) -> tuple[FileEntry, ...]:
    """The shards that a loader reads after the one at `path`: the next one, and more while they are
    less than `AHEAD` together. Empty for other files and for the last shard.

    The file at `path` may be of another manifest of the version than `files`: branches move.
    """
    if (series := _series(path)) is None:
        return ()
    shards, at = _natural(entry for entry in files if _series(entry.path) == series), _order(path)
    before = [entry for entry in shards if _order(entry.path) < at]
    later = before[::-1] if back else [entry for entry in shards if _order(entry.path) > at]
    starts = itertools.accumulate((entry.size for entry in later), initial=0)
    return tuple(entry for entry, start in zip(later, starts, strict=False) if start < AHEAD)


def comes_before(first: str, second: str) -> bool:
    """Whether both files are shards of one series, in this order."""
    series = _series(first)
    return series is not None and series == _series(second) and _order(first) < _order(second)


def reads_back(files: Sequence[FileEntry], path: str, before: Iterable[str]) -> bool:
    """Whether a loader reads its shards in reverse order.

    Args:
        path: the shard that it reads.
        before: the files that it read before, the last one at the end. If none is a shard of the
            same series, it reads in reverse if it begins with the last shard.
    """
    series = _series(path)
    others = [other for other in before if other != path and _series(other) == series]
    if others:
        return _order(path) < _order(others[-1])
    return not following(files, path)


def _series(path: str) -> str | None:
    """The path of a shard without its numbers; None if it is not a shard."""
    folder, slash, name = path.rpartition("/")
    series = _NUMBER.sub("", name)
    if series == name or ("-of-" not in name and _format(name) is None):
        return None
    return f"{folder}{slash}{series}"


_Folder = Mapping[str, FileEntry]


def _by_folder(files: Iterable[FileEntry]) -> dict[str, dict[str, FileEntry]]:
    folders: dict[str, dict[str, FileEntry]] = {}
    for entry in files:
        folder, _, name = entry.path.rpartition("/")
        folders.setdefault(folder, {})[name] = entry
    return folders


def _folders_read(
    folders: Mapping[str, _Folder], home: str, opened: str, texts: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The folders that the load reads, each with the file that it opens first."""
    prefix = f"{home}/" if home else ""
    inner = [
        folder.removeprefix(prefix)
        for folder in folders
        if folder and folder != home and folder.startswith(prefix)
    ]
    if opened == MODEL_INDEX:
        named = _components(texts.get(prefix + MODEL_INDEX))
        chosen = [name for name in inner if (name in named if named else "/" not in name)]
    else:
        chosen = [name for name in inner if _MODULE.fullmatch(name)]
    chosen.sort(key=_order)
    return [(home, opened), *((prefix + name, CONFIG) for name in chosen)]


def _of_folder(folder: _Folder, opened: str, texts: Mapping[str, str]) -> Plan:
    """The plan for one folder."""
    small = tuple(entry for entry in folder.values() if _is_small(entry))
    if opened == MODEL_INDEX:  # single-file checkpoints beside it are for other programs
        return Plan(small, (), (folder[opened],) if opened in folder else ())
    formats: dict[str, list[str]] = {}
    for name in folder:
        if (kind := _format(name)) is not None:
            formats.setdefault(kind, []).append(name)
    kind = next((kind for kind in _preference(opened) if kind in formats), None)
    if kind is None:
        return Plan(small)
    guide = _guide(folder, kind, opened)
    shards = _shards(texts.get(guide.path)) if guide else set()
    names = [name for name in formats[kind] if name in shards] or _usual(formats[kind], kind)
    weights = _natural(folder[name] for name in names)
    return Plan(small, weights, (guide,) if guide else ())


def _preference(opened: str) -> tuple[str, ...]:
    """The formats, the most likely one for a loader that opened this file first."""
    if opened.endswith(INDEX) and (kind := _format(opened.removesuffix(INDEX))) is not None:
        return (kind, *_FORMATS)
    return (*_PREFERRED.get(opened, ()), *_FORMATS)


def _format(name: str) -> str | None:
    """The format of a weight file; None for other files, and for those of training."""
    match = _SUFFIX.search(name)
    if match is None or _TRAINING.match(name):
        return None
    whole = f"consolidated{match[0]}"
    return whole if name.startswith("consolidated") and whole in _FORMATS else match[0]


def _guide(folder: _Folder, kind: str, opened: str) -> FileEntry | None:
    """The index of the weights of this format: the opened file, else the one with a usual name."""
    names = [
        name
        for name in folder
        if name.endswith(INDEX) and _format(name.removesuffix(INDEX)) == kind
    ]
    names.sort(key=lambda name: (name != opened, not name.startswith("model."), _order(name)))
    return folder[names[0]] if names else None


def _usual(names: list[str], kind: str) -> list[str]:
    """The weights that are read if no index names them: no variants, no choice of quantisations."""
    if kind in _ALTERNATIVES:
        projectors = [name for name in names if "mmproj" in name.lower()]
        models = [name for name in names if name not in projectors]
        return _only(models) and [*_only(models), *_only(projectors)]
    stems = {_stem(name) for name in names}
    # A program reads `model.fp16.safetensors` beside `model.safetensors` only if it is told to.
    return [name for name in names if _stem(name).rpartition(".")[0] not in stems]


def _only(names: list[str]) -> list[str]:
    """The names, if they are the shards of one file."""
    return names if len({_stem(name) for name in names}) == 1 else []


def _stem(name: str) -> str:
    return _SHARD.sub("", name.rpartition(".")[0])


def _is_small(entry: FileEntry) -> bool:
    name = entry.path.rpartition("/")[2]
    return entry.size < SMALL and name.endswith(_READ_FIRST)


def _shards(text: str | None) -> set[str]:
    """The files that a weight index names; none if it is malformed."""
    shards = _parsed(text).get("weight_map")
    return set(map(str, shards.values())) if isinstance(shards, dict) else set()


def _components(text: str | None) -> set[str]:
    """The subfolders that a model_index.json names: `"unet": ["diffusers", "UNet2D…"]`."""
    return {
        name
        for name, value in _parsed(text).items()
        if isinstance(value, list) and any(item is not None for item in value)
    }


def _parsed(text: str | None) -> dict[str, object]:
    try:
        document = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _natural(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: _order(entry.path)))


def _order(text: str) -> list[int | str]:
    """A sort key by which `model-2` comes before `model-10`."""
    parts = re.split(r"([0-9]+)", text)  # words and numbers take turns: like meets like
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)]
