"""The training stage for real: child processes under `accelerate launch`."""

import json
import shutil
import signal
import subprocess
import sys
import time
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from slam.errors import SlamError
from slam.files import locked
from slam.training import checkpoint, scaler, stage
from slam.training.alone import alone
from slam.training.journal import read_journal
from slam.training.loop import train
from slam.training.plan import Plan, check_unchanged, make_plan, read_plan
from slam.training.stage import train_stage


def in_process(profile, latents, out):
    """The loop itself, without the launcher: the same code in seconds less."""
    out.mkdir(exist_ok=True)
    make_plan(profile, latents).write(out)
    assert train(out) == 0
    return out


def state(out, step):
    """Read into memory: `load_file` would map the file, and see what a test does to it later."""
    folder = out / f"checkpoints/step-{step:06d}"
    return {file.name: load(file.read_bytes()) for file in sorted(folder.glob("*.safetensors"))}


def metrics(out):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in read_journal(out / "journal.jsonl")]


def assert_equal(a, b):
    assert a.keys() == b.keys() >= {"ema.safetensors", "student.safetensors", "optimizer.safetensors"}
    for name in a:
        assert a[name].keys() == b[name].keys()
        for key in a[name]:
            assert torch.equal(a[name][key], b[name][key]), (name, key)


def assert_equal_up_to_rounding(a, b):
    """Tight at the first step; later Adam makes a step of the learning rate's size of a gradient that is rounding."""
    assert b[0] == pytest.approx(a[0], rel=1e-4)  # 1e-5 was seen between two kinds of CPU
    assert len(a) == len(b)
    for line, other in zip(a, b, strict=True):
        assert other == pytest.approx(line, rel=1e-2)


@pytest.mark.parametrize(
    "method",
    [
        {"train.decay": "linear"},
        {"distill.conditioning": "gamma", "distill.k": 100},
        {"distill.method": "lcm", "train.lora": {"rank": 2, "alpha": 2}},
        {"distill.method": "lcm_w", "distill.w_min": 2, "distill.w_max": 8},
        {"train.precision": "fp16", "train.emas": [0.9, 0.99]},
    ],
)
def test_six_steps_are_three_steps_and_three_more_bit_for_bit(method, profile, latents, tmp_path):
    whole = in_process(profile(**method), latents, tmp_path / "whole")
    parts = shutil.copytree(whole, tmp_path / "parts")
    shutil.rmtree(parts / "checkpoints/step-000006")  # as if it had been killed after the checkpoint of step 3
    in_process(profile(**method), latents, parts)
    assert_equal(state(whole, 6), state(parts, 6))
    assert metrics(whole) == metrics(parts)


def test_a_longer_run_goes_on_from_a_shorter_one_unless_its_rate_is_to_fall(profile, latents, tmp_path):
    whole = in_process(profile(), latents, tmp_path / "whole")
    in_process(profile(**{"train.steps": 3}), latents, tmp_path / "parts")
    assert_equal(state(whole, 6), state(in_process(profile(), latents, tmp_path / "parts"), 6))
    short, long = (make_plan(profile(**{"train.decay": "linear", "train.steps": n}), latents) for n in (3, 6))
    short.write(tmp_path)
    (tmp_path / "checkpoints/step-000003").mkdir(parents=True)
    with pytest.raises(SlamError, match=r"train\.steps: 3 -> 6"):
        check_unchanged(tmp_path, long)
    assert [step for step, _, _ in metrics(whole)] == [1, 2, 3, 4, 5, 6]


def test_micro_batches_accumulate_to_the_whole_batch(profile, latents, tmp_path):
    lr = {"train.lr": 1e-5}  # so that rounding stays rounding: Adam turns it into steps of lr's size
    one = in_process(profile(**lr), latents, tmp_path / "one")
    four = in_process(profile(**lr, **{"train.micro_batch": 2}), latents, tmp_path / "four")
    assert_equal_up_to_rounding(metrics(one), metrics(four))


