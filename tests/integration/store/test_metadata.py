"""Documents, manifests, chunk tables and pins in a real index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry, Manifest, parse_manifest, render_manifest
from axonfs.names import Spec
from axonfs.store import Document, Pin, Store
from axonfs.store import metadata as metadata_module
from axonfs.store.index import Table, Transaction
from tests.support.stores import CHUNK, sample

URL = "https://registry.example/api/v1/" + "x" * 2000  # longer than LMDB's keys may be


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def manifest(number: int, files: int = 3) -> Manifest:
    entries = tuple(FileEntry(f"f{each}", each, f"{each:064x}", None) for each in range(files))
    spec = Spec("nlp", f"model-{number}", "1.0.0")
    return parse_manifest(render_manifest(Manifest(spec, entries)), spec)


def reopened(store: Store) -> Store:
    directory = store.directory
    store.close()
    return Store.open(directory)


class TestDocuments:
    def test_a_document_comes_back(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        document = Document(b"\0body" * 1000, 'W/"tag"', 1234.5, URL + "final")
        bare = Document(b"", None, 0.0, URL)
        store.put_document(URL, document)
        store.put_document(URL + "2", bare)
        store = reopened(store)
        assert store.document(URL) == document
        assert store.document(URL + "2") == bare
        assert store.document(URL + "3") is None
        store.close()

    def test_touching_changes_the_time_alone(self, store: Store) -> None:
        store.put_document(URL, Document(b"body", '"tag"', 1.0, URL))
        store.touch_document(URL, 99.0)
        store.touch_document(URL + "unknown", 99.0)
        assert store.document(URL) == Document(b"body", '"tag"', 99.0, URL)
        assert store.document(URL + "unknown") is None

    @pytest.mark.parametrize("table", [Table.DOCUMENTS, Table.BODIES])
    def test_a_damaged_record_is_as_good_as_none(self, store: Store, table: Table) -> None:
        store.put_document(URL, Document(b"body", None, 1.0, URL))
        damage(store, table)
        assert store.document(URL) is None


class TestManifests:
    def test_a_manifest_comes_back(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        first, second = manifest(1), manifest(2)
        store.put_manifest(first, "https://one.example/root/")
        store.put_manifest(second, "https://two.example/")
        store = reopened(store)
        found = store.manifest(first.spec)
        assert found is not None
        assert (found.manifest, found.base) == (first, "https://one.example/root/")
        assert found.manifest.raw == first.raw
        assert store.specs() == [first.spec, second.spec]
        other = store.manifest(second.spec)
        assert other is not None
        assert other.manifest == second
        assert store.drop_manifest(first.spec)
        assert not store.drop_manifest(first.spec)
        assert store.manifest(first.spec) is None
        assert store.specs() == [second.spec]
        store.close()

    def test_a_manifest_put_again_replaces_the_first(self, store: Store) -> None:
        store.put_manifest(manifest(1, files=1), "https://one.example/")
        assert store.manifest(manifest(1).spec) is not None
        store.put_manifest(manifest(1, files=2), "https://one.example/")
        found = store.manifest(manifest(1).spec)
        assert found is not None
        assert len(found.manifest.files) == 2

    def test_only_a_few_stay_parsed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parsed: list[Spec] = []

        def parse(raw: bytes, spec: Spec, base: str) -> Manifest:
            parsed.append(spec)
            return parse_manifest(raw, spec, base)

        monkeypatch.setattr(metadata_module, "parse_manifest", parse)
        monkeypatch.setattr(metadata_module, "PARSED_BYTES", 3 * len(manifest(1).raw))
        store = Store.open(tmp_path)
        known = [manifest(number) for number in range(4)]
        for each in known:
            store.put_manifest(each, "https://one.example/")
        assert store.specs() == [each.spec for each in known]
        assert parsed == [], "specs must not parse"
        for number in (0, 0, 1, 2, 0, 3, 0, 1):
            store.manifest(known[number].spec)
        assert parsed == [known[number].spec for number in (0, 1, 2, 3, 1)]
        store.close()

    def test_a_damaged_record_is_as_good_as_none(self, store: Store) -> None:
        store.put_manifest(manifest(1), "https://one.example/")
        damage(store, Table.MANIFESTS)
        assert store.manifest(manifest(1).spec) is None
        assert store.specs() == []


class TestTables:
    def test_a_table_comes_back_to_the_entry_that_names_it(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        what = sample(5 * CHUNK + 1)
        finer = sample(5 * CHUNK + 1, chunk_size=2 * CHUNK)
        lie = ChunkTable(what.table.size, CHUNK, bytes(32 * 6))
        for table in (what.table, finer.table, lie):
            store.put_table(what.digest, table)
        store = reopened(store)
        assert store.table(what.entry) == what.table
        assert store.table(finer.entry) == finer.table
        assert store.table(FileEntry("f", what.entry.size, what.digest, lie.ref)) == lie
        assert store.table(FileEntry("f", what.entry.size, what.digest, None)) is None
        assert store.table(sample(CHUNK, seed=3).entry) is None
        store.drop(what.digest)
        assert store.table(what.entry) is None
        store.close()

    def test_a_damaged_record_is_as_good_as_none(self, store: Store) -> None:
        what = sample(CHUNK)
        store.put_table(what.digest, what.table)
        damage(store, Table.TABLES)
        assert store.table(what.entry) is None


class TestPins:
    def test_a_pin_comes_back(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        pin = Pin(Spec("nlp", "a/b", "2"), "a" * 64, ("b" * 64, "c" * 64), 5.5, True)
        other = Pin(Spec("nlp", "a", "1"), "d" * 64, ("b" * 64,), 6.5, False)
        store.put_pin(pin)
        store.put_pin(other)
        store = reopened(store)
        assert store.pins() == [other, pin]
        assert store.pinned_digests() == {"b" * 64, "c" * 64}
        assert store.drop_pin(pin.spec)
        assert not store.drop_pin(pin.spec)
        assert store.pinned_digests() == {"b" * 64}
        store.close()

    def test_a_damaged_record_is_as_good_as_none(self, store: Store) -> None:
        store.put_pin(Pin(Spec("nlp", "a", "1"), "d" * 64, (), 6.5, False))
        damage(store, Table.PINS)
        assert store.pins() == []


def damage(store: Store, table: Table) -> None:
    """Flip the last bit of every record in `table`."""

    def apply(transaction: Transaction) -> None:
        for key, raw in list(transaction.scan(table)):
            transaction.put(table, key, raw[:-1] + bytes([raw[-1] ^ 1]))

    store._index.write(apply)
