"""Where the tokens of one forward pass stand, by what the model was called with: nothing is guessed from its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arguments:
    """What a model was called with, as far as it tells where the tokens of the pass stand.

    ``past`` tokens were read before, and ``cache`` holds them. ``offsets``: of layers that keep the last keys alone
    (sliding windows), how many keys stood before the first that the layer shows. The last ``ahead`` tokens are only
    proposed, as in assisted decoding. ``tokens`` [B, Lq] or their embeddings [B, Lq, hidden]. ``training``: they hold
    answers beside their prompts.
    """

    past: int = 0
    cache: Any = field(default=None, repr=False)
    offsets: Mapping[int, int] = field(default_factory=dict)
    ahead: int = 0
    tokens: Tensor | None = field(default=None, repr=False)
    training: bool = False


@dataclass
class Stream:
    """A batch of sequences over the passes that read it: what one cache holds together.

    ``end`` tokens were read (None: none yet), and ``prompt`` of them are the prompt. ``singly``: its tokens come one by
    one. ``decoding``: the last pass went on from a prompt that was read whole. ``signals``: what that pass told a gate
    that waits a step, [B] each.
    """

    end: int | None = None
    prompt: int = 0
    singly: bool = False
    decoding: bool = False
    start: Tensor | None = None
    signals: list[Tensor] = field(default_factory=list)

    def read(self, query_length: int, arguments: Arguments, bias_length: int, pad_bias: bool) -> None:
        """A pass reads ``query_length`` more tokens; raises ValueError where the bias can't be that of the prompt."""
        past = arguments.past
        settled = past + query_length - arguments.ahead
        if query_length == 1 and past and not self.singly and past + 1 < bias_length:
            raise ValueError(f"bias: wanted one value for each token of the prompt, {past}; got {bias_length}")
        if self.grows(query_length, arguments):
            self.decoding = True
        elif past >= bias_length and query_length - arguments.ahead == 1:
            self.prompt = self.prompt or bias_length
            self.decoding = True
        else:
            # The prompt, a part of it, or the next turn of a conversation whose earlier turns the bias is of.
            continues = self.end is not None and not self.decoding
            if settled > bias_length and not (pad_bias or arguments.training) and (past < bias_length or continues):
                raise ValueError(
                    f"bias: wanted one value for each token of the prompt, {settled}; got {bias_length} "
                    "(pad_bias=True gives the others 0)"
                )
            self.prompt, self.decoding = max(bias_length, settled), False
        if self.end is None:
            self.singly = query_length == 1 and past == 0
            self.start = None if arguments.tokens is None else arguments.tokens[:, :bias_length]
        self.end = past + query_length

    def grows(self, query_length: int, arguments: Arguments) -> bool:
        """Whether the pass has no cache and reads again what the last one did, and one token more."""
        if arguments.cache is not None or self.end is None or query_length != self.end + 1 or self.end < self.prompt:
            return False
        if self.start is None or arguments.tokens is None:
            return self.start is arguments.tokens
        again = arguments.tokens[:, : self.start.shape[1]]
        return again.shape == self.start.shape and torch.equal(again, self.start)

    def steps(self, query_length: int) -> range | list[int]:
        """How many tokens were decoded before each query of the pass that was read last; 0 within the prompt."""
        assert self.end is not None
        first = self.end - query_length - (self.prompt - 1)
        if first >= 0:
            return range(first, first + query_length)
        return [max(0, first + place) for place in range(query_length)]
