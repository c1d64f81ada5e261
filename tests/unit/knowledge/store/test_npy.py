"""Maps of files."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from hmi.knowledge.store import allow_maps


@pytest.fixture
def few_files() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_as_many_files_may_be_open_as_maps_are_allowed(few_files: tuple[int, int]) -> None:
    most = few_files[1]
    allow_maps()
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(most, 65_536)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, most)