def test_the_target_and_each_further_average_are_moving_averages_of_the_student(profile, latents, tmp_path):
    out = in_process(
        profile(**{"train.steps": 2, "train.checkpoint_every": 1, "train.emas": [0.5, 0.99]}), latents, tmp_path / "run"
    )
    before, after = state(out, 1), state(out, 2)
    for decay, file in {0.95: "ema.safetensors", 0.5: "ema-0.5.safetensors", 0.99: "ema-0.99.safetensors"}.items():
        for key, average in after[file].items():
            expected = decay * before[file][key] + (1 - decay) * after["student.safetensors"][key]
            assert torch.allclose(average, expected, atol=1e-7), (file, key)


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_that_the_same_command_goes_on_from(profile, latents, tmp_path):
    slow = profile(**{"train.steps": 400, "train.checkpoint_every": 400})
    out = tmp_path / "run"
    out.mkdir()
    make_plan(slow, latents).write(out)
    child = subprocess.Popen([sys.executable, "-m", "slam.training.loop", str(out)])
    while len(read_journal(out / "journal.jsonl")) < 4:
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 143
    (path,) = checkpoint.checkpoints(out / "checkpoints")
    step = checkpoint.read_manifest(path)["step"]
    assert 4 <= step < 400
    assert len(metrics(out)) == step
    whole = in_process(profile(**{"train.steps": step}), latents, tmp_path / "whole")
    assert_equal(state(out, step), state(whole, step))


def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_taken(profile, latents, tmp_path, capsys):
    out = in_process(profile(), latents, tmp_path / "run")
    expected = state(out, 6)
    damaged = out / "checkpoints/step-000006/student.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    in_process(profile(), latents, out)
    assert "Passing over" in capsys.readouterr().out
    assert_equal(state(out, 6), expected)


def test_another_configuration_is_refused_with_the_difference_and_nothing_lost(profile, latents, tmp_path):
    out = in_process(profile(), latents, tmp_path / "run")
    files = sorted(out.rglob("*"))
    with pytest.raises(SlamError, match=r"train\.lr: 0\.0003 -> 0\.001"):
        train_stage(profile(**{"train.lr": 1e-3}), latents, out)
    assert [path for path in sorted(out.rglob("*")) if path.name != "lock"] == files  # that of `slam train` is new


def test_adapters_that_are_given_up_are_a_difference_too(profile, latents, tmp_path):
    make_plan(profile(**{"train.lora": {"rank": 2, "alpha": 2}, "train.emas": [0.9]}), latents).write(tmp_path)
    (tmp_path / "checkpoints/step-000003").mkdir(parents=True)
    with pytest.raises(SlamError, match=r"train\.lora\.rank: 2 -> None(.|\n)*train\.emas: \(0\.9,\) -> None"):
        check_unchanged(tmp_path, make_plan(profile(), latents))


def test_a_run_from_before_a_key_was_there_is_the_same_run(profile):
    """What `studies/results` and checkpoints on disk are known by: the fingerprint of a plan of the first release."""
    plan = Plan("teacher", "latents", profile().distill, profile().train, "data", "network")
    assert plan.fingerprint.startswith("b2eb850d0960a568")


def test_the_grace_goes_to_the_launcher_and_is_no_part_of_what_a_run_is(profile, latents, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(stage, "accelerate_launch", lambda *_, grace: given.append(grace) or 0)
    for changes in ({}, {"train.grace": 300}):
        train_stage(profile(**changes), latents, tmp_path)
        (tmp_path / "checkpoints/step-000003").mkdir(parents=True, exist_ok=True)  # as if trained: plans are compared
    assert given == [30, 300]
    plan = json.loads((tmp_path / "plan.json").read_text())
    del plan["train"]["grace"]  # of a run that is older than the key
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert read_plan(tmp_path).train.grace == 30


def test_a_plan_that_was_refused_before_its_first_checkpoint_stands_in_nobodys_way(profile, latents, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(SlamError, match=r"distill\.k = 2000 must be at most"):
        in_process(profile(**{"distill.k": 2000}), latents, out)
    check_unchanged(out, make_plan(profile(), latents))  # says nothing


@pytest.mark.slow
def test_restart_sets_the_old_run_aside(profile, latents, tmp_path):
    out = in_process(profile(), latents, tmp_path / "run")
    result = train_stage(profile(**{"train.lr": 1e-3, "train.steps": 3}), latents, out, restart=True)
    assert result["steps"] == 3
    assert (tmp_path / "run.previous/checkpoints/step-000006/manifest.json").exists()


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("lock", ["lock", "loop.lock"])
def test_a_second_run_on_a_folder_is_refused_until_the_first_is_dead(lock, profile, latents, tmp_path):
    """`slam train` holds the one, the process that writes the other: it may outlive a `slam train` that was killed."""
    out = tmp_path / "run"
    out.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out / lock)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(SlamError, match="another `slam train` is running"):
            train_stage(profile(), latents, out)
        other.kill()
        assert sorted(path.name for path in out.iterdir()) in (["lock"], ["lock", "loop.lock"])  # nothing was begun
    with alone(out), locked(out / "lock", "nobody"):
        pass


def poisoned(step_of_call, monkeypatch):
    """From now on the latents of training steps for which `step_of_call(calls so far)` holds are NaN."""
    import slam.training.loop as loop

    true, calls = loop.train_step, count()

    def step(objective, accelerator, student, target, state, batches):
        if step_of_call(next(calls)):
            batches = [batch._replace(latents=batch.latents * float("nan")) for batch in batches]
        return true(objective, accelerator, student, target, state, batches)

    monkeypatch.setattr(loop, "train_step", step)


def test_a_step_that_is_not_finite_is_skipped_and_counted(profile, latents, tmp_path, monkeypatch):
    """What it leaves is what was there, bit for bit; the run goes on."""
    out = in_process(profile(**{"train.steps": 3}), latents, tmp_path / "run")
    before = state(out, 3)
    poisoned(lambda call: call == 0, monkeypatch)
    in_process(profile(**{"train.steps": 4}), latents, out)
    assert_equal(state(out, 4), before)
    in_process(profile(), latents, out)
    lines = read_journal(out / "journal.jsonl")
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 0, 0]
    assert lines[3]["loss"] is None and lines[3]["grad_norm"] is None
    assert all(torch.isfinite(value).all() for part in state(out, 6).values() for value in part.values())
    assert not torch.equal(*(s["student.safetensors"]["conv_in.bias"] for s in (before, state(out, 6))))


