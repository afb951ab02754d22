import numpy as np
import pytest
from cleanfid.fid import kernel_distance

from slam.evaluation import kid
from slam.evaluation.bootstrap import weights
from slam.evaluation.kid import Kid


def sets(n, m, dims=16, apart=0.3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, dims)), apart + rng.normal(size=(m, dims))


def by_hand(x, y):
    """The unbiased estimate, pair by pair."""
    k = [[(a @ b / len(a) + 1) ** 3 for b in (*x, *y)] for a in (*x, *y)]
    n, m = len(x), len(y)
    own = sum(k[i][j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(k[i][j] for i in range(n, n + m) for j in range(n, n + m) if i != j) / (m * (m - 1))
    return own + other - 2 * sum(k[i][j] for i in range(n) for j in range(n, n + m)) / (n * m)


def test_equals_clean_fids_own_on_the_same_features():
    """Whose subsets are then the whole sets, in another order."""
    x, y = sets(200, 200)
    assert Kid(x, y)()[0] == pytest.approx(kernel_distance(x, y, num_subsets=2, max_subset_size=1000), rel=1e-9)


@pytest.mark.parametrize("rows", [3, 7, 2048])
def test_equals_the_sum_over_pairs_however_it_is_cut(rows, monkeypatch):
    monkeypatch.setattr(kid, "ROWS", rows)
    x, y = sets(20, 33)
    assert Kid(x, y)()[0] == pytest.approx(by_hand(x, y), rel=1e-10)


def test_is_unbiased_for_sets_of_one_distribution():
    """Of 300 pairs the mean is nearer to 0 than four of its standard errors; a biased estimate would be about 0.3."""
    rng = np.random.default_rng(1)
    found = np.array([Kid(rng.normal(size=(20, 8)), rng.normal(size=(30, 8)))()[0] for _ in range(300)])
    assert abs(found.mean()) < 4 * found.std() / 300**0.5


def test_a_weight_is_how_often_a_picture_counts_without_pairs_with_its_own_copy():
    x, y = sets(12, 15)
    counts = weights(12, 3)
    for row, found in zip(counts, Kid(x, y)(counts), strict=True):
        pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
        total = sum(row[i] * row[j] for i, j in pairs)
        own = sum(row[i] * row[j] * kid.kernel(x[i : i + 1], x[j : j + 1])[0, 0] for i, j in pairs) / total
        across = (row @ kid.kernel(x, y)).mean() / row.sum()
        rest = kid.kernel(y, y)[~np.eye(15, dtype=bool)].mean()
        assert found == pytest.approx(own + rest - 2 * across)
