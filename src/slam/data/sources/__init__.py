"""The kinds of source. Each module offers `make` and `records`, and `open_pictures` where it has pictures.

`make(config, raw) -> (kind's index entries, counts)`, `records(shard, phash) -> table of RECORD`.
"""

from slam.data.sources import img2dataset, shapes

SOURCES = {"shapes": shapes, "img2dataset": img2dataset}
