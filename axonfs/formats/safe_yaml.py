"""Parse untrusted YAML (and JSON, its subset) to plain dicts, lists, strings and whole numbers.

Pure. It uses parser events instead of a loader, which takes a third of the time of
`yaml.safe_load`. Anchors, aliases and tags are refused at once, so a document cannot grow beyond
its own size or name a type. Only whole numbers and null are converted: `version: 1.10` stays
"1.10", and a digest that consists of digits stays text.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import yaml

from axonfs.errors import MalformedError
from axonfs.names import printable
from axonfs.units import size

Node: TypeAlias = "dict[str, Node] | list[Node] | str | int | None"

MAX_DEPTH = 32
MAX_NODES = 2_000_000  # a file of a manifest takes about ten

# libyaml is ten times as fast. PyYAML built without it gives the same results.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


def parse_yaml(raw: bytes, *, limit: int) -> Node:
    """The one document in `raw`; None if it is empty.

    Raises:
        MalformedError: more than `limit` bytes, not YAML, more than one document, too deep, too
            many nodes, a repeated key, a key that is not a scalar, an anchor, an alias or a tag.
    """
    if len(raw) > limit:
        raise MalformedError(f"the document is larger than {size(limit)}")
    tree = _Tree()
    try:
        for event in yaml.parse(raw, Loader=_LOADER):
            tree.take(event)
    except (yaml.YAMLError, UnicodeError) as exc:
        cause = printable(" ".join(str(exc).split()))
        raise MalformedError(f"the document is not YAML: {cause}") from exc
    return tree.root


class _Tree:
    """The tree built from the events so far; the innermost open collection is last in `_open`."""

    def __init__(self) -> None:
        self.root: Node = None
        self._open: list[dict[str, Node] | list[Node]] = []
        self._keys: list[str | None] = []  # for each open collection: the key without a value yet
        self._nodes = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            _refuse_marks(event)
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            _refuse_marks(event)
            self._begin({} if isinstance(event, yaml.MappingStartEvent) else [])
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise MalformedError("the document uses a YAML alias")
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise MalformedError("there is more than one YAML document")

    def _begin(self, collection: dict[str, Node] | list[Node]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise MalformedError(f"the document is more than {MAX_DEPTH} levels deep")
        self._add(collection)
        self._open.append(collection)
        self._keys.append(None)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        text: str = event.value
        if self._open and self._keys[-1] is None and isinstance(self._open[-1], dict):
            self._key(text)
        elif not event.implicit[0]:  # quoted or a block: always text
            self._add(text)
        elif text in _NULL:
            self._add(None)
        else:
            self._add(int(text) if _WHOLE.fullmatch(text) else text)

    def _key(self, text: str) -> None:
        if text in self._open[-1]:
            raise MalformedError(f"the key '{printable(text)}' is repeated")
        self._keys[-1] = text

    def _add(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise MalformedError(f"the document has more than {MAX_NODES:,} nodes")
        if not self._open:
            self.root = node
            return
        parent, key = self._open[-1], self._keys[-1]
        if isinstance(parent, list):
            parent.append(node)
        elif key is None:
            raise MalformedError("a key of the document is not text")
        else:
            parent[key] = node
            self._keys[-1] = None


def _refuse_marks(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.anchor is not None:
        raise MalformedError("the document uses a YAML anchor")
    if event.tag is not None:
        raise MalformedError(f"the document uses the YAML tag '{printable(event.tag)}'")
