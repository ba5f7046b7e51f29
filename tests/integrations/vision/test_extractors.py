import pytest
import torch
import transformers
from torch import nn
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rls_bench.integrations.vision.gradient_input import GradientInput
from rls_bench.integrations.vision.qwen2_vl import Qwen2VLTower, by_token
from rls_bench.integrations.vision.recorder import _WATCHED, recorded_attention
from rls_bench.integrations.vision.rollout import AttentionRollout, rollout
from rls_bench.integrations.vision.spectral_residual import SpectralResidual
from rls_bench.steering import normalize_saliency, project_saliency


def spot(rows: int = 64, columns: int = 96, top: int = 40, left: int = 60) -> torch.Tensor:
    """A red square on a faintly textured ground."""
    image = 0.5 + 0.02 * torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(0))
    image[:, top : top + 10, left : left + 10] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    return image


def peak(saliency: torch.Tensor) -> tuple[float, float]:
    """Where the map is highest, as shares of its height and width."""
    row, column = divmod(int(saliency.argmax()), saliency.shape[1])
    return (row + 0.5) / saliency.shape[0], (column + 0.5) / saliency.shape[1]


def build_vit() -> transformers.ViTModel:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=48, patch_size=16
    )
    return transformers.ViTModel(config).eval()


def save_qwen2_vl(folder) -> transformers.Qwen2VLForConditionalGeneration:
    torch.manual_seed(0)
    text = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    model = transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(text_config=text, vision_config=vision)
    ).eval()
    model.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    return model


def test_spectral_residual_finds_what_stands_out():
    saliency = SpectralResidual().extract(spot())
    assert saliency.shape == (64, 96)
    row, column = peak(saliency)
    assert 38 / 64 <= row <= 52 / 64
    assert 58 / 96 <= column <= 72 / 96


def test_gradient_input_finds_the_pixels_that_the_answer_hangs_on():
    redness = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        redness.weight.copy_(torch.tensor([1.0, -1.0, -1.0])[None, :, None, None])
    network = nn.Sequential(redness, nn.ReLU(), nn.Flatten())
    saliency = GradientInput(network, score=lambda output: output.sum()).extract(spot())
    inside = torch.zeros(64, 96, dtype=torch.bool)
    inside[40:50, 60:70] = True
    assert (saliency[inside] > 0.5).all()
    assert (saliency[~inside] == 0).all()
    assert redness.weight.grad is None


def test_gradient_input_of_a_linear_score_is_its_terms():
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(2))

    class Linear(nn.Module):
        def forward(self, pixels):
            return (pixels * weight).sum((1, 2, 3))

    with torch.no_grad():
        saliency = GradientInput(Linear()).extract(image)
    torch.testing.assert_close(saliency, (image * weight).sum(0).abs())


def test_rollout_is_the_product_of_layers_with_their_residual():
    matrices = [torch.rand(5, 5, generator=torch.Generator().manual_seed(seed)).softmax(-1) for seed in range(3)]
    whole = torch.eye(5)
    for matrix in matrices:
        whole = (matrix + torch.eye(5)) / 2 @ whole
    torch.testing.assert_close(rollout(matrices, torch.eye(5)[0]), whole[0])


def test_vit_rollout_reads_the_towers_own_attention():
    tower, image = build_vit(), spot(48, 48, 4, 30)
    saliency = AttentionRollout(tower).extract(image)
    eager = transformers.ViTModel._from_config(tower.config, attn_implementation="eager").eval()
    eager.load_state_dict(tower.state_dict())
    with torch.no_grad():
        attention = eager(pixel_values=(image[None] - 0.5) / 0.5, output_attentions=True).attentions
    expected = rollout([matrix[0].mean(0) for matrix in attention], torch.eye(10)[0])[1:].reshape(3, 3)
    torch.testing.assert_close(saliency, expected)


def test_recording_leaves_the_tower_as_it_was():
    tower, pixels = build_vit(), torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = tower(pixel_values=pixels).last_hidden_state
        with recorded_attention(tower) as attention:
            recorded = tower(pixel_values=pixels).last_hidden_state
        after = tower(pixel_values=pixels).last_hidden_state
    assert len(attention) == 2
    torch.testing.assert_close(recorded, before)
    assert torch.equal(after, before)
    assert tower.config._attn_implementation == "sdpa"
    assert not _WATCHED


def test_qwen2_vls_tower_loads_alone_from_a_whole_checkpoint(tmp_path):
    model = save_qwen2_vl(tmp_path)
    extractor = Qwen2VLTower.from_pretrained(tmp_path, local_files_only=True)
    ours, theirs = extractor._tower.state_dict(), model.model.visual.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_qwen2_vls_saliency_has_one_value_a_token(tmp_path):
    save_qwen2_vl(tmp_path)
    saliency = Qwen2VLTower.from_pretrained(tmp_path, local_files_only=True).extract(spot(56, 112))
    assert saliency.shape == (2, 4)
    # The shares of all patches, four a token, add up to one.
    assert float(saliency.sum()) * 4 == pytest.approx(1, abs=1e-5)


def test_patches_become_tokens_where_the_processor_put_them():
    picture = torch.zeros(56, 112, 3, dtype=torch.uint8)
    picture[28:, 56:84] = 255
    prepared = Qwen2VLImageProcessorPil()(images=[picture.numpy()], return_tensors="pt")
    brightness = prepared["pixel_values"].mean(-1)
    tokens = by_token(brightness, *prepared["image_grid_thw"][0, 1:].tolist(), merge=2)
    assert (tokens > 0).nonzero().tolist() == [[1, 2]]


def test_qwen2_vls_saliency_lands_on_its_prompts_tokens(tmp_path):
    save_qwen2_vl(tmp_path)
    extractor = Qwen2VLTower.from_pretrained(tmp_path, local_files_only=True, max_pixels=56 * 56)
    saliency = extractor.extract(spot(56, 112))
    values, mask = project_saliency(saliency, (4, 8), (3, 11), length=20, merge=2)
    assert mask.sum() == 8
    assert normalize_saliency(values, mask=mask)[:3].tolist() == [0, 0, 0]


def test_a_checkpoint_without_the_tower_is_refused(tmp_path):
    model = save_qwen2_vl(tmp_path)
    del model.model.visual.blocks[1]
    model.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.vision_config.depth = 2
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks"):
        Qwen2VLTower.from_pretrained(tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    "image", [torch.zeros(64, 96), torch.zeros(1, 64, 96), torch.zeros(3, 8, 8, dtype=torch.uint8)]
)
def test_pictures_of_another_kind_are_refused(image):
    for extractor in (SpectralResidual(), GradientInput(nn.Flatten()), AttentionRollout(build_vit())):
        with pytest.raises(ValueError, match="image: wanted"):
            extractor.extract(image)


def test_a_tower_without_transformers_attention_is_refused():
    with pytest.raises(ValueError, match="wanted transformers attention"), recorded_attention(nn.Linear(2, 2)):
        pass
