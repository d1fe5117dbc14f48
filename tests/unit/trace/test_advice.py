"""What a trace says would have made it sooner."""

from __future__ import annotations

import pytest

from axonfs.trace.advice import advice
from axonfs.trace.figures import figures, plain
from axonfs.trace.picture import picture
from tests.support.traces import MIB, Made


def said(made: Made) -> list[str]:
    trace = made.trace()
    return advice(trace, figures(trace))


def load(**facts: object) -> Made:
    made = Made(**facts)
    made.file("nlp/a/1/model.bin", 100 * MIB, "nlp/a@1")
    made.program(0, "vllm")
    return made


def test_an_empty_trace_says_so() -> None:
    assert said(Made()) == ["The trace shows neither a read nor a request."]


def test_bytes_that_were_local_could_not_come_sooner() -> None:
    made = Made()
    made.file("nlp/a/1/model.bin", 100 * MIB, "nlp/a@1", local=True)
    made.program(0, "vllm")
    made.read(0, 0, 100 * MIB, 1.0, 2.0)
    assert said(made) == ["Nothing: no bytes had to come from a source."]


def test_a_full_line_is_named_with_the_part_of_the_time() -> None:
    made = load()
    for second in range(10):
        part = 10 * MIB
        began, ended = second * 0.1, (second + 1) * 0.1
        made.fetched(0, second * part, (second + 1) * part, began, ended, stage="receiving")
        made.read(0, second * part, (second + 1) * part, began, ended, waits=True)
    (sentence,) = said(made)
    assert sentence.startswith(
        "For 1.0 s of 1.0 s a reader waited for bytes on their way; the line was"
    )
    assert "full for 100 % of the time in which bytes were under way, at 80 % of 100" in sentence
    assert "a faster line, or a site cache nearby" in sentence


def test_first_bytes_are_named_with_how_long_they_took() -> None:
    made = load()
    for at in range(12):
        stage = "first_byte"
        made.fetched(0, at * MIB, (at + 1) * MIB, float(at), at + 0.34, priority=0, stage=stage)
        made.read(0, at * MIB, (at + 1) * MIB, float(at), at + 0.34, waits=True)
    assert said(made)[0] == (
        "For 4.1 s of 11 s a reader waited for first bytes: half of the 12 requests that went out"
        " because a reader waited had brought bytes after 340 ms."
    )


def test_the_bandwidth_limit_is_named_with_its_rate() -> None:
    made = load(bandwidth=5 * MIB)
    made.fetched(0, 0, 50 * MIB, 0.0, 10.0, stage="bandwidth")
    made.read(0, 0, 50 * MIB, 0.4, 10.0, waits=True)
    assert said(made)[0] == (
        "For 9.6 s of 10 s a reader waited for the mount's bandwidth limit of 5.0 MiB/s: a higher"
        " --bandwidth would have made it sooner."
    )


def test_many_small_requests_under_the_limit_wait_for_the_limit() -> None:
    """Each is short, so that the trace has no stage of it; those behind it wait for a stream."""
    made = Made(bandwidth=MIB, prefetch="off")
    made.program(0, "vllm")
    for number in range(20):
        file = made.file(f"nlp/a/1/{number}.bin", MIB // 5, "nlp/a@1")
        landed = (number + 1) / 5
        made.fetched(file, 0, MIB // 5, landed - 0.2, landed, priority=0)
        made.read(file, 0, MIB // 5, 0.0, landed, waits=True)
    first, *rest = said(made)
    assert first.startswith("For 4.0 s of 4.0 s a reader waited for the mount's bandwidth limit")
    assert not any("streams" in sentence or "prefetch" in sentence for sentence in rest)


def test_a_limit_that_was_raised_meanwhile_is_not_blamed() -> None:
    made = load(bandwidth=MIB)
    for second in range(10):
        part = 10 * MIB * second, 10 * MIB * (second + 1)
        made.fetched(0, *part, float(second), second + 1.0, priority=0, stage="first_byte")
        made.read(0, *part, float(second), second + 1.0, waits=True)
    assert "bandwidth" not in "".join(said(made))


def test_requests_that_wait_at_a_time_are_not_added_up_in_a_sentence() -> None:
    """The kernel has several requests under way for one reader, and there may be two readers."""
    made = load(bandwidth=MIB)
    made.fetched(0, 0, 8 * MIB, 0.0, 8.0, stage="bandwidth")
    for part in range(8):
        made.read(0, part * MIB, (part + 1) * MIB, 0.0, 8.0, waits=True)
    sentence = said(made)[0]
    assert sentence.startswith("For 8.0 s of 8.0 s a reader waited for the mount's bandwidth limit")
    found = plain(made.trace(), figures(made.trace()))
    assert (found["causes"], found["elapsed"]) == ({"bandwidth": 64.0}, {"bandwidth": 8.0})
    assert found["programs"][0]["waited"] == found["files"][0]["waited"] == 8.0


def test_a_manifest_that_is_waited_for_is_named() -> None:
    made = load()
    made.fetched(0, 0, 50 * MIB, 3.0, 3.2)
    for look in range(3):
        made.waited(1.0 + 0.5 * look, document=1.5)  # of three programs
    assert said(made)[0] == (
        "For 1.5 s of 2.7 s a reader waited for a manifest, a list or a chunk table: axonfs pin"
        " asks for them before a program does."
    )


@pytest.mark.parametrize(("prefetch", "named"), [("off", True), ("auto", False)])
def test_files_that_were_asked_for_one_after_another(prefetch: str, named: bool) -> None:
    made = Made(prefetch=prefetch)
    made.program(0, "vllm")
    for number in range(4):
        file = made.file(f"nlp/a/1/model-{number}.bin", 80 * MIB, "nlp/a@1")
        made.fetched(file, 0, 80 * MIB, float(number), number + 0.9, priority=0)
        made.read(file, 0, 80 * MIB, float(number), number + 0.9, waits=True)
    sentence = (
        "3 files of 4 were asked for only when the program had come to them, and for 2.7 s of 3.9 s"
        " a reader waited for their bytes: --prefetch auto would have asked for them ahead."
    )
    assert (sentence in said(made)) is named


def test_a_program_that_hardly_waits_decides_itself() -> None:
    made = load()
    made.fetched(0, 0, 10 * MIB, 0.0, 0.1)
    made.read(0, 0, MIB, 0.0, 0.02, waits=True)
    for second in range(10):
        made.read(0, 0, 10 * MIB, float(second), second + 1.0)
    assert said(made) == [
        "Little: readers waited for only 20 ms of 10 s; in the rest the programs did something"
        " else."
    ]


def test_one_moment_is_enough_for_a_picture() -> None:
    made = load()
    made.records.append(["open", 5.0, 0.0, 0, 0, True, 0])
    assert said(made) == ["Nothing: no bytes had to come from a source."]
    assert len(picture(made.trace(), "moment").charts) == 2


def test_a_program_whose_pid_is_not_known_is_said_to_be_so() -> None:
    made = Made()
    made.file("nlp/a/1/model.bin", MIB, "nlp/a@1")
    made.program(0, "", 0)
    made.read(0, 0, MIB, 1.0, 2.0)
    ((bar,),) = [bars for title, bars in picture(made.trace(), "x").tables if title == "Programs"]
    assert bar.name == "programs without a known pid"
