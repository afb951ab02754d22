"""The paper's tables and figures on the tiny profile: `study.yaml` says what is run, `dvc.yaml` runs what is stale."""
