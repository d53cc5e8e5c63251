"""The packets' times of a media file, and one time line for a file whose parts have different clocks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

# A clock that goes back by more seconds than this is a new one; muxers round by less.
RESTART = 0.2
# So is one that goes forward by more than a recording may pause. In formats whose clock may jump at any time (FFmpeg's
# own limit there) this is less than elsewhere; the tables of an mp4 are believed.
LONGEST_GAP, LONGEST_PAUSE = 10.0, 600.0
# A frame waits for fewer frames than this before it is shown (16 in H.264 and HEVC, and as many dts before the first).
LONGEST_WAIT = 32
# Damaged bytes give a wrong time to no more packets in a row than share one time stamp of the container.
LONGEST_DAMAGE = 50


@dataclass
class Packets:
    """Holds what is known about the packets of one stream, in the order of the file.

    Attributes:
        tick (`float`): The seconds of a tick. It is a float because fractions are slow.
        pts (`list[int | None]`): The presentation times in ticks, `None` for packets without one.
        dts (`list[int | None]`): The decoding times in ticks, `None` for packets without one.
        durations (`list[int]`): The durations in ticks, 0 for packets without one.
        keys (`list[bool]`): Whether each packet is a keyframe.
        discarded (`list[bool]`): Whether each packet is decoded but not shown.
        order (`list[int]`): The number of each packet among the packets of all streams.
        places (`list[int | None]`): The byte offset of each packet in the file, `None` where it is not known.
    """

    tick: float
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    discarded: list[bool] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)


def index_packets(packets: Iterable[Any], streams: Iterable[Any]) -> dict[int, Packets]:
    """Indexes the packets of several streams.

    Args:
        packets (`Iterable[av.Packet]`): The packets of all streams in the order of the file.
        streams (`Iterable[av.stream.Stream]`): The streams that the packets belong to.

    Returns:
        `dict[int, Packets]`: The packets of each stream by the index of the stream.
    """
    found = {stream.index: Packets(float(stream.time_base)) for stream in streams}
    for order, packet in enumerate(packets):
        if packet.size:
            row = found[packet.stream_index]
            row.pts.append(packet.pts)
            row.dts.append(packet.dts)
            row.durations.append(packet.duration or 0)
            row.keys.append(packet.is_keyframe)
            row.discarded.append(packet.is_discard)
            row.order.append(order)
            row.places.append(packet.pos)
    for row in found.values():
        if row.durations and np.median(row.durations) * row.tick > LONGEST_PAUSE:
            # The unit of time itself is damaged: the order of the packets is all that is left.
            row.pts, row.dts = [None] * len(row.pts), [None] * len(row.dts)
    return found


def longest_gap(formats: str, may_jump: bool) -> float:
    """Returns how far a clock may go forward at once without being a new clock.

    Args:
        formats (`str`): The name of the container format as FFmpeg states it.
        may_jump (`bool`): Whether the format allows its clock to jump at any time.

    Returns:
        `float`: The number of seconds, infinite for formats whose tables are believed.
    """
    if formats.startswith("mov"):
        return np.inf
    return LONGEST_GAP if may_jump else LONGEST_PAUSE


class ClipClock:
    """Finds where the clock of a file restarts or jumps and lays the parts end to end, all streams by the same shift.

    A few packets whose times fit neither their neighbours' clock nor a new one have wrong times, which are ignored.

    Args:
        packets (`dict[int, Packets]`): The packets of each stream by the index of the stream.
        gap (`float`): The number of seconds that a clock may go forward at once.

    Attributes:
        wrong (`dict[int, set[int]]`): The numbers of each stream's packets that have a wrong time.
        restarts (`list[float]`): The seconds on the time line at which the second and further parts begin.
        end (`float`): The end of the last packet in seconds.
    """

    def __init__(self, packets: dict[int, Packets], gap: float) -> None:
        self._packets = packets
        self._times = {index: _decoding_times(row, gap) for index, row in packets.items()}
        self.wrong = {index: _shown_too_late(row, gap) for index, row in packets.items()}
        jumps = [(index, number) for index in packets for number in self._jumps(index, gap)]
        self._firsts = self._split(jumps)
        self._shifts, self.restarts, self.end = self._lay_out()

    def shifts(self, index: int) -> list[tuple[int, int, int]]:
        """Describes the parts of a stream.

        Args:
            index (`int`): The index of the stream.

        Returns:
            `list[tuple[int, int, int]]`: For each part the number of its first packet, the number of the first packet
            after it, and the ticks to add to its times.
        """
        firsts = [*self._firsts[index], len(self._packets[index].pts)]
        tick = self._packets[index].tick
        return [(*part, round(shift / tick)) for part, shift in zip(pairwise(firsts), self._shifts, strict=True)]

    def pts(self, index: int, keys: bool = False) -> list[int | None]:
        """Returns the presentation times of a stream's packets on the time line.

        Args:
            index (`int`): The index of the stream.
            keys (`bool`, *optional*, defaults to `False`): Whether to take the keyframes instead of all shown packets.

        Returns:
            `list[int | None]`: The times in ticks, `None` for packets without one.
        """
        row, wrong = self._packets[index], self.wrong[index]
        wanted = row.keys if keys else [not discarded for discarded in row.discarded]
        return [
            None if time is None else time + ticks
            for first, last, ticks in self.shifts(index)
            for number, time in enumerate(row.pts[first:last], start=first)
            if wanted[number] and number not in wrong
        ]

    def _jumps(self, index: int, gap: float) -> list[int]:
        """Returns the numbers of the packets at which a stream's clock jumps, and records those with a wrong time."""
        times = self._times[index]
        steps = np.diff(times)
        found: list[int] = []
        wrong = self.wrong[index]

        def is_on_the_clock(number: int, before: int) -> bool:
            return bool(-RESTART <= times[number] - times[before] <= gap)

        jumps = [int(number) for number in np.flatnonzero((steps < -RESTART) | (steps > gap)) + 1]
        for number in jumps:
            before = next((earlier for earlier in range(number - 1, -1, -1) if earlier not in wrong), None)
            if number in wrong or before is None or is_on_the_clock(number, before):
                continue  # back on its clock after wrong times
            is_back = times[number] < times[before]
            returns = (later for later in jumps if number < later <= number + LONGEST_DAMAGE)
            after = next((later for later in returns if is_on_the_clock(later, before)), None)
            if after is None and number == len(times) - 1 and not is_back:
                after = len(times)
            if after is not None:
                wrong.update(range(number, after))
            elif is_back or not self._goes_on_elsewhere(index, times[before], times[number]):
                found.append(number)
        return found

    def _goes_on_elsewhere(self, index: int, start: float, end: float) -> bool:
        """Tells whether another stream has packets in a gap of this one, which makes the gap a pause, not a jump."""
        others = [times for other, times in self._times.items() if other != index]
        return any(((times > start + 1) & (times < end - 1)).any() for times in others)

    def _split(self, jumps: list[tuple[int, int]]) -> dict[int, list[int]]:
        """Returns the first packet of each part in each stream.

        Streams jump at the same place of the file, not at the same packet. Packets are handed out when they are
        complete, so that late ones of the old clock may follow early ones of the new clock.
        """
        rows = self._packets
        known = {index: [place for place in row.places if place is not None] for index, row in rows.items()}
        is_ordered = all(
            len(known[index]) == len(row.places) and (np.diff(known[index]) >= 0).all() for index, row in rows.items()
        )
        places = {index: np.array(known[index] if is_ordered else row.order, np.int64) for index, row in rows.items()}
        parts: list[tuple[int, dict[int, int]]] = []
        for place, index, number in sorted((int(places[index][number]), index, number) for index, number in jumps):
            if parts and index not in parts[-1][1]:
                start, firsts = parts[-1]
                if np.searchsorted(places[index], start) == number:
                    firsts[index] = number
                    continue
            parts.append((place, {index: number}))
        firsts_of_stream: dict[int, list[int]] = {}
        for index, of_packets in places.items():
            starts = [firsts.get(index, int(np.searchsorted(of_packets, at))) for at, firsts in parts]
            firsts_of_stream[index] = np.maximum.accumulate([0, *starts]).tolist()
        return firsts_of_stream

    def _lay_out(self) -> tuple[list[float], list[float], float]:
        """Returns the seconds that each part is shifted by, where the later parts begin, and where the last one ends."""
        count = len(next(iter(self._firsts.values())))
        spans = [[np.inf, -np.inf] for _ in range(count)]
        for index, row in self._packets.items():
            firsts = [*self._firsts[index], len(row.pts)]
            durations = _believable_durations(row)
            for span, (first, last) in zip(spans, pairwise(firsts), strict=True):
                spans_of_packets = [
                    (pts, pts + duration)
                    for number, pts, duration in zip(
                        range(first, last), row.pts[first:last], durations[first:last], strict=True
                    )
                    if pts is not None and number not in self.wrong[index] and not row.discarded[number]
                ]
                if spans_of_packets:
                    span[0] = min(span[0], min(start for start, _ in spans_of_packets) * row.tick)
                    span[1] = max(span[1], max(stop for _, stop in spans_of_packets) * row.tick)
        shifts: list[float] = []
        restarts: list[float] = []
        end: float | None = None
        for start, stop in spans:
            shift = 0.0 if not shifts else shifts[-1]
            if start <= stop:
                if end is not None:
                    shift = end - start
                    restarts.append(end)
                end = stop + shift
            shifts.append(shift)
        return shifts, restarts, 0.0 if end is None else end


