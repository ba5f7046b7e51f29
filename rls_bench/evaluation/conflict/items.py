"""Conversations in which two speakers contradict each other about something that nobody could know beforehand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Span = Literal["neutral", "highlighted", "wrong"]
# The sentences of a conversation as ``Tokens.sentence`` numbers them.
SENTENCES: tuple[Span, ...] = get_args(Span)

SPEAKERS = ("Anna", "Tom", "Sarah", "David", "Mary", "Jack", "Alice", "Mark", "Paul", "Maria")


@dataclass(frozen=True)
class Topic:
    """Something to disagree about: how both state it, how it is asked, and what may be said; each value one token."""

    statement: str
    question: str
    values: tuple[str, ...]


TOPICS = (
    Topic("The door is", "What colour is the door?", ("red", "blue", "green", "white", "black", "yellow")),
    Topic(
        "The meeting is on", "When is the meeting?", ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Sunday")
    ),
    Topic("The key is in the", "Where is the key?", ("kitchen", "garden", "office", "car", "bathroom", "drawer")),
    Topic(
        "The guest comes from",
        "Where does the guest come from?",
        ("France", "Italy", "Japan", "Canada", "Brazil", "India"),
    ),
    Topic("The pet is a", "What is the pet?", ("dog", "cat", "horse", "rabbit", "bird", "fish")),
    Topic("The present is a", "What is the present?", ("book", "watch", "ring", "camera", "bike", "hat")),
    Topic("The trip is in", "When is the trip?", ("January", "March", "June", "July", "October", "December")),
    Topic("The box is made of", "What is the box made of?", ("wood", "glass", "paper", "metal", "plastic", "stone")),
)
NEUTRAL = "They met in the afternoon and had some tea."


@dataclass(frozen=True)
class Item:
    """One conversation, the question at its end, and which of the two speakers is highlighted (0 or 1)."""

    topic: Topic
    speakers: tuple[str, str]
    values: tuple[str, str]
    highlighted: int

    def sentences(self) -> list[tuple[Span, str]]:
        """The conversation, sentence by sentence, and what each of them is."""
        spoken = zip(self.speakers, self.values, strict=True)
        said = [f'{speaker} said: "{self.topic.statement} {value}."\n' for speaker, value in spoken]
        roles: list[Span] = ["wrong", "wrong"]
        roles[self.highlighted] = "highlighted"
        return [("neutral", f"{NEUTRAL}\n"), *zip(roles, said, strict=True)]

    def tail(self) -> str:
        """What follows the conversation, up to the answer."""
        return f"Question: {self.topic.question}\nAnswer: {self.topic.statement}"


@dataclass(frozen=True)
class Tokens:
    """Items of equal length: ``conversation`` [B, L] and ``tail`` [B, T] ids, the ids of what the highlighted and the
    other speaker said [B, 2], and which of SENTENCES each conversation token is in, [B, L]."""

    conversation: Tensor
    tail: Tensor
    answers: Tensor
    sentence: Tensor


def generate(count: int, seed: int = 0) -> list[Item]:
    """``count`` items, no conversation twice; topics take turns, and either sentence is highlighted equally often."""
    draw = random.Random(seed)
    pools = []
    for topic in TOPICS:
        pool = [
            (speakers, values) for speakers in permutations(SPEAKERS, 2) for values in permutations(topic.values, 2)
        ]
        pools.append(draw.sample(pool, -(-count // len(TOPICS))))
    items = [Item(TOPICS[n % len(TOPICS)], *pools[n % len(TOPICS)][n // len(TOPICS)], 0) for n in range(count)]
    sides = [n % 2 for n in range(count)]
    draw.shuffle(sides)
    return [Item(item.topic, item.speakers, item.values, side) for item, side in zip(items, sides, strict=True)]


def tokenize(items: list[Item], tokenizer: Any) -> list[Tokens]:
    """Batches of equal length, so that none needs padding; items keep their order within a batch."""
    groups: dict[tuple[int, int], list[tuple[list[int], ...]]] = {}
    for item in items:
        pieces = [(SENTENCES.index(role), encode(text, tokenizer)) for role, text in item.sentences()]
        conversation = [token for _, piece in pieces for token in piece]
        sentence = [place for place, piece in pieces for _ in piece]
        order = (item.highlighted, 1 - item.highlighted)
        answers = [_single(f" {item.values[speaker]}", tokenizer) for speaker in order]
        tail = encode(item.tail(), tokenizer)
        groups.setdefault((len(conversation), len(tail)), []).append((conversation, tail, answers, sentence))
    return [Tokens(*(torch.tensor(column) for column in zip(*group, strict=True))) for group in groups.values()]


def encode(text: str, tokenizer: Any) -> list[int]:
    """Token ids of ``text`` alone."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _single(word: str, tokenizer: Any) -> int:
    ids = encode(word, tokenizer)
    if len(ids) != 1:
        raise ValueError(f"answer {word!r}: wanted one token, so that log-probabilities compare; got {len(ids)}")
    return ids[0]
