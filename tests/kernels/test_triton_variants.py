"""The table that kernels are compiled from without a GPU names every argument of every kernel."""

import importlib

import pytest
from rls_kernels.triton import configurations, variants


@pytest.mark.parametrize("arch", configurations.ARCHITECTURES)
def test_each_argument_has_a_type_or_a_value(arch: int) -> None:
    for variant in variants.shipped(arch):
        module, _, attribute = variant.function.partition(":")
        kernel = getattr(importlib.import_module(module), attribute)
        assert {*variant.signature, *variant.constexprs} == set(kernel.arg_names), variant.kernel
        assert not set(variant.signature) & set(variant.constexprs)
        assert set(variant.aligned) <= set(variant.signature)
