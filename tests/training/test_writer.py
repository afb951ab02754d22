"""Writing while training goes on: nothing is left behind, and no error is lost."""

import threading

import pytest

from slam.training.writer import Writer


def failed():
    raise OSError("disk full")


def test_a_job_runs_beside_the_caller_and_the_block_waits_for_it():
    go, done = threading.Event(), []
    with Writer() as writer:
        writer.start(lambda: (go.wait(10), done.append("one")))
        writer.check()  # does not wait
        assert not done
        go.set()
    assert done == ["one"]


@pytest.mark.parametrize(
    "then", [lambda writer: writer.start(print), lambda writer: writer.wait(), lambda writer: None]
)
def test_an_error_comes_up_at_the_next_call_or_at_the_end(then):
    with pytest.raises(OSError, match="disk full"), Writer() as writer:
        writer.start(failed)
        then(writer)


def test_the_block_waits_also_when_it_fails_itself_and_then_its_own_error_counts():
    go, done = threading.Event(), []
    with pytest.raises(KeyError), Writer() as writer:
        writer.start(lambda: (go.wait(10), done.append("one"), failed()))
        threading.Timer(0.05, go.set).start()
        raise KeyError
    assert done == ["one"]
