"""The kinds of source.

Each module offers `make(config, raw)`, which writes raw/index.json and returns the counts, `records(shard, phash)` and,
if it has pictures, `open_pictures(shard)`; if it has none, REMEDY says how to get them.
"""

from slam.data.sources import coco, folder, img2dataset, metadata, shapes

SOURCES = {"shapes": shapes, "img2dataset": img2dataset, "metadata": metadata, "folder": folder, "coco": coco}
