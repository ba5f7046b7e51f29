"""A tokenizer that needs no files, for tests of what reads text."""

import re

import torch


class WordTokenizer:
    """A word with its leading space is a token, and so is anything else."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = True):
        words = re.findall(r" ?\w+|[^\w]", text)
        ids = [self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words]
        return type("Encoding", (), {"input_ids": ids})

    def decode(self, ids: torch.Tensor) -> str:
        words = list(self.vocabulary)
        return "".join(words[int(token)] for token in ids)
