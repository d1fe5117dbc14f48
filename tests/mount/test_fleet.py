"""A small fleet: hosts with lines of their own, and nginx as packaging/ has it as a cache on each.

`tools/bench fleet` asks the same with more hosts and more faults, and has the figures.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.experiment import NotRunError
from bench.fixtures import MIB
from bench.fleet import SPEC, Model, options, published
from bench.fleets import Fleet, fleet, read, read_together

pytestmark = pytest.mark.mount
HOSTS, SIZE = 8, 64 * MIB
# Bits per second. The origin needs five seconds for the model.
LINE, HOST_LINE = 100_000_000, 1_000_000_000


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return published(tmp_path, SIZE)


@pytest.fixture
def many(model: Model, tmp_path: Path) -> Iterator[Fleet]:
    try:
        with fleet(model.registry, tmp_path / "fleet", HOSTS, LINE, HOST_LINE) as many:
            many.start_caches(many.hosts)
            yield many
    except NotRunError as exc:
        pytest.skip(str(exc))


def test_a_cache_is_killed(many: Fleet, model: Model) -> None:
    """All hosts read the right bytes though one of their caches is killed in the middle, and fewer
    than two copies leave the origin."""
    mounts = many.mount(many.hosts, *options(many.urls))

    def kill_one() -> None:
        many.until_sent(model.size / 2)
        many.caches[0].kill()

    assert model.unlike(read_together(mounts, SPEC, kill_one)) == 0
    assert many.sent().bytes < 2 * model.size


def test_no_cache_answers(many: Fleet, model: Model) -> None:
    """When all caches are killed and the origin may not be asked, a reader gets an errno within
    the deadline, and the origin no request."""
    never = (*options(many.urls), "--fallback", "never")
    [mount] = many.mount(many.hosts[:1], *never, start=("env", "AXONFS_DEADLINE=2"))
    mount.weights(SPEC)
    before = many.sent().requests
    for cache in many.caches:
        cache.kill()
    error = read(mount, SPEC).error
    assert error is not None
    assert error.errno in (errno.EIO, errno.ETIMEDOUT)
    assert many.sent().requests == before
