"""How much of one kind of work lay under another, from the spans of a trace.

Times count once however many threads work at a time: spans are joined to a union of intervals first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hmi.engine import Span

Interval = tuple[int, int]  # begin and end in nanoseconds

_FETCHING = frozenset({"fetch", "load-adapter"})
_DEVICE = frozenset({"device"})


def busy_share(spans: Iterable[Span]) -> float:
    """Share of the time from the device stage's first to its last moment in which it was running; 0 with no span.

    The mean over several device threads, each relative to the same time.
    """
    device = [span for span in spans if span.name in _DEVICE]
    whole = union(intervals(device, _DEVICE))
    if not length(whole):
        return 0.0
    threads = {span.thread for span in device}
    busy = sum(length(union(intervals([s for s in device if s.thread == thread], _DEVICE))) for thread in threads)
    return busy / len(threads) / (whole[-1][1] - whole[0][0])


def hidden_share(spans: Iterable[Span]) -> float:
    """Share of fetch time (rows looked up, adapters loaded) in which the device was running too.

    The wait for the very first batch is in it, which nothing could hide. 1 where nothing was fetched.
    """
    kept = list(spans)
    fetching = union(intervals(kept, _FETCHING))
    if not length(fetching):
        return 1.0
    return length(common(fetching, union(intervals(kept, _DEVICE)))) / length(fetching)


def intervals(spans: Iterable[Span], names: Iterable[str]) -> list[Interval]:
    """Intervals of the spans of these names."""
    chosen = frozenset(names)
    return [(span.begin_ns, span.end_ns) for span in spans if span.name in chosen]


def union(found: Iterable[Interval]) -> list[Interval]:
    """The same times as intervals that are apart, ascending."""
    joined: list[Interval] = []
    for begin, end in sorted(found):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def common(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """The times that lie in both unions."""
    shared: list[Interval] = []
    i = j = 0
    while i < len(one) and j < len(other):
        begin, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if begin < end:
            shared.append((begin, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return shared


def length(joined: Iterable[Interval]) -> int:
    """Nanoseconds of a union."""
    return sum(end - begin for begin, end in joined)
