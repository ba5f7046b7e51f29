import pytest
import torch

from rls_bench.steering.projection import project_saliency


def test_each_token_gets_the_mean_of_its_patch():
    picture = torch.arange(16.0).reshape(4, 4)
    values, mask = project_saliency(picture, (2, 2), (3, 7), length=9)
    assert values.tolist() == [0, 0, 0, 2.5, 4.5, 10.5, 12.5, 0, 0]
    assert mask.tolist() == [False] * 3 + [True] * 4 + [False] * 2


def test_merge_joins_neighbouring_patches_in_row_major_order():
    # As Qwen2-VL: a grid of 4 × 6 patches, merged 2 × 2, is 2 × 3 tokens.
    picture = torch.zeros(56, 84)
    picture[28:, 28:56] = 1.0
    values, _ = project_saliency(picture, (4, 6), (0, 6), length=6, merge=2)
    assert values.tolist() == [0, 0, 0, 0, 1, 0]


def test_merge_can_take_the_greatest_patch():
    picture = torch.zeros(4, 4)
    picture[0, 0] = 8.0
    assert project_saliency(picture, (4, 4), (0, 4), length=4, merge=2).values.tolist() == [2, 0, 0, 0]
    assert project_saliency(picture, (4, 4), (0, 4), length=4, merge=2, reduce="max").values.tolist() == [8, 0, 0, 0]


def test_uneven_maps_keep_the_place_of_the_peak():
    picture = torch.zeros(37, 53)
    picture[30, 50] = 1.0
    values, _ = project_saliency(picture, (3, 5), (0, 15), length=15)
    assert values.argmax().item() == 14


def test_a_coarser_map_is_spread_over_its_patches():
    values, _ = project_saliency(torch.tensor([[1.0, 2.0]]), (2, 4), (0, 8), length=8)
    assert values.tolist() == [1, 1, 2, 2, 1, 1, 2, 2]


def test_several_images_in_one_prompt():
    maps = [torch.ones(8, 8), torch.full((6, 3), 2.0)]
    values, mask = project_saliency(maps, [(2, 2), (2, 1)], [(1, 5), (6, 8)], length=9)
    assert values.tolist() == [0, 1, 1, 1, 1, 0, 2, 2, 0]
    assert mask.sum() == 6


def test_frames_share_a_map_or_bring_their_own():
    picture = torch.tensor([[0.0, 1.0]])
    assert project_saliency(picture, (2, 1, 2), (0, 4), length=4).values.tolist() == [0, 1, 0, 1]
    frames = torch.stack([picture, picture.flip(-1)])
    assert project_saliency(frames, (2, 1, 2), (0, 4), length=4).values.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("grid", "span", "options", "words"),
    [
        ((2, 2), (0, 3), {}, "has 4 tokens"),
        ((2, 2), (7, 11), {}, "inside the prompt"),
        ((3, 2), (0, 6), {"merge": 2}, "divisor"),
        ((2,), (0, 2), {}, "grid: wanted"),
        ((2, 2), (0, 4), {"reduce": "median"}, "reduce: wanted"),
    ],
)
def test_bad_arguments_are_named(grid, span, options, words):
    with pytest.raises(ValueError, match=words):
        project_saliency(torch.ones(4, 4), grid, span, length=10, **options)


def test_images_may_not_overlap_nor_lack_a_grid():
    maps = [torch.ones(2, 2), torch.ones(2, 2)]
    with pytest.raises(ValueError, match="overlaps"):
        project_saliency(maps, [(2, 2), (2, 2)], [(0, 4), (3, 7)], length=10)
    with pytest.raises(ValueError, match="one of each"):
        project_saliency(maps, [(2, 2)], [(0, 4), (4, 8)], length=10)
    with pytest.raises(ValueError, match="map2d"):
        project_saliency(torch.ones(3, 2, 2), (2, 2, 2), (0, 8), length=10)


def test_a_map_that_is_no_tensor_is_named():
    with pytest.raises(TypeError, match="map2d: wanted a Tensor"):
        project_saliency(torch.ones(4, 4).numpy(), (2, 2), (0, 4), length=10)
