import time

import numpy as np
import pytest

from slam.data.filter.near import NOWHERE, leaders, near


def plain(hashes, radius):
    """The definition, one by one."""
    stay, found = [], []
    for place, value in enumerate(map(int, hashes)):
        to = next((s for s in stay if (value ^ int(hashes[s])).bit_count() <= radius), place)
        found.append(to)
        if to == place:
            stay.append(place)
    return found


def crowds(rng, centres, each, bits):
    """Distinct hashes, each up to `bits` flipped bits from one of the centres, in any order."""
    found = []
    for centre in rng.integers(0, 2**64, centres, dtype=np.uint64):
        for _ in range(each):
            flips = rng.choice(64, rng.integers(0, bits + 1), replace=False)
            found.append(int(centre) ^ sum(1 << int(flip) for flip in flips))
    return rng.permutation(np.array(sorted(set(found)), dtype=np.uint64))


@pytest.mark.parametrize("radius", [0, 1, 3, 4, 7, 10])
def test_of_pictures_that_are_alike_the_first_stays_as_a_comparison_of_all_with_all_finds(radius):
    hashes = crowds(np.random.default_rng(radius), 40, 60, radius)
    assert len(hashes) > 1500 or radius < 2  # more than are compared at once
    found = leaders(hashes, radius)
    assert found.tolist() == plain(hashes, radius)
    assert len(set(found.tolist())) < len(hashes) or radius == 0


def test_likeness_is_not_passed_on():
    hashes = np.array([0b0, 0b11, 0b1111], dtype=np.uint64)  # 2 bits from one to the next, 4 from first to last
    assert leaders(hashes, 2).tolist() == [0, 0, 2]
    assert leaders(hashes[[1, 0, 2]], 2).tolist() == [0, 0, 0]


@pytest.mark.parametrize("radius", [0, 2, 5])
def test_the_first_of_the_others_within_the_radius_is_found(radius):
    rng = np.random.default_rng(1)
    among = crowds(rng, 30, 20, radius + 1)
    queries = np.concatenate([among[:50], crowds(rng, 20, 5, 3), among[50:90] ^ np.uint64(0b110)])
    bits = np.bitwise_count(queries[:, None] ^ among[None])
    expected = [int(np.flatnonzero(row <= radius)[0]) if (row <= radius).any() else NOWHERE for row in bits]
    assert near(queries, among, radius).tolist() == expected
    assert NOWHERE in expected and len(set(expected)) > 50


@pytest.mark.slow
def test_a_crowd_of_hashes_all_alike_does_not_cost_its_square():
    rng = np.random.default_rng(0)
    centre, each = np.uint64(rng.integers(0, 2**63)), np.arange(64, dtype=np.uint64)
    bits = np.uint64(1) << each
    pairs = (bits[:, None] | bits[None]).reshape(-1, 1, 1)
    crowd = np.unique(centre ^ (pairs | (bits[:, None] | bits[None])[None]).reshape(-1))[:40_000]
    begun = time.process_time()
    found = leaders(rng.permutation(crowd), 4)
    assert len(set(found.tolist())) < 1000  # of 40,000
    assert time.process_time() - begun < 5  # a comparison of all with all is of 8 * 10^8 pairs
