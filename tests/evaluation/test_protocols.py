from dataclasses import replace
from pathlib import Path

import pytest

from slam.config import Evaluate, load
from slam.errors import SlamError
from slam.evaluation.evaluate import evaluate_stage
from slam.files import read_json
from slam.protocols import PROTOCOLS, find

SMALL = {"guidance": 1.0, "features": "f", "clip": "c", "batch": 8}


def test_the_protocols_of_the_field_fix_what_moves_fid():
    whole, matched = find("coco2014-30k/gigagan"), find("coco2014-30k/matched")
    assert [whole.reference, matched.reference] == ["whole", "matched"]
    assert {name: p.samples(None) for name, p in PROTOCOLS.items() if p.prompts} == {
        "coco2014-30k/gigagan": 30000,
        "coco2014-30k/matched": 30000,
        "coco2017-5k/first-caption": 5000,
        "laion-10kx3": 30000,
    }
    assert len({protocol.hash({}) for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_a_protocol_cannot_be_contradicted():
    with pytest.raises(ValueError, match="samples = 100: protocol coco2017-5k/first-caption fixes 5000"):
        Evaluate(protocol="coco2017-5k/first-caption", samples=100, **SMALL)
    with pytest.raises(ValueError, match="protocol = tiny needs evaluate.samples"):
        Evaluate(protocol="tiny", **SMALL)
    with pytest.raises(ValueError, match="'coco' is not one of coco2014-30k/gigagan"):
        Evaluate(protocol="coco", **SMALL)


def test_a_mistake_in_the_protocol_is_told_when_the_profile_is_read(tmp_path):
    params = Path("params.yaml").read_text().replace("coco2014-30k/gigagan", "coco2014-30k/gigagna")
    (tmp_path / "params.yaml").write_text(params)
    with pytest.raises(SlamError, match=r"profiles.sd15: evaluate.protocol = .*gigagna.* is not one of"):
        load(tmp_path / "params.yaml", "sd15")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, protocol in PROTOCOLS.items() if protocol.prompts])
def test_each_protocol_of_the_field_runs_cut_down_to_four_prompts(
    name, config, random_teacher, random_student, evaluation_set, tmp_path, monkeypatch
):
    protocol = replace(PROTOCOLS[name], prompts=4, features="any")
    monkeypatch.setitem(PROTOCOLS, name, protocol)
    few = {"protocol": name, "samples": None, "steps": (1,), "samplers": (), "teacher_steps": 1}
    inputs = str(random_teacher), random_student, evaluation_set, tmp_path
    evaluate_stage(config.model_copy(update=few), *inputs)
    records = read_json(tmp_path / "metrics.json", "")
    assert {record["n"] for record in records} == {4 * protocol.each}
    references = {record["inputs"]["reference_pictures"] for record in records}
    assert references == {24 if protocol.reference == "whole" else 4}
    captions = [entry["caption"] for entry in records[-1]["worst"]]
    assert len(set(captions)) == 4
    assert len({record["pictures_sha256"] for record in records}) == len(records)
