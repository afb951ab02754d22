"""Training: `stage.py` starts it, `step.py` is the training step, `loop.py` repeats it, `checkpoint.py` keeps it.

The loop writes to the disk only: checkpoints and an append-only journal. Whoever tracks runs reads those.
"""
