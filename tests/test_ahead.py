import threading
import time
from contextlib import closing

import pytest

from slam.ahead import ahead


@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_the_order_of_the_items_whatever_takes_how_long(threads):
    def slow_first(i):
        time.sleep(0.002 * (20 - i))
        return i * i

    assert list(ahead(slow_first, range(20), depth=6, threads=threads)) == [i * i for i in range(20)]
    assert list(ahead(slow_first, range(3), depth=6, threads=threads)) == [0, 1, 4]  # fewer than are made ahead


def test_the_next_ones_are_made_before_they_are_asked_for_and_no_more_than_that():
    begun, third = [], threading.Event()

    def make(i):
        begun.append(i)
        if i == 2:
            third.set()
        return i

    with closing(ahead(make, range(100), depth=2)) as results:
        assert next(results) == 0
        assert third.wait(5)
        time.sleep(0.02)
        assert begun == [0, 1, 2]


def test_an_error_comes_where_its_result_would_have():
    results = ahead(lambda i: 1 // (i - 2), range(5), depth=3)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_is_begun_and_no_thread_is_left_when_the_reader_stops():
    begun = []

    def make(i):
        begun.append(i)
        time.sleep(0.02)

    with pytest.raises(KeyError), closing(ahead(make, range(100), depth=50)) as results:
        next(results)
        raise KeyError
    count = len(begun)
    assert count < 50 and not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    time.sleep(0.05)
    assert len(begun) == count


def test_one_may_feed_another():
    inner = ahead(lambda i: i + 1, range(30), depth=4)
    assert list(ahead(lambda i: i * 2, inner, depth=4, threads=3)) == [2 * i for i in range(1, 31)]
