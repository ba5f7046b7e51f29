from rls_bench.inspector.gpus import gpus
from rls_bench.inspector.occupancy import LIMITS


def test_every_gpu_has_an_architecture_that_is_inspected():
    assert {gpu.arch for gpu in gpus().values()} == set(LIMITS)


def test_a_gpu_has_its_architectures_rates():
    a100 = gpus()["a100-sxm-80gb"]
    assert (a100.fp32_fma, a100.mufu, a100.tensor_bf16) == (64, 16, 2048)
    # 312 TFLOP/s, as its datasheet has it.
    assert round(a100.tensor_bf16 * a100.sms * a100.clock_ghz / 1e3) == 312


def test_a_gpus_own_figure_comes_first():
    assert gpus()["l4"].tensor_bf16 == 1024
    assert gpus()["rtx-4090"].tensor_bf16 == 512


def test_unsure_figures_stay_marked():
    assert gpus()["a10"].mark("l2_bytes") == "?"
    assert gpus()["b200"].mark("mufu") == "?"
    assert gpus()["h100-sxm"].unsure == frozenset()
    # The architecture's doubt about its own figure doesn't stick to a GPU with a figure of its own that is sure.
    assert gpus()["rtx-5090"].mark("tensor_bf16") == ""


def test_hopper_reaches_less_through_mma_sync():
    assert gpus()["h100-sxm"].tensor_bf16_mma_sync == 2731
    assert gpus()["a10"].tensor_bf16_mma_sync == gpus()["a10"].tensor_bf16
