"""`slam bench`: what a training step costs here, where its time goes, and what each switch of `train.speed` gives."""
