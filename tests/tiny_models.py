"""Tiny random models of many families, and the plain reference that steering is held to.

The reference is the same model without a cache, whose attention is written out here: scores, the model's own mask, λ b
by the token's place, softmax.
"""

from contextlib import contextmanager

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

WINDOW = 6
LENGTH, DECODED, STRENGTH = 10, 5, 2.0
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2]}
LAYER_TYPES = ["sliding_attention", "full_attention"]
VISION = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 14}
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "eos_token_id": 2}
OPT = {"hidden_size": 32, "ffn_dim": 48, "word_embed_proj_dim": 32}
FAMILIES = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mixtral": ("Mixtral", {"sliding_window": WINDOW, "num_local_experts": 2}),
    "phi3": ("Phi3", {"sliding_window": WINDOW}),
    "starcoder2": ("Starcoder2", {"sliding_window": WINDOW}),
    "gemma": ("Gemma", {}),
    "gemma2": ("Gemma2", {"sliding_window": WINDOW, "attn_logit_softcapping": None, "layer_types": LAYER_TYPES}),
    "gemma3": ("Gemma3", {"sliding_window": WINDOW, "layer_types": LAYER_TYPES}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": LAYER_TYPES}),
    "qwen3": ("Qwen3", {}),
    "qwen2_vl": ("Qwen2VL", {"rope_parameters": ROPE}),
    "qwen2_5_vl": ("Qwen2_5_VL", {"rope_parameters": ROPE}),
    "qwen3_vl": ("Qwen3VL", {"rope_parameters": ROPE}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "olmo2": ("Olmo2", {}),
    "granite": ("Granite", {}),
    "cohere2": ("Cohere2", {"sliding_window": WINDOW, "layer_types": LAYER_TYPES}),
    "glm4": ("Glm4", {}),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt2": ("GPT2", GPT2),
    "opt": ("OPT", OPT),
}
BERT = ("Bert", {})


def build(family: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    # transformers has no sdpa for it.
    attention = "eager" if family == "gemma2" else attention
    name, options = BERT if family == "bert" else FAMILIES[family]
    sizes = {**SIZES, **options}
    config_class = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    if name.endswith("VL"):
        images = {"image_token_id": 60, "video_token_id": 59, "vision_start_token_id": 58}
        config = config_class(text_config=sizes, vision_config=VISION, **images)
    else:
        config = config_class(**sizes)
    kind = {"GPT2": "LMHeadModel", "Bert": "Model"}.get(
        name, "ForConditionalGeneration" if name.endswith("VL") else "ForCausalLM"
    )
    model_class = getattr(transformers, name + kind)
    model = model_class._from_config(config, attn_implementation=attention).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        # Random weights attend almost evenly; sharper scores tell more.
        if parameter.dim() == 2 and "embed" not in name:
            parameter.mul_(6)
    return model


def tokens(batch: int = 1, length: int = LENGTH + DECODED) -> torch.Tensor:
    return torch.randint(3, 56, (batch, length), generator=torch.Generator().manual_seed(1))


def saliency(batch: int = 1, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(2))


def _attend_by_definition(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **options):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    added = _attend_by_definition.added
    scores = scores + torch.nn.functional.pad(added, (0, key.shape[2] - added.shape[1]))[:, None, None]
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


@contextmanager
def defined(model, bias: torch.Tensor, strength: float = STRENGTH):
    """Attention by its definition, with λ b [B, P] in it; it reads whole sequences, without a cache."""
    AttentionInterface.register("by_definition", _attend_by_definition)
    AttentionMaskInterface.register("by_definition", eager_mask)
    _attend_by_definition.added = strength * bias
    configs = [
        module.config for module in model.modules() if hasattr(module, "layer_idx") and hasattr(module, "config")
    ]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = "by_definition"
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def whole(model, ids: torch.Tensor, padding: torch.Tensor | None = None, **options):
    """Logits of a whole sequence, without a cache."""
    if padding is not None:
        options |= {"attention_mask": padding, "position_ids": (padding.cumsum(-1) - 1).clamp_min(0)}
    return model(ids, use_cache=False, **options).logits
