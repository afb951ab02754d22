"""The tiny teacher's tokenizer: CLIP's byte-pair encoding, learnt from the captions of the tiny world."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

LENGTH = 16  # tokens of a padded caption; the longest caption of the world has 13, start and end included
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A `CLIPTokenizer` to which every word of `captions` is one token; other words fall apart into bytes."""
    clip = CLIPTokenizer().backend_tokenizer  # for CLIP's own normaliser and word splitter
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer, bpe.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        captions,
        trainers.BpeTrainer(initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False),
    )
    learnt = json.loads(bpe.to_str())["model"]
    words = [*learnt["vocab"], *(f"{byte}</w>" for byte in alphabet), START, END]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
