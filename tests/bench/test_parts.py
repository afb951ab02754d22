import time

import pytest
import torch
from accelerate import Accelerator

from benchmarks.train import PlainTraining, encoded, png
from slam.bench.parts import LOOP, PARTS, Watch, WatchedAccelerator, clock, now_and_then, outside, split, watched
from slam.bench.report import bench
from slam.bench.subject import Subject, make_subject, start
from slam.bench.turns import Worker, in_turn, training
from slam.data import shapes
from slam.models.diffusion import load


def test_a_stretch_belongs_to_the_part_that_was_begun_last():
    moments = iter([0, 2, 7, 8])
    watch = Watch(lambda: next(moments), lambda start, end: end - start)
    for part in ("teacher", "target", "teacher", "end"):
        watch.begin(part)
    assert watch.totals() == {"teacher": 3, "target": 5}
    assert outside({"teacher": 3, "optimizer": 1}) == 0.25


def test_the_parts_of_a_step_add_up_to_it(tmp_path):
    watch, accelerator = clock(torch.device("cpu")), WatchedAccelerator(cpu=True)
    accelerator.watch = watch
    run = start(make_subject("tiny", tmp_path, batch=4).with_speed(text_cache=0), accelerator, watched(watch))
    begin = time.perf_counter()
    parts = split(run, watch, 0, 2)
    step = 1e3 * (time.perf_counter() - begin) / 2
    run.batches.close()
    assert set(parts) == set(PARTS)
    assert sum(parts.values()) == pytest.approx(step, rel=0.02)
    assert min(parts["teacher"], parts["backward"]) > parts["rest"] > 0
    assert set(now_and_then(run, accelerator, tmp_path)) == set(LOOP)


@pytest.mark.slow
def test_the_report_of_tiny_has_all_that_is_measured():
    lines = "\n".join(bench("tiny", 1, None, False, False, batch=4))
    for words in ("3,918,532 parameters", "samples/s", "TFLOP/s achieved", "peak memory", "| EMA |", "ESTIMATED"):
        assert words in lines


@pytest.mark.slow
def test_the_plain_loop_computes_the_same_losses(tmp_path):
    subject = make_subject("tiny", tmp_path, batch=8, decay="constant")
    drawn = shapes.draw(512, 0)
    model = load(subject.plan.teacher)
    encoded(model, drawn, tmp_path)
    plain = PlainTraining(subject.plan, model, [png(image) for image in drawn.images], drawn.captions)
    run = start(Subject(subject.plan, None), Accelerator(cpu=True))
    for number in range(3):
        assert float(run.step(number)[0]) == pytest.approx(plain.step(number), rel=1e-2 if number else 1e-3)
    run.batches.close()


@pytest.mark.slow
def test_trainings_take_turns_in_processes_of_their_own(tmp_path):
    subject = make_subject("tiny", tmp_path, batch=2)
    with Worker(training, subject) as one, Worker(training, subject.with_speed(fused=False)) as other:
        assert one.losses[0] == pytest.approx(other.losses[0], rel=1e-5)
        assert one.process.pid != other.process.pid
        assert all(spent.own > 0 and spent.wall > 0 for turn in in_turn([one, other], 2, 1) for spent in turn)
