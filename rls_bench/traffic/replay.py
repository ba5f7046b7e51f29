"""Requests by their numbers of tokens, as public serving traces have them, become calls: continuous batching, modelled.

The model: a server that is never idle takes requests in the order of the file, runs at most ``max_batch`` sequences at
a time, and reads at most ``chunk`` tokens a step. A step decodes one token of each sequence whose prompt was read, all
in one call whose keys are padded to the longest; what is left of the step's tokens reads prompts, a call for each piece
of one (Orca, OSDI 2022; Sarathi-Serve, OSDI 2024). A prompt's last piece gives the first token of its answer. Each
layer asks every call. Arrival times, shared prefixes, preemption and speculation are not modelled.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rls_bench.errors import ProblemError
from rls_bench.problems.models import Model, count, problem_of
from rls_bench.problems.problem import Problem

# What columns are called, here and in traces that were published (Azure's, BurstGPT's), in small letters and digits.
_COLUMNS = {
    "prompt": ("prompttokens", "inputtokens", "contexttokens", "requesttokens", "prompt", "input", "texttokens"),
    "image": ("imagetokens", "numimagetokens", "image"),
    "output": ("outputtokens", "generatedtokens", "responsetokens", "completiontokens", "output"),
}


class Request(NamedTuple):
    """Tokens of one request: text and images of its prompt, which is read whole, and the answer, 1 or more."""

    prompt: int
    image: int
    output: int


class Chunk(NamedTuple):
    """A piece of a prompt: so many queries, over all keys of it so far."""

    queries: int
    keys: int


class Step(NamedTuple):
    """One step of the server: sequences that decode, keys of the longest, and pieces of prompts."""

    decoding: int
    longest: int
    chunks: tuple[Chunk, ...]


def read(path: Path) -> list[Request]:
    """The requests in a CSV file with a header; other columns than those of tokens are passed over.

    Raises ProblemError naming the file and the row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ProblemError(f"{path}: wanted a CSV file of requests; it cannot be read: {error}") from error
    header = ["".join(filter(str.isalnum, name.casefold())) for name in rows[0]] if rows else []
    places = {what: _place(header, names) for what, names in _COLUMNS.items()}
    if places["prompt"] is None or places["output"] is None:
        raise ProblemError(
            f"{path}: wanted a header with prompt_tokens, image_tokens (if any) and output_tokens; got {rows[:1]}"
        )
    found = [_request(path, number, row, places) for number, row in enumerate(rows[1:], 2) if row]
    # A request that failed has no answer, and some traces keep it.
    served = [request for request in found if request.output and request.prompt + request.image]
    if not served:
        raise ProblemError(f"{path}: wanted at least one request; got none")
    return served


def steps(requests: Iterable[Request], *, max_batch: int, chunk: int) -> Iterator[Step]:
    """The steps that serve ``requests``. Raises ValueError unless a step has a token for each sequence."""
    if max_batch < 1 or chunk < max_batch:
        raise ValueError(f"chunk: wanted a token or more for each of {max_batch} sequences; got {chunk}")
    waiting = deque(requests)
    running: list[_Sequence] = []
    while waiting or running:
        decoding = [one for one in running if not one.unread]
        tokens = chunk - len(decoding)
        chunks: list[Chunk] = []
        for one in [one for one in running if one.unread]:
            if tokens:
                tokens -= one.take(tokens, chunks)
        while waiting and tokens and len(running) < max_batch:
            one = _Sequence.of(waiting.popleft())
            running.append(one)
            tokens -= one.take(tokens, chunks)
        for one in decoding:
            one.length += 1
            one.left -= 1
        yield Step(len(decoding), max((one.length for one in decoding), default=0), tuple(chunks))
        running = [one for one in running if one.unread or one.left]


def calls(
    model: Model, requests: Sequence[Request], *, max_batch: int, chunk: int, device: str = "cpu"
) -> tuple[dict[Problem, float], list[str]]:
    """How often each problem is asked while ``requests`` are served, and a line for all that is left out."""
    found: dict[Problem, float] = {}
    hidden: dict[int, int] = {}
    for step in steps(requests, max_batch=max_batch, chunk=chunk):
        for layers in model.layers:
            seen = min(step.longest, layers.window) if layers.window else step.longest
            if step.decoding:
                count(found, problem_of(model, step.decoding, 1, seen, device), layers.number)
            for piece in step.chunks:
                if layers.window and piece.keys > layers.window:
                    hidden[layers.window] = hidden.get(layers.window, 0) + layers.number
                else:
                    count(found, problem_of(model, 1, piece.queries, piece.keys, device), layers.number)
    left_out = [f"{model.name}: left out {line}" for line in model.left_out]
    left_out += [
        f"{model.name}: left out {number:,} calls of prefill in layers with a window of {window} keys"
        for window, number in hidden.items()
    ]
    return found, left_out


@dataclass
class _Sequence:
    unread: int
    # Tokens of the answer that are to come.
    left: int
    length: int = field(default=0)

    @classmethod
    def of(cls, request: Request) -> _Sequence:
        return cls(request.prompt + request.image, request.output)

    def take(self, tokens: int, chunks: list[Chunk]) -> int:
        """Read ``tokens`` of the prompt at most, and say how many."""
        taken = min(tokens, self.unread)
        self.unread -= taken
        self.length += taken
        chunks.append(Chunk(taken, self.length))
        self.left -= not self.unread
        return taken


def _place(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _request(path: Path, number: int, row: list[str], places: dict[str, int | None]) -> Request:
    tokens = {}
    for what, place in places.items():
        text = "0" if place is None else row[place].strip() if place < len(row) else ""
        # Tables that passed through pandas hold 17.0 for 17.
        if not text.removesuffix(".0").isdecimal():
            raise ProblemError(f"{path}, row {number}: {what} tokens: wanted a number of 0 or more; got {text!r}")
        tokens[what] = int(text.removesuffix(".0"))
    return Request(**tokens)
