"""The protocols of evaluation by name. `evaluate.protocol` chooses one; what it fixes, no other key can contradict.

What moves FID without anyone touching the model (the reference set, the number of pictures, the resize) is fixed here,
so that a number can be compared with another of the same name. The name, the version and all values go into the hash of
each record. Raise the version of a protocol when a change of the code changes its numbers.

Every protocol takes, of each picture of a COCO-format captions file, the caption of the lowest annotation id, with its
blanks folded; pictures in the order of their ids; each picture cropped at its centre to the short side and brought by
Lanczos to the resolution of the features; clean-fid's mode "clean". From there on it is GigaGAN's and DMD2's code
(mingukkang/GigaGAN evaluation/evaluation.py, tianweiy/DMD2 main/coco_eval). Their 30,000 captions are a published draw:
to use exactly those, give a captions file that holds them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

from slam.errors import SlamError


@dataclass(frozen=True)
class Protocol:
    name: str
    version: int = 1
    prompts: int | None = None  # captions; None: evaluate.samples says how many
    each: int = 1  # pictures drawn for a caption
    reference: Literal["whole", "matched"] = "whole"  # every picture of the set, or those of the captions alone
    features: Literal["inception", "any"] = "any"  # network of FID, KID, precision and recall
    clip_prefix: str = ""  # before each caption, in the CLIP score only
    # Pictures that the networks see at once, the last ones filled up with copies: the last bits of a picture depend on
    # the size of the batch, so this size belongs to what is measured, and evaluate.batch and processes do not.
    block: int = 8

    def samples(self, asked: int | None) -> int:
        """Pictures a row. Raises `SlamError` when evaluate.samples = `asked` contradicts, or is needed and missing."""
        if self.prompts is None:
            if asked is None:
                raise SlamError(f"evaluate.protocol = {self.name} needs evaluate.samples: it fixes no number")
            return asked
        fixed = self.prompts * self.each
        if asked not in (None, fixed):
            raise SlamError(
                f"evaluate.samples = {asked}: protocol {self.name} fixes {fixed}; leave the key out, or use the"
                " protocol `own`"
            )
        return fixed

    def hash(self, facts: dict) -> str:
        """Of all that fixes a number besides the model and its sampler; `facts` holds what this object does not."""
        return digest([asdict(self), facts])


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # The reference is the whole of val2014: 40,504 pictures.
        Protocol("coco2014-30k/gigagan", prompts=30000, features="inception", clip_prefix="A photo depicts "),
        # The same against the 30,000 pictures of the captions: 0.75 to 1.0 FID away, so another protocol.
        Protocol(
            "coco2014-30k/matched",
            prompts=30000,
            reference="matched",
            features="inception",
            clip_prefix="A photo depicts ",
        ),
        # No public code fixes a resize for it: ours is that of the others.
        Protocol("coco2017-5k/first-caption", prompts=5000, features="inception"),
        # 30,000 pictures of 10,000 prompts. The prompts are those of your captions file: no published list is known.
        Protocol("laion-10kx3", prompts=10000, each=3, reference="matched", features="inception"),
        Protocol("tiny", block=32),  # the embedded profile, and its tests
        Protocol("own"),  # any captions file, any number of its pictures, any features
    )
}


def find(name: str) -> Protocol:
    """Raises `SlamError` naming the protocols that there are."""
    if name not in PROTOCOLS:
        raise SlamError(f"evaluate.protocol = {name!r} is not one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def digest(value: object) -> str:
    """A short hash of anything that JSON can hold."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
