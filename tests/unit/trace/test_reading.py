"""A trace is read whoever wrote it: what makes no sense is counted, and stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import AxonError
from axonfs.ranges import Range
from axonfs.trace.figures import figures
from axonfs.trace.page import page
from axonfs.trace.picture import picture
from axonfs.trace.reading import Trace, parse, read
from axonfs.trace.records import encoded, header
from tests.support.traces import Made

NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
KINDS = "worker file program open read fail ask request stage land end waited stop lost new"
RECORDS = st.lists(
    st.tuples(st.sampled_from(KINDS.split()), st.lists(NUMBERS | st.lists(NUMBERS), max_size=9))
)


def test_what_was_written_is_read() -> None:
    made = Made(prefetch="off")
    file = made.file("nlp/a/1/model.bin", 100, "nlp/a@1")
    made.program(0, "cat", 12)
    made.fetched(file, 0, 60, 1.0, 2.0, priority=0)
    made.read(file, 0, 60, 1.0, 2.5, waits=True)
    found = made.trace()
    assert found.facts["prefetch"] == "off"
    assert [(one.path, one.size, one.spec) for one in found.files] == [
        ("nlp/a/1/model.bin", 100, "nlp/a@1")
    ]
    (job,) = found.jobs
    assert (job.span, job.priority, job.asked, job.ended) == (Range(0, 60), 0, 1.0, 2.0)
    (reads,) = found.reads
    assert (reads.program.name, reads.program.pid, reads.size, reads.waited) == ("cat", 12, 60, 1.5)
    assert found.malformed == 0


def test_each_worker_numbers_anew_and_a_file_stays_one() -> None:
    first, second = Made(), Made()
    first.file("a", 10)
    first.file("b", 20)
    second.file("b", 20)
    second.fetched(0, 0, 20, 5.0, 6.0)
    found = parse(1.0, encoded(first.records + second.records))
    assert [file.path for file in found.files] == ["a", "b"]
    assert found.jobs[0].file.path == "b"


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    whole = encoded([header(1000.0), *Made().records])
    path = tmp_path / "torn.trace"
    path.write_bytes(whole + b'["land", 1.0, 5')
    assert (read(path).malformed, len(read(path).workers)) == (0, 1)
    path.write_bytes(whole + b'["land", 1.0, 5\n["stop", 2.0, "asked for"]\n')
    assert (read(path).malformed, read(path).stops) == (1, [(2.0, "asked for")])


@pytest.mark.parametrize("content", [b"", b"x", b'["axonfs trace", 2, 1.0]\n', b"[" * 10_000])
def test_what_is_no_trace_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(AxonError, match="other: is not a trace"):
        read(path)


@given(RECORDS)
def test_any_records_can_be_shown(records: list[tuple[str, list[object]]]) -> None:
    made = Made()
    made.file("a", 10)
    made.program(0, "cat")
    text = encoded(made.records + [[kind, *items] for kind, items in records])
    found = parse(1.0, text)
    assert isinstance(found, Trace)
    assert figures(found).seconds >= 0
    assert "</html>" in page(picture(found, "any"))


def test_a_file_belongs_to_the_version_whose_directory_it_is_in() -> None:
    """As thousands do that `find` or an indexer opens: none is compared with all versions."""
    made, count = Made(), 20_000
    for number in range(count):
        made.file(f"nlp/m{number}/1/a/w.bin", 10, f"nlp/m{number}@1")
    text = encoded(made.records)
    other = [["file", count + n, f"nlp/m{n}/1/b/v.bin", None, None, None] for n in range(count)]
    found = parse(1.0, text + encoded([*other, ["file", 0, "nlp/m1/10/x", None, None, None]]))
    assert [file.spec for file in found.files[count:-1]] == [f"nlp/m{n}@1" for n in range(count)]
    assert found.files[-1].spec == ""


def test_times_that_no_load_takes_cost_no_time() -> None:
    made = Made()
    file = made.file("nlp/a/1/w.bin", 9, "nlp/a@1")
    made.fetched(file, 0, 1, 0.0, 1.0)
    for _ in range(20):
        made.fetched(file, 1, 9, 0.0, 9e8)
    found = figures(made.trace())
    assert (found.fastest, found.came) == (1.0, 161)
