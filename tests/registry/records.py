"""Evaluation records made by hand."""


def record(
    model: str, sampler: str, steps: int, fid: float, clip_score: float = 30.0, faithfulness: float | None = 0.9
) -> dict:
    """Without intervals: the gate then goes by ratios."""
    return {
        "model": model,
        "sampler": sampler,
        "steps": steps,
        "guidance": 1.0 if model == "student" else 3.0,
        "fid": fid,
        "clip_score": clip_score,
        "faithfulness": faithfulness,
        "seconds_per_image": 0.002 * max(steps, 1),
        "n": 64,
        "seed": 2,
        "protocol": "test-v1",
        "protocol_hash": "0" * 64,
    }


def good_records(student_fid: float = 10.0) -> list[dict]:
    """A student with FID `student_fid` at each step count, where the best training-free sampler has 40."""
    return [
        record("teacher", "ddim", 50, 5.0),
        *(
            record("teacher", sampler, steps, fid)
            for sampler, fid in (("ddim", 60.0), ("dpm++", 40.0))
            for steps in (1, 2, 4)
        ),
        *(record("student", "lcm", steps, student_fid, 29.0, 0.8) for steps in (1, 2, 4)),
    ]
