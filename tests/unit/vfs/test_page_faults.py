"""Which of the kernel's guesses are declined: those around jumps, and none of whoever reads on."""

from axonfs.ranges import Range
from axonfs.vfs.page_faults import RUN, Guesses

MIB, PAGE = 1 << 20, 4096


def window(middle: int) -> Range:
    return Range(middle - MIB // 2, middle + MIB // 2)


def page(start: int) -> Range:
    return Range(start, start + PAGE)


def test_each_jump_is_declined() -> None:
    guesses = Guesses()
    for place in (10 * MIB + PAGE, 20 * MIB, 30 * MIB - PAGE):
        assert guesses.decline(window(place))
        guesses.on_read(page(place))


def test_whoever_reads_on_is_declined_nothing_more() -> None:
    for start in (10 * MIB, 10 * MIB - MIB // 2):  # as a mapping does, and as `read` does
        guesses = Guesses()
        assert guesses.decline(window(10 * MIB))
        for at in range(start, start + RUN, PAGE):
            guesses.on_read(page(at))
        assert not guesses.decline(window(20 * MIB))


def test_pages_here_and_there_are_no_run() -> None:
    guesses = Guesses()
    assert guesses.decline(window(10 * MIB))
    for number in range(RUN // PAGE):
        guesses.on_read(page(10 * MIB + 2 * number * PAGE))
    assert guesses.decline(window(20 * MIB))


def test_a_run_elsewhere_says_nothing() -> None:
    """A header that was read in small pieces, say."""
    guesses = Guesses()
    for at in range(0, 2 * RUN, PAGE):
        guesses.on_read(page(at))
    assert guesses.decline(window(10 * MIB))


def test_what_is_asked_for_again_is_given() -> None:
    guesses = Guesses()
    assert guesses.decline(window(10 * MIB))
    assert not guesses.decline(window(10 * MIB))


def test_of_a_larger_window_the_first_request_alone_is_declined() -> None:
    guesses = Guesses()
    assert guesses.decline(window(10 * MIB))
    assert not guesses.decline(window(11 * MIB))
    assert guesses.decline(window(12 * MIB))
