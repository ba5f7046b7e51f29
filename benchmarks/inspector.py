"""What the prefill kernel compiles to for each GPU generation, steered and not; needs no GPU."""


class PrefillHotLoop:
    """bf16, not causal. The figure has no noise, so that any growth is real."""

    params = (["sm_80", "sm_90", "sm_100", "sm_120"], [64, 128], ["none", "scalar", "bhq"])
    param_names = ("arch", "head_dim", "strength")
    timeout = 600
    version = "1"

    def setup_cache(self):
        """Instructions a score by (arch, head_dim, strength layout)."""
        from rls_bench.inspector.tracking import instructions_per_score

        return instructions_per_score()

    def track_instructions(self, instructions, arch, head_dim, strength):
        return instructions[arch, head_dim, strength]

    track_instructions.unit = "instructions a score"
