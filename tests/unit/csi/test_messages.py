"""The messages on the wire: golden bytes, by the numbers of the specification."""

from __future__ import annotations

from axonfs.csi.messages import message


def test_a_request() -> None:
    request = message("NodePublishVolumeRequest").FromString(
        b"\x0a\x01v\x22\x02/t\x2a\x0a\x12\x04\x12\x02ro\x1a\x02\x08\x03\x30\x01"
        b"\x3a\x06\x0a\x01k\x12\x01s\x42\x06\x0a\x01a\x12\x01b"
    )
    assert (request.volume_id, request.target_path, request.readonly) == ("v", "/t", True)
    assert list(request.volume_capability.mount.mount_flags) == ["ro"]
    assert request.volume_capability.access_mode.mode == 3
    assert dict(request.secrets) == {"k": "s"}
    assert dict(request.volume_context) == {"a": "b"}


def test_answers() -> None:
    ready = message("ProbeResponse")(ready={"value": True})
    assert ready.SerializeToString() == b"\x0a\x02\x08\x01"
    usage = {"available": 1, "total": 3, "used": 2, "unit": 1}
    stats = message("NodeGetVolumeStatsResponse")(usage=[usage])
    assert stats.SerializeToString() == b"\x0a\x08\x08\x01\x10\x03\x18\x02\x20\x01"
    capability = message("NodeGetCapabilitiesResponse")(capabilities=[{"rpc": {"type": 6}}])
    assert capability.SerializeToString() == b"\x0a\x04\x0a\x02\x08\x06"


def test_fields_of_a_later_version() -> None:
    """Fields that the table does not have are no fault."""
    later = message("ProbeRequest").FromString(b"\xfa\x01\x01x")
    assert later.SerializeToString() == b"\xfa\x01\x01x"