def _shown_too_late(row: Packets, gap: float) -> set[int]:
    """Returns the numbers of the packets that are shown long after the packets that they may wait for are decoded.

    In a file whose decoding times are a table of their own such a presentation time is damaged.
    """
    if gap != np.inf or len(row.dts) < 2 or None in row.dts:
        return set()
    dts = np.array(row.dts, np.float64)
    end = dts.max() + np.abs(np.diff(dts)).max()
    latest = np.append(dts[LONGEST_WAIT:], np.full(min(LONGEST_WAIT, len(dts)), end)) + LONGEST_GAP / row.tick
    return {number for number, pts in enumerate(row.pts) if pts is not None and pts > latest[number]}


def _believable_durations(row: Packets) -> list[int]:
    """Returns the durations in ticks, the usual one in place of one that is longer than a recording may pause."""
    longest = LONGEST_PAUSE / row.tick
    believable = [duration for duration in row.durations if duration <= longest]
    usual = int(np.median(believable)) if believable else 0
    return [duration if duration <= longest else usual for duration in row.durations]


def _decoding_times(row: Packets, gap: float) -> np.ndarray:
    """Returns the seconds at which the packets are decoded. They only grow on one clock.

    A packet without a time takes the time of the packet before it.
    """
    latest = next((time for time in row.dts if time is not None), None)
    if latest is None:  # presentation times come in another order, so that only their growth says something
        return np.maximum.accumulate([0 if time is None else time for time in row.pts] or [0]) * row.tick
    times = []
    for pts, dts in zip(row.pts, row.dts, strict=True):
        if dts is not None and pts is not None and not -gap <= (dts - pts) * row.tick <= RESTART:
            dts = pts  # not shown before it is decoded, nor long after: FFmpeg counted on where a new clock starts
        latest = latest if dts is None else dts
        times.append(latest * row.tick)
    return np.array(times)
