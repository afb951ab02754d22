"""Training: `stage.py` starts it, `step.py` is the training step, `loop.py` repeats it, `state.py` is all that it
resumes from, `checkpoint.py` keeps that.

The loop writes to the disk only: checkpoints, an append-only journal, pictures. Whoever tracks runs reads those.
"""
