"""The bytes on disk: what a later axonfs has to read, and a later format has to number anew."""

from __future__ import annotations

from pathlib import Path

import lmdb
from hypothesis import given
from hypothesis import strategies as st

from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.manifest import Manifest
from axonfs.names import Spec
from axonfs.ranges import Range
from axonfs.store import Document, Pin, Store
from axonfs.store.backing import whole_chunks
from axonfs.store.records import GROUP, Group, Kind, ObjectRecord, seal, unseal
from tests.support.stores import BOOT, CHUNK, held, sample

DIGEST = "ab" * 32
BOOT_BYTES = bytes.fromhex(BOOT.replace("-", ""))
DIGESTS = st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)


def test_golden_object_record() -> None:
    record = ObjectRecord(5 << 30, 1 << 20, "cd" * 32, True, 3 << 20, 1.5, "bad", "ef" * 32)
    assert record.encode().hex() == (
        "da68ad58a7c36f9d"
        "0000004001000000" "00001000" "01000000" "0000300000000000" "000000000000f83f"
        + "cd" * 32 + "ef" * 32 + "626164"
    )  # fmt: skip


def test_golden_record_of_an_object_with_its_own_table() -> None:
    """An axonfs that knows no own tables sees a verified object, or one that is not verified."""
    record = ObjectRecord(9, 4, verified=True, present_bytes=9, proven=True)
    assert record.encode()[20:24].hex() == "05000000"
    part = ObjectRecord(9, 4, verified=True, present_bytes=8, proven=True)
    assert part.encode()[20:24].hex() == "04000000"
    for one in (record, part):
        assert ObjectRecord.decode(one.encode()) == one


def test_golden_own_table(tmp_path: Path) -> None:
    """It lies where its digest would be zeros."""
    store = Store.open(tmp_path, boot_id=BOOT)
    what = sample(CHUNK + 1, table=False)
    with held(store, what.entry) as stored:
        count = stored.chunk_size
        table = ChunkTable(CHUNK + 1, count, chunk_digest(what.data))
        stored.land(0, memoryview(what.data))
        assert stored.mark_verified(stored.generation(), table)
    store.close()
    with (
        lmdb.open(str(tmp_path / "index.lmdb"), subdir=False, max_dbs=16, readonly=True) as env,
        env.begin(db=env.open_db(b"tables", create=False)) as raw,
    ):
        ((key, value),) = list(raw.cursor())
    assert key.hex() == what.digest + count.to_bytes(4, "big").hex() + "00" * 32
    assert value == seal(Kind.TABLE, table.encode())


def test_golden_group_record() -> None:
    group = Group(None, BOOT_BYTES)
    group.settle(1, 0x1122334455667788)
    group.settle(9, 2)
    group.adopt(127)
    raw = group.raw.hex()
    assert raw[:32] == "11" * 16
    assert raw[32:64] == "0202" + "00" * 13 + "80"
    assert raw[64:96] == "0202" + "00" * 14
    assert raw[96:128] == "00" * 15 + "80"
    assert raw[128:160] == "00" * 8 + "8877665544332211"
    assert len(group.raw) == 64 + 8 * 128


