"""The public head as a vector and a bias, and the file it comes in, which is a pickle and not to be trusted."""

import io
import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPImageProcessor, CLIPModel

from slam.data import shapes
from slam.errors import SlamError
from slam.models import weights_only
from slam.models.aesthetics import PUBLIC_SHA256, collapse, convert, load_head, load_predictor
from tests.models.laion import five_layers, save_head


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 3.0]))
def test_the_five_layers_are_one_vector_and_a_bias(seed, scale):
    network = five_layers(seed, scale).double()
    x = torch.randn(16, 768, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    weight, bias = collapse(network.state_dict())
    expected = network(x).squeeze(1)
    assert (x @ weight + bias - expected).abs().max() <= 1e-12 * max(1, expected.abs().max())


def test_float32_scores_are_those_of_the_network_itself(tmp_path):
    network = five_layers(3)
    x = nn.functional.normalize(torch.randn(64, 768, generator=torch.Generator().manual_seed(4)), dim=-1)
    weight, bias = load_head(save_head(network, tmp_path))
    assert weight.dtype == torch.float32
    assert (x @ weight + bias - network(x).squeeze(1)).abs().max() < 1e-4


@pytest.mark.slow
def test_convert_keeps_which_file_it_came_from(tmp_path):
    out = save_head(five_layers(5), tmp_path)
    told = convert(tmp_path / "head.pth", out)
    with safe_open(out, framework="pt") as file:
        assert file.metadata() == {"source": "head.pth", "source_sha256": told["source sha256"]}
    digest = subprocess.run(["sha256sum", tmp_path / "head.pth"], capture_output=True, text=True).stdout.split()[0]
    assert told["source sha256"] == digest
    assert told["is the public file"] is False and len(PUBLIC_SHA256) == 64


class Hostile:
    """A pickle that leaves a mark when it is loaded as pickles usually are."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "found"),
    [(None, r"GLOBAL posix\.system"), (2, r"GLOBAL posix\.system"), (4, "no whole file of torch.save")],
)
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, protocol, found):
    mark, file = tmp_path / "mark", tmp_path / "head.pth"
    state = {**five_layers(1).state_dict(), "layers.0.bias": Hostile(mark)}
    if protocol is None:
        torch.save(state, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(mark), protocol))
    with pytest.raises(SlamError, match=rf"head\.pth: expected the state dict of the LAION head, found .*{found}"):
        convert(file, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.pth"]
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists()  # so the test would have seen it run


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


STATE = five_layers(2).state_dict()
HUGE = torch.zeros(1).expand(2**40)  # 4 TB by its shape, 4 bytes in the file


@pytest.mark.parametrize(
    ("found", "content"),
    [
        ("no whole file of torch.save", saved(STATE)[:1000]),
        ("no whole file of torch.save", b"<!DOCTYPE html><html>not found</html>"),
        ("no whole file of torch.save", b""),
        ("a list, no dictionary of names", saved(list(STATE.values()))),
        ("'epoch', a int, among the tensors", saved({**STATE, "epoch": 3})),
        ("numbers, at most 16777216 are read", saved({**STATE, "layers.0.weight": HUGE})),
    ],
    ids=range(6),
)
def test_what_is_no_dictionary_of_tensors_is_told(found, content):
    with pytest.raises(ValueError, match=found):
        weights_only.read(content)


@pytest.mark.slow  # a child process for each, which imports torch
@pytest.mark.parametrize(
    ("found", "state"),
    [
        ("no layers.7.bias among 10 tensors", {key.replace("layers.7", "layers.9"): STATE[key] for key in STATE}),
        ("extra.weight beside them", {**STATE, "extra.weight": torch.ones(1)}),
        (
            r"layers.2.weight \[128, 1024\], found float32 \[128, 1023\]",
            {**STATE, "layers.2.weight": STATE["layers.2.weight"][:, 1:]},
        ),
        (r"layers.0.bias \[1024\], found int64 \[1024\]", {**STATE, "layers.0.bias": torch.ones(1024).long()}),
        ("layers.4.bias that are not finite", {**STATE, "layers.4.bias": torch.full((64,), torch.nan)}),
        ("no whole file of torch.save", None),
    ],
    ids=range(6),
)
def test_what_is_not_that_network_is_refused_by_name(tmp_path, found, state):
    file = tmp_path / "head.pth"
    file.write_bytes(saved(state) if state else saved(STATE)[:-1000])
    with pytest.raises(SlamError, match=found) as error:
        convert(file, tmp_path / "out.safetensors")
    assert str(error.value).startswith(f"{file}: expected the ") and "download sac+logos+ava1" in str(error.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_a_bomb_of_compression_ends_in_a_message(tmp_path):
    torch.save({"layers.0.weight": torch.zeros(1024, 768)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "head.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            with bomb.open(name, "w", force_zip64=True) as member:
                if name.endswith("data/0"):
                    for _ in range(3072):
                        member.write(bytes(2**20))  # 3 GiB, in 3 MiB of the file
                else:
                    member.write(plain.read(name))
    with pytest.raises(SlamError, match="expected the state dict of the LAION head, found"):
        convert(tmp_path / "head.pth", tmp_path / "out.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    "act", ["import socket; socket.socket()", "import subprocess; subprocess.run(['true'])", "os.system('true')"]
)
def test_the_process_that_reads_it_opens_no_socket_and_starts_no_program(act):
    code = f"import os, sys; sys.path.insert(0, {os.path.dirname(weights_only.__file__)!r}); import weights_only; "  # noqa: PTH120
    code += f"sys.addaudithook(weights_only.shut); {act}"
    child = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert "PermissionError" in child.stderr and "is not for a file of weights" in child.stderr


def test_clip_is_shown_what_transformers_own_processor_shows_it(aesthetics_clip, aesthetics_head):
    predictor = load_predictor(str(aesthetics_clip), aesthetics_head)
    theirs = CLIPImageProcessor.from_pretrained(aesthetics_clip)
    drawn = [Image.fromarray(image) for image in shapes.draw(4, 5).images]
    sizes = [(32, 32), (97, 64), (40, 131), (250, 250)]
    pictures = [image.resize(size, Image.Resampling.BILINEAR) for image, size in zip(drawn, sizes, strict=True)]
    found = predictor.pixels(pictures)
    assert found.shape == (4, 3, 32, 32) and found.dtype == torch.float32
    level = 1 / 255 / min(theirs.image_std)  # one of 256 levels: theirs, torchvision's filter, rounds otherwise
    assert (found - theirs(images=pictures, return_tensors="pt")["pixel_values"]).abs().max() < 1.01 * level
    one_by_one = torch.cat([predictor.pixels([picture]) for picture in pictures])
    assert torch.equal(found, one_by_one)


def test_a_score_is_the_head_of_the_unit_embedding(aesthetics_clip, aesthetics_head):
    predictor = load_predictor(str(aesthetics_clip), aesthetics_head)
    pictures = [Image.fromarray(image) for image in shapes.draw(6, 6).images]
    clip = CLIPModel.from_pretrained(aesthetics_clip)
    embedded = clip.get_image_features(pixel_values=predictor.pixels(pictures)).pooler_output
    expected = five_layers(7)(embedded / embedded.norm(dim=-1, keepdim=True)).squeeze(1)
    found = predictor.score(predictor.pixels(pictures))
    assert (found - expected).abs().max() < 1e-4
    assert found.unique().numel() == 6


def test_a_clip_that_is_none_or_does_not_fit_is_refused(random_clip, aesthetics_head, random_teacher, tmp_path):
    with pytest.raises(SlamError, match="gives embeddings of 8 numbers, .* takes 768"):
        load_predictor(str(random_clip), aesthetics_head)
    with pytest.raises(SlamError, match="score.clip = .*expected the folder or hub id of a transformers CLIP model"):
        load_predictor(str(random_teacher / "text_encoder"), aesthetics_head)
    with pytest.raises(SlamError, match=r"score.head = .*nothing.safetensors' does not exist: run `slam score --conv"):
        load_predictor(str(random_clip), tmp_path / "nothing.safetensors")
    save_file({"weight": torch.ones(2, 2), "bias": torch.ones(())}, tmp_path / "odd.safetensors")
    with pytest.raises(SlamError, match=r"expected a vector and a number, found shapes \[2, 2\] and \[\]"):
        load_predictor(str(random_clip), tmp_path / "odd.safetensors")
    (tmp_path / "pickle.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(SlamError, match="expected the safetensors file"):
        load_predictor(str(random_clip), tmp_path / "pickle.safetensors")