def test_an_overflow_of_fp16_halves_the_scale_and_is_no_sign_of_a_run_gone_wrong(
    profile, latents, tmp_path, monkeypatch
):
    """Until the scale is at its floor, where it can only be the run itself."""
    monkeypatch.setattr(scaler, "FIRST", 4.0)
    fp16 = {"train.precision": "fp16", "train.skips": 2, "train.log_every": 1, "train.steps": 9}
    poisoned(lambda call: call >= 1, monkeypatch)
    with pytest.raises(SlamError, match="step 5: loss or gradient of the last 2 steps"):
        in_process(profile(**fp16), latents, tmp_path / "run")
    scales = [line["loss_scale"] for line in read_journal(tmp_path / "run/journal.jsonl")]
    assert scales == [4, 4, 2, 1, 1]


def test_a_loss_that_is_not_finite_is_skipped_though_its_gradient_is(profile, latents, tmp_path, monkeypatch):
    """(x - y)^2 of 1e25 is infinite in float32, its derivative is not."""
    import slam.training.objective as objective

    monkeypatch.setitem(objective.DISTANCES, "l2", lambda x, y: ((1e25 * (x - y)) ** 2).mean(dim=(1, 2, 3)) * 1e-38)
    out = in_process(profile(**{"distill.distance": "l2", "train.steps": 3}), latents, tmp_path / "run")
    lines = read_journal(out / "journal.jsonl")
    assert [line["skipped"] for line in lines] == [1, 1, 1]
    assert all(line["loss"] is None for line in lines)


def test_many_steps_in_a_row_that_are_not_finite_stop_the_run_at_the_last_good_weights(
    profile, latents, tmp_path, monkeypatch
):
    out = in_process(profile(**{"train.steps": 3}), latents, tmp_path / "run")
    before = state(out, 3)
    poisoned(lambda call: call >= 1, monkeypatch)
    report = r"step 6: loss or gradient of the last 2 .*step-000003, whose files were verified.* train\.lr, now 0\.0003"
    with pytest.raises(SlamError, match=report):
        in_process(profile(**{"train.steps": 9, "train.skips": 2, "train.log_every": 1}), latents, out)
    assert checkpoint.newest_whole(out / "checkpoints").name == "step-000003"
    assert_equal(state(out, 3), before)
    assert [line["skipped"] for line in read_journal(out / "journal.jsonl")] == [0, 0, 0, 0, 1, 1]


def test_a_manifest_that_changed_on_disk_is_found(profile, latents, tmp_path):
    root = in_process(profile(), latents, tmp_path / "run") / "checkpoints"
    file = root / "step-000006/manifest.json"
    whole = file.read_text()
    for change in (('"step": 6', '"step": 7'), ('"bytes"', '"sizes"'), ("{", "["), ("e", "\xff")):
        file.write_text(whole.replace(*change, 1), encoding="latin-1")
        told = []
        assert checkpoint.newest_whole(root, told.append).name == "step-000003"
        assert "Passing over" in told[0]


