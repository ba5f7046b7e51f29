"""FlexAttention with λ and b as captured tensors, so that a new strength or saliency compiles nothing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def steering_score_mod(bias: Tensor, strength: Tensor) -> ScoreMod:
    """``score + λ b``; ``bias`` float32 [B or 1, H or 1, Lk], ``strength`` float32 [B or 1, H or 1, Lq or 1]."""
    many_bias_batches, many_bias_heads = bias.shape[0] > 1, bias.shape[1] > 1
    many_batches, many_heads, many_queries = (size > 1 for size in strength.shape)

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        steer = bias[b if many_bias_batches else 0, h if many_bias_heads else 0, k]
        knob = strength[b if many_batches else 0, h if many_heads else 0, q if many_queries else 0]
        return score + knob * steer

    return score_mod


def visible_blocks(
    batch: int, query_length: int, key_length: int, *, is_causal: bool, key_lengths: Tensor | None, device: str
) -> BlockMask | None:
    """The block mask of bottom-right causal and padding, or None where every key is visible."""
    if not is_causal and key_lengths is None:
        return None
    offset = key_length - query_length

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        causal = k <= q + offset
        if key_lengths is None:
            return causal
        inside = k < key_lengths[b]
        return causal & inside if is_causal else inside

    batches = None if key_lengths is None else batch
    return create_block_mask(mask_mod, batches, None, query_length, key_length, device=device)
