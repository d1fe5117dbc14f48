"""The messages and methods of the Container Storage Interface that a node plugin needs.

`TABLE` has the names and numbers of csi.proto 1.13 (package csi.v1); the classes are made of it
at import, so that no generated code ties the package to one version of protobuf.
tools/csi_proto.py compares the table with a csi.proto. Fields that are not in it are kept and
ignored, as protobuf does.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "csi.v1"

# By message: its fields as `number name type`. A type is one of protobuf's, another message, `map`
# (of strings to strings); `*` before it says repeated, and `|` that the field is of the one oneof.
TABLE = """
GetPluginInfoRequest
GetPluginInfoResponse: 1 name string, 2 vendor_version string, 3 manifest map
GetPluginCapabilitiesRequest
GetPluginCapabilitiesResponse
ProbeRequest
ProbeResponse: 1 ready google.protobuf.BoolValue
VolumeCapability: 1 block |VolumeCapability.BlockVolume, 2 mount |VolumeCapability.MountVolume, \
3 access_mode VolumeCapability.AccessMode
VolumeCapability.BlockVolume
VolumeCapability.MountVolume: 1 fs_type string, 2 mount_flags *string, 3 volume_mount_group string
VolumeCapability.AccessMode: 1 mode VolumeCapability.AccessMode.Mode
NodePublishVolumeRequest: 1 volume_id string, 2 publish_context map, 3 staging_target_path string, \
4 target_path string, 5 volume_capability VolumeCapability, 6 readonly bool, 7 secrets map, \
8 volume_context map
NodePublishVolumeResponse
NodeUnpublishVolumeRequest: 1 volume_id string, 2 target_path string
NodeUnpublishVolumeResponse
NodeGetVolumeStatsRequest: 1 volume_id string, 2 volume_path string, 3 staging_target_path string
NodeGetVolumeStatsResponse: 1 usage *VolumeUsage, 2 volume_condition VolumeCondition
VolumeUsage: 1 available int64, 2 total int64, 3 used int64, 4 unit VolumeUsage.Unit
VolumeCondition: 1 abnormal bool, 2 message string
NodeGetCapabilitiesRequest
NodeGetCapabilitiesResponse: 1 capabilities *NodeServiceCapability
NodeServiceCapability: 1 rpc |NodeServiceCapability.RPC
NodeServiceCapability.RPC: 1 type NodeServiceCapability.RPC.Type
NodeGetInfoRequest
NodeGetInfoResponse: 1 node_id string, 2 max_volumes_per_node int64
"""

ENUMS = """
VolumeCapability.AccessMode.Mode: 0 UNKNOWN, 1 SINGLE_NODE_WRITER, 2 SINGLE_NODE_READER_ONLY, \
3 MULTI_NODE_READER_ONLY, 4 MULTI_NODE_SINGLE_WRITER, 5 MULTI_NODE_MULTI_WRITER, \
6 SINGLE_NODE_SINGLE_WRITER, 7 SINGLE_NODE_MULTI_WRITER
VolumeUsage.Unit: 0 UNKNOWN, 1 BYTES, 2 INODES
NodeServiceCapability.RPC.Type: 0 UNKNOWN, 1 STAGE_UNSTAGE_VOLUME, 2 GET_VOLUME_STATS, \
3 EXPAND_VOLUME, 4 VOLUME_CONDITION, 5 SINGLE_NODE_MULTI_WRITER, 6 VOLUME_MOUNT_GROUP
"""

# The methods that are implemented, by service; NAMERequest and NAMEResponse are their messages.
METHODS = {
    "Identity": ("GetPluginInfo", "GetPluginCapabilities", "Probe"),
    "Node": (
        "NodePublishVolume",
        "NodeUnpublishVolume",
        "NodeGetVolumeStats",
        "NodeGetCapabilities",
        "NodeGetInfo",
    ),
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int64": _Field.TYPE_INT64,
}


def _rows(table: str) -> dict[str, list[tuple[int, str, str]]]:
    rows = {}
    for line in table.strip().splitlines():
        name, _, fields = line.partition(":")
        words = [field.split() for field in fields.split(",") if field.strip()]
        rows[name] = [(int(number), field, (*rest, "")[0]) for number, field, *rest in words]
    return rows


MESSAGES, VALUES = _rows(TABLE), _rows(ENUMS)


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The table in protobuf's own words."""
    file = descriptor_pb2.FileDescriptorProto(
        name="axonfs/csi.proto", package=PACKAGE, syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    made: dict[str, Any] = {"": file}
    for name, fields in MESSAGES.items():
        outer, _, own = name.rpartition(".")
        nested = made[outer].nested_type if outer else file.message_type
        made[name] = message = nested.add(name=own)
        for number, field, kind in fields:
            _add_field(message, number, field, kind)
    for name, values in VALUES.items():
        outer, _, own = name.rpartition(".")
        enum = made[outer].enum_type.add(name=own)
        for number, value, _ in values:
            enum.value.add(name=value, number=number)
    return file


def _add_field(message: Any, number: int, name: str, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind[0] == "*":
        field.label, kind = _Field.LABEL_REPEATED, kind[1:]
    if kind[0] == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="choice")
        field.oneof_index, kind = 0, kind[1:]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind == "map":
        _make_map(message, field)
    elif kind in VALUES:
        field.type, field.type_name = _Field.TYPE_ENUM, f".{PACKAGE}.{kind}"
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{kind}" if kind.startswith("google.") else f".{PACKAGE}.{kind}"


def _make_map(message: Any, field: Any) -> None:
    """A map is a repeated message of a key and a value."""
    entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    for number, name in ((1, "key"), (2, "value")):
        entry.field.add(
            name=name, number=number, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING
        )
    field.label, field.type = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"


def _pool() -> descriptor_pool.DescriptorPool:
    from google.protobuf import wrappers_pb2

    pool = descriptor_pool.DescriptorPool()  # of our own: a program may have the real csi.proto too
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file_descriptor())
    return pool


_found = _pool()


def message(name: str) -> Any:
    """The class of the message `name`."""
    return message_factory.GetMessageClass(_found.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def number(enum: str, value: str) -> int:
    """The number of an enum's value."""
    return next(number for number, name, _ in VALUES[enum] if name == value)