def test_only_the_newest_checkpoints_keep_what_resuming_needs(profile, latents, tmp_path):
    out = in_process(
        profile(**{"train.steps": 6, "train.checkpoint_every": 1, "train.keep": 3}), latents, tmp_path / "run"
    )
    paths = checkpoint.checkpoints(out / "checkpoints")
    assert [path.name for path in paths] == ["step-000004", "step-000005", "step-000006"]
    assert [(path / "optimizer.safetensors").exists() for path in paths] == [False, True, True]
    assert all((path / "ema.safetensors").exists() for path in paths)


def test_latents_of_another_vae_are_refused(profile, latents, random_teacher, tmp_path):
    index = json.loads((latents / "index.json").read_text())
    index["vae"]["sha256"] = "0" * 64
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(SlamError, match="encoded with the vae of"):
        make_plan(profile(), tmp_path)


def test_training_learns(profile, latents, tmp_path):
    """The loss on the very draw of step 0 falls when that draw is trained on."""
    out = in_process(
        profile(**{"train.steps": 30, "train.lr": 1e-3, "train.checkpoint_every": 30}), latents, tmp_path / "run"
    )
    losses = [loss for _, loss, _ in metrics(out)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000030"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_low_precision_moves_the_loss_a_little(precision, profile, latents, tmp_path):
    short = {"train.steps": 1}
    high = in_process(profile(**short), latents, tmp_path / "high")
    low = in_process(profile(**short, **{"train.precision": precision}), latents, tmp_path / "low")
    assert metrics(high) != metrics(low)
    assert metrics(low)[0] == pytest.approx(metrics(high)[0], rel=0.05)
    weights = state(low, 1)
    assert all(value.dtype == torch.float32 for name in weights for value in weights[name].values() if value.ndim)


def test_activations_computed_again_give_the_same_bits(profile, latents, tmp_path):
    kept = in_process(profile(), latents, tmp_path / "kept")
    again = in_process(profile(**{"train.checkpointing": True}), latents, tmp_path / "again")
    assert_equal(state(kept, 6), state(again, 6))
    assert metrics(kept) == metrics(again)


def test_pictures_and_held_out_losses_change_no_number(profile, latents, tmp_path):
    plain = in_process(profile(), latents, tmp_path / "plain")
    watched = {"train.pictures_every": 4, "train.keep_best": 1, "train.emas": [0.9]}
    out = in_process(profile(**watched), latents, tmp_path / "watched")
    after = state(out, 6)
    after.pop("ema-0.9.safetensors")
    assert_equal(after, state(plain, 6))
    assert metrics(plain) == metrics(out)
    assert [path.name for path in (out / "pictures").iterdir()] == ["step-000004.png"]
    with Image.open(out / "pictures/step-000004.png") as picture:
        columns = [
            np.unique(np.asarray(picture.crop((x, 34, x + 128, 34 + 128)))).size for x in range(190, 190 + 4 * 134, 134)
        ]
        assert picture.size == (190 + 4 * 134, 34 + 8 * 134) and min(columns) > 10
    lines = {line["step"]: line.get("held_out_loss") for line in read_journal(out / "journal.jsonl")}
    assert {step for step, loss in lines.items() if loss} == {3, 6}
    saved = [checkpoint.read_manifest(path)["held_out_loss"] for path in checkpoint.checkpoints(out / "checkpoints")]
    assert saved == [lines[3], lines[6]] and saved[1] < saved[0]  # learnt, on 16 samples that it has not seen


def test_the_best_checkpoints_by_held_out_loss_are_kept_beside_the_newest(tmp_path):
    files = {name: {"x": torch.ones(1)} for name in ("ema.safetensors", "student.safetensors", "optimizer.safetensors")}
    for step, loss in enumerate((0.4, 0.1, 0.3, None, 0.2, 0.5, 0.6), 1):
        checkpoint.write(tmp_path, step, "", 1, files, loss)
        checkpoint.thin(tmp_path, 3, 2)
    kept = {
        checkpoint.read_manifest(path)["step"]: len(list(path.iterdir())) for path in checkpoint.checkpoints(tmp_path)
    }
    assert kept == {2: 2, 5: 2, 6: 4, 7: 4}  # the manifest, the average; and what resuming needs
    checkpoint.thin(tmp_path, 1)  # one alone could be damaged
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-000006", "step-000007"]
