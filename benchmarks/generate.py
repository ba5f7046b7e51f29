"""Tokens a second of SmolLM2-135M, steered over unsteered: 1 is free, the bar is 0.97."""

BACKENDS = ["auto", "sdpa-cpu"]


class SteeredDecode:
    """Steering in all 30 layers after a prompt of 200 tokens, a step of each in turns."""

    params = BACKENDS
    param_names = ("backend",)
    timeout = 600
    version = "1"

    def setup_cache(self):
        """Ratios by backend; empty where the weights are not installed."""
        from rls_bench.errors import MissingPackage
        from rls_bench.evaluation import smollm2
        from rls_bench.integrations.decode_cost import measure

        try:
            model, _ = smollm2.load(task="the decoding benchmark")
        except MissingPackage:
            return {}
        return {backend: measure(model, backend=backend).ratio for backend in BACKENDS}

    def setup(self, ratios, backend):
        """Skip without the weights."""
        if backend not in ratios:
            raise NotImplementedError("needs SmolLM2's weights")

    def track_tokens_per_second_ratio(self, ratios, backend):
        """Steered over unsteered tokens a second."""
        return ratios[backend]

    track_tokens_per_second_ratio.unit = "steered / unsteered"
