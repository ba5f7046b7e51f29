import torch
import transformers

from rls_bench.integrations.decode_cost import measure


def test_steps_of_both_kinds_are_timed_in_turns():
    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    cost = measure(model, backend="sdpa-cpu", prompt_tokens=8, steps=6)
    assert (cost.backend, cost.prompt_tokens, cost.steps) == ("sdpa-cpu", 8, 6)
    assert min(cost.unsteered_tokens_per_second, cost.steered_tokens_per_second) > 0
    assert cost.cpu_ratio > 0
    assert cost.ratio_low <= cost.ratio <= cost.ratio_high
    assert model.config._attn_implementation == "sdpa"
