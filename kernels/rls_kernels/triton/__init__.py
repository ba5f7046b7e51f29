"""Triton kernels of steered attention; importing this package imports no Triton."""