def test_golden_directory(tmp_path: Path) -> None:
    """Every table, as LMDB alone reads it, and the file names."""
    store = Store.open(tmp_path, boot_id=BOOT)
    what = sample(CHUNK + 1)
    with held(store, what.entry) as stored:
        stored.land(1, what.chunk(1))
    store.put_document("http://h/x", Document(b"body", '"e"', 1.5, "http://h/y"))
    spec = Spec("ns", "na/me", "1")
    store.put_manifest(Manifest(spec, (), raw=b"raw"), "http://h/")
    store.put_table(DIGEST, ChunkTable(3, CHUNK, b"t" * 32))
    store.put_pin(Pin(spec, "ma", ("f1", "f2"), 2.5, True, 7, 9))
    store.close()

    assert (tmp_path / "objects" / what.digest[:2] / what.digest).stat().st_size == CHUNK + 1
    with lmdb.open(str(tmp_path / "index.lmdb"), subdir=False, max_dbs=16, readonly=True) as env:

        def only(name: str) -> tuple[bytes, bytes]:
            with env.begin(db=env.open_db(name.encode(), create=False)) as raw:
                ((key, value),) = list(raw.cursor())
            return key, value

        with env.begin(db=env.open_db(b"meta", create=False)) as raw:
            assert dict(raw.cursor()) == {b"format": b"2", b"boot": BOOT_BYTES}
        key, value = only("objects")
        assert key.hex() == what.digest
        assert unseal(Kind.OBJECT, value) is not None
        assert unseal(Kind.BODY, value) is None
        key, value = only("groups")
        assert key.hex() == what.digest + "00000000"
        assert value[:17] == BOOT_BYTES + b"\x02"
        assert only("documents")[1][8:].hex() == "000000000000f83f" + (
            b'["\\"e\\"", "http://h/y"]'.hex()
        )
        assert only("bodies")[1] == seal(Kind.BODY, b"body")
        assert only("manifests")[1][8:] == (b"\x21\0\0\0" + b'["ns", "na/me", "1", "http://h/"]raw')
        key, value = only("tables")
        ref = ChunkTable(3, CHUNK, b"t" * 32).ref
        assert key.hex() == DIGEST + "00010000" + ref.digest
        assert value[8:] == ChunkTable(3, CHUNK, b"t" * 32).encode()
        assert only("pins")[1][8:] == (
            b'{"spec":["ns","na/me","1"],"manifest":"ma","files":["f1","f2"],'
            b'"pinned_at":2.5,"complete":true,"chunks":7,"size":9}'
        )


@given(
    st.builds(
        ObjectRecord,
        st.integers(0, 1 << 53),
        st.integers(0, 1 << 26),
        st.just("") | DIGESTS,
        st.booleans(),
        st.integers(0, 1 << 53),
        st.floats(0, 1e10),
        st.none() | st.text(min_size=1),
        st.none() | DIGESTS,
    )
)
def test_object_records_come_back(record: ObjectRecord) -> None:
    raw = record.encode()
    assert ObjectRecord.decode(raw) == record
    assert ObjectRecord.decode(raw[:-1] + bytes([raw[-1] ^ 1])) is None


@given(st.lists(st.tuples(st.sampled_from("sac"), st.integers(0, GROUP - 1)), max_size=40))
def test_groups_follow_a_model(steps: list[tuple[str, int]]) -> None:
    group = Group(None, BOOT_BYTES)
    model: dict[int, str] = {}
    for what, slot in steps:
        if what == "s":
            group.settle(slot, slot * 7)
            model[slot] = what
        elif what == "a":
            group.adopt(slot)
            model[slot] = what
        else:
            group.clear(slot)
            model.pop(slot, None)
    present, usable, adopted = Group(bytes(group.raw), BOOT_BYTES).flags()
    assert present == bytes(slot in model for slot in range(GROUP))
    assert usable == bytes(model.get(slot) == "s" for slot in range(GROUP))
    assert adopted == bytes(model.get(slot) == "a" for slot in range(GROUP))
    assert group.empty is (not model)
    _, later, _ = Group(bytes(group.raw), b"\x22" * 16).flags()
    assert not any(later), "nothing is usable unchecked after another boot"


def test_a_group_of_another_length_is_none() -> None:
    assert Group(b"\xff" * 100, BOOT_BYTES).empty


@given(
    st.integers(1, 40),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 44), st.integers(1, 44)), max_size=4),
)
def test_whole_chunks(size: int, chunk_size: int, spans: list[tuple[int, int]]) -> None:
    extents, end = [], 0
    for gap, length in spans:
        start = end + gap
        end = start + length
        extents.append(Range(min(start, size), min(end, size)))
    expected = [
        chunk
        for chunk in range(-(-size // chunk_size))
        if any(
            start <= chunk * chunk_size and min((chunk + 1) * chunk_size, size) <= stop
            for start, stop in extents
        )
    ]
    assert whole_chunks(extents, chunk_size, size) == expected
