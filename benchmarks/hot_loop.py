"""What the Triton kernels compile to, tracked from commit to commit; any machine gives the same figures."""

ARCHITECTURES = ["sm_80", "sm_90", "sm_100", "sm_120"]
HEAD_DIMS = [64, 128]
STRENGTH_LAYOUTS = ["none", "scalar", "bhq"]


class HotLoop:
    """Prefill in bf16, not causal; layout "none" is the unsteered kernel."""

    params = (ARCHITECTURES, HEAD_DIMS, STRENGTH_LAYOUTS)
    param_names = ("arch", "head_dim", "strength_layout")
    timeout = 600
    version = "1"

    def setup_cache(self):
        """Instructions a score by (arch, head_dim, strength layout)."""
        from rls_bench.inspector.tracking import instructions_per_score

        return instructions_per_score(ARCHITECTURES, HEAD_DIMS)

    def track_instructions_per_score(self, figures, arch, head_dim, strength_layout):
        """Thread instructions of the hot loop over the scores that it handles."""
        return figures[arch, head_dim, strength_layout]

    track_instructions_per_score.unit = "instructions"
