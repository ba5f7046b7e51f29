"""Saliency of pictures from vision models: each extractor is a module, and all stand behind ``SaliencyExtractor``.

What an extractor returns is not yet on a scale nor in a prompt: ``rls_bench.steering.project_saliency`` brings it to
the tokens of the picture's patches, ``normalize_saliency`` to a scale.
"""
