"""What one call of the operator is asked to do: shapes, dtype and options, without a tensor."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from msgspec import Meta

DType = Literal["float32", "bfloat16", "float16"]
BiasLayout = Literal["k", "bk", "bhk"]
StrengthLayout = Literal["scalar", "h", "bh", "bhq"]
InputKind = Literal["real", "random", "served"]

# Enforced where a problem is read, from a file or the command line; not where a call makes one.
Size = Annotated[int, Meta(ge=1, le=2**40)]

DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
DTYPE_SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Problem:
    """Shapes, dtype and options of one call; the words that suites, records and backends share.

    The tensors are query [batch, query_heads, query_length, head_dim], key [batch, kv_heads, key_length,
    head_dim] and value [batch, kv_heads, key_length, value_dim]. ``bias_layout`` and ``strength_layout`` name
    the axes that the caller gave (``"bhk"`` is [batch, query_heads, key_length]).

    ``strength``, ``inputs`` and ``seed`` say how benchmark tensors are drawn; no backend may look at them. ``served``
    inputs are ``real`` ones with key lengths as a public serving trace has them; others take half to all of the keys.
    """

    batch: Size
    query_heads: Size
    kv_heads: Size
    query_length: Size
    key_length: Size
    head_dim: Size
    value_dim: Size
    dtype: DType = "float32"
    device: str = "cpu"
    is_causal: bool = False
    has_key_lengths: bool = False
    bias_layout: BiasLayout = "bk"
    strength_layout: StrengthLayout = "scalar"
    eps: Annotated[float, Meta(ge=0, le=1e300)] = 0.0
    return_stats: bool = False
    requires_grad: bool = False
    strength: Annotated[float, Meta(ge=-1e300, le=1e300)] = 1.0
    inputs: InputKind = "real"
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0
    name: str = ""

    def check(self) -> None:
        """Raise ValueError for sizes that no call could have, each of which might be right alone."""
        if self.query_heads % self.kv_heads:
            raise ValueError(f"kv_heads: wanted a divisor of query_heads {self.query_heads}; got {self.kv_heads}")

    @property
    def group_size(self) -> int:
        """Query heads that share one key-value head."""
        return self.query_heads // self.kv_heads

    @property
    def masks_causally(self) -> bool:
        """Whether the causal mask hides anything; bottom-right aligned, one query sees every key."""
        return self.is_causal and self.query_length > 1

    @property
    def may_hide_whole_rows(self) -> bool:
        """Whether some query may have no visible key at all."""
        return self.has_key_lengths or (self.is_causal and self.query_length > self.key_length)

    @property
    def is_square(self) -> bool:
        """As many queries as keys: where top-left and bottom-right causal masks are the same."""
        return self.query_length == self.key_length

    @property
    def regime(self) -> Literal["prefill", "decode"]:
        """Decode is a handful of new queries over a cache; prefill is everything else."""
        return "decode" if self.query_length <= 16 < self.key_length else "prefill"

    @property
    def flops(self) -> int:
        """Multiply-adds of the two matrix products, counted as two each; a causal mask halves the square part.

        With gradients 3.5 times as many, for backward has five products where forward has two (Dao 2023,
        "FlashAttention-2", section 4.1).
        """
        pairs = self.query_length * self.key_length
        if self.is_causal:
            square = min(self.query_length, self.key_length)
            pairs -= square * (square - 1) // 2 + max(0, self.query_length - self.key_length) * self.key_length
        forward = 2 * self.batch * self.query_heads * pairs * (self.head_dim + self.value_dim)
        return forward * 7 // 2 if self.requires_grad else forward

    @property
    def input_bytes(self) -> int:
        """Bytes of query, key and value."""
        per_query = self.query_heads * self.query_length * self.head_dim
        per_key = self.kv_heads * self.key_length * (self.head_dim + self.value_dim)
        return self.batch * (per_query + per_key) * DTYPE_BYTES[self.dtype]

    @property
    def output_bytes(self) -> int:
        """Bytes of the output."""
        return self.batch * self.query_heads * self.query_length * self.value_dim * DTYPE_BYTES[self.dtype]

    @property
    def key(self) -> str:
        """An identity that is equal exactly when two problems are the same work; the name doesn't count."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self) if field.name != "name")

    @property
    def title(self) -> str:
        """One short line for tables: ``B1 H32/8 L1024 D128 bf16 causal``; ``grammar.parse`` reads it again."""
        heads = f"H{self.query_heads}" + (f"/{self.kv_heads}" if self.kv_heads != self.query_heads else "")
        lengths = f"L{self.key_length}"
        if self.query_length != self.key_length:
            lengths = f"Lq{self.query_length} Lk{self.key_length}"
        dims = f"D{self.head_dim}" + (f"/{self.value_dim}" if self.value_dim != self.head_dim else "")
        words = [f"B{self.batch}", heads, lengths, dims, DTYPE_SHORT[self.dtype]]
        if self.is_causal:
            words.append("causal")
        if self.has_key_lengths:
            words.append("padded")
        if self.eps:
            words.append(f"eps={_shortest(self.eps)}")
        if self.strength_layout != "scalar":
            words.append(f"λ[{self.strength_layout}]")
        if self.bias_layout != "bk":
            words.append(f"b[{self.bias_layout}]")
        if self.return_stats:
            words.append("stats")
        if self.requires_grad:
            words.append("grad")
        if self.strength != 1.0:
            words.append(f"λ={_shortest(self.strength)}")
        if self.inputs != "real":
            words.append(self.inputs)
        if self.seed:
            words.append(f"seed={self.seed}")
        return " ".join(words)

    def unsteered(self) -> Problem:
        """The same problem with λ = 0."""
        return replace(self, strength=0.0)


def _shortest(number: float) -> str:
    """The fewest digits that mean exactly ``number``."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
