"""Compares axonfs/csi/messages.py with a csi.proto of the specification; run by hand.

    protoc -I DIR --include_imports --descriptor_set_out=csi.pb DIR/csi.proto
    tools/csi_proto.py csi.pb

`python -m grpc_tools.protoc` of the package grpcio-tools is such a protoc.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

from axonfs.csi.messages import METHODS, PACKAGE, file_descriptor


def facts(file: Any) -> dict[str, object]:
    """What the wire depends on, by full name: numbers, types and labels."""
    found: dict[str, object] = {}
    for message in file.message_type:
        found.update(_message(message.name, message))
    for service in file.service:
        for method in service.method:
            types = method.input_type, method.output_type
            found[f"{service.name}/{method.name}"] = types
    return found


def _message(name: str, message: Any) -> Iterator[tuple[str, object]]:
    yield name, "message"
    for field in message.field:
        oneof = field.HasField("oneof_index")
        yield (
            f"{name}.{field.name}",
            (field.number, field.type, field.type_name, field.label, oneof),
        )
    for enum in message.enum_type:
        for value in enum.value:
            yield f"{name}.{enum.name}.{value.name}", value.number
    for nested in message.nested_type:
        yield from _message(f"{name}.{nested.name}", nested)


def main() -> int:
    """Print what differs; 1 if anything does."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    (theirs,) = (facts(file) for file in files.file if file.package == PACKAGE)
    ours = facts(file_descriptor())
    for service, methods in METHODS.items():
        for method in methods:
            types = f".{PACKAGE}.{method}Request", f".{PACKAGE}.{method}Response"
            ours[f"{service}/{method}"] = types
    wrong = {name: fact for name, fact in ours.items() if theirs.get(name) != fact}
    for name, fact in wrong.items():
        print(f"{name}: {fact}, but in the specification {theirs.get(name)}")
    print(f"{len(ours) - len(wrong)} of {len(ours)} agree")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
