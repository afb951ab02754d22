"""Near duplicates: pictures whose 64-bit perceptual hashes differ in few bits.

Bands (the pigeonhole principle): cut 64 bits into B bands; of two hashes that differ in at most r bits, at least B - r
bands are equal. So for each choice of B - r bands, only hashes that are equal there need to be compared.

Of the hashes in their order each stays unless it is within r of an earlier one *that stays*. So whatever goes has its
like among what stays; likeness is not passed on (a ~ b ~ c, a not ~ c: a and c stay).

N hashes, uint64.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

BITS = 64
BLOCK = 512  # hashes that are compared each with each
NOWHERE = -1


def leaders(hashes: np.ndarray, radius: int) -> np.ndarray:
    """int64 [N]: for each of N distinct hashes the place of the one that stays for it, its own if that is itself.

    Halves are settled one after the other, so that a crowd of hashes, all alike, is compared with the few of it that
    stay and not with itself: no more than N log N comparisons for each band, and BLOCK a hash.
    """
    found = np.arange(len(hashes))
    if radius:  # distinct hashes are no nearer than 1
        _settle(hashes, np.arange(len(hashes)), radius, found)
    return found


def _settle(hashes: np.ndarray, places: np.ndarray, radius: int, found: np.ndarray) -> np.ndarray:
    """Write the leaders of `places` (ascending) to `found`; returns those that stay."""
    if len(places) <= BLOCK:
        return _settle_block(hashes, places, radius, found)
    half = len(places) // 2
    first = _settle(hashes, places[:half], radius, found)
    rest = places[half:]
    to = near(hashes[rest], hashes[first], radius)
    found[rest[to != NOWHERE]] = first[to[to != NOWHERE]]
    second = _settle(hashes, rest[to == NOWHERE], radius, found)
    return np.concatenate([first, second])


def _settle_block(hashes: np.ndarray, places: np.ndarray, radius: int, found: np.ndarray) -> np.ndarray:
    stay, left = [], places
    while len(left):
        stay.append(left[0])
        alike = np.bitwise_count(hashes[left] ^ hashes[left[0]]) <= radius
        found[left[alike]] = left[0]
        left = left[~alike]
    return np.array(stay, dtype=np.int64)


def near(queries: np.ndarray, among: np.ndarray, radius: int) -> np.ndarray:
    """int64 [N]: for each query the place of the first of `among` within `radius` of it, or NOWHERE."""
    found = np.full(len(queries), len(among))
    bands = _bands(max(len(queries), len(among)), radius)
    edges = np.linspace(0, BITS, bands + 1).round().astype(int)
    for chosen in combinations(range(bands), bands - radius):
        mask = np.uint64(sum((1 << int(edges[b + 1])) - (1 << int(edges[b])) for b in chosen))
        _match(queries, among, mask, radius, found)
    return np.where(found == len(among), NOWHERE, found)


def _match(queries: np.ndarray, among: np.ndarray, mask: np.uint64, radius: int, found: np.ndarray) -> None:
    """Lower `found` to the first of `among` that is equal under `mask` and within `radius`."""
    order = np.argsort(among & mask, kind="stable")
    keys = (among & mask)[order]
    wanted = np.argsort(queries & mask, kind="stable")
    start, end = (np.searchsorted(keys, (queries & mask)[wanted], side) for side in ("left", "right"))
    while True:
        # Within a run of equal keys `order` ascends: past `found`, nothing there can lower it.
        going = start < end
        wanted, start, end = wanted[going], start[going], end[going]
        going = order[start] < found[wanted]
        wanted, start, end = wanted[going], start[going], end[going]
        if not len(wanted):
            return
        place = order[start]
        alike = np.bitwise_count(queries[wanted] ^ among[place]) <= radius
        found[wanted[alike]] = place[alike]
        wanted, start, end = wanted[~alike], start[~alike] + 1, end[~alike]


def _bands(count: int, radius: int) -> int:
    """The number of bands that costs least: few tables to sort, against few chance matches in each."""
    if radius == 0:
        return 1

    def cost(bands: int) -> float:
        chance = count**2 / 2.0 ** (BITS * (bands - radius) / bands)
        return comb(bands, radius) * (count * np.log2(count + 2) + 5 * chance)  # 5: a match against a comparison

    return min(range(radius + 1, radius + 9), key=cost)
