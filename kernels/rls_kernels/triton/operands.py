"""What every kernel is handed: tensors with their strides, as tuples whose fields Triton takes by name."""

from __future__ import annotations

from typing import Any, NamedTuple

# Makes a named tuple without its own constructor, which is a Python function: six of those take 1.5 µs of a launch.
filled: Any = tuple.__new__


class RowStrides(NamedTuple):
    """Of a [B, H, L, D] tensor."""

    batch: Any
    head: Any
    row: Any
    column: Any


class Rows(NamedTuple):
    """A [B, H, L, D] tensor."""

    ptr: Any
    strides: RowStrides


class FigureStrides(NamedTuple):
    """Of a [B, H, L] tensor; 0 for an axis that broadcasts."""

    batch: Any
    head: Any
    figure: Any


class Figures(NamedTuple):
    """A [B, H, L] tensor, one number a query or key."""

    ptr: Any
    strides: FigureStrides


class Operands(NamedTuple):
    """The inputs of a call; ``lengths_ptr`` (int32 [B], the keys that are not padding) may be None.

    A kernel must not assign one anew: Triton makes variables of its constants then, and a stride of 1 is one.
    """

    query: Rows
    key: Rows
    value: Rows
    bias: Figures
    strength: Figures
    lengths_ptr: Any


class Starts(NamedTuple):
    """Where the operands of one query head start, and of the KV head that it reads."""

    query: Any
    key: Any
    value: Any
    bias: Any
    strength: Any


class Forward(NamedTuple):
    """What the forward kernels write.

    ``out`` [B, Hq, Lq, Dv] in query's dtype; float32: ``lse`` [B, Hq, Lq], the log-sum-exp of the scores (steered where
    eps is 0, else plain), ``norm`` [B, Hq, Lq], the log of the floored normaliser (empty where eps is 0), and ``stats``
    [5, B, Hq, Lq]: lse, lse_steered, entropy, entropy_steered, KL (empty unless asked for). All contiguous.
    """

    out: Any
    lse: Any
    norm: Any
    stats: Any


class Saved(NamedTuple):
    """What the gradients are made from: dout [B, Hq, Lq, Dv] and float32 row figures [B, Hq, Lq], all contiguous.

    ``delta`` is ``dout·out``; ``residual`` takes row sums from one backward kernel to the other where eps is not 0.
    """

    gradient: Any
    lse: Any
    norm: Any
    delta: Any
    residual: Any


# Arguments that no launch specialises on: each would double what is compiled, and buys nothing.
SIZES = (
    *("batches", "query_heads", "group_size", "query_length", "key_length", "heads"),
    *("split_length", "splits", "rows_total", "stride_row_b", "stride_row_h"),
)
