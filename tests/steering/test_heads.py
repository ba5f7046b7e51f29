import pytest
import torch

from rls_bench.steering.heads import GroundingHeads, find_grounding_heads, head_mask, layer_mask


def test_masks_name_heads_and_whole_layers():
    assert head_mask(2, 3, [(0, 2), (1, 0)]).tolist() == [[False, False, True], [True, False, False]]
    assert layer_mask(3, 2, [1]).tolist() == [[False, False], [True, True], [False, False]]
    with pytest.raises(ValueError, match="inside 2 layers × 3 heads"):
        head_mask(2, 3, [(2, 0)])


def planted_search(**options) -> GroundingHeads:
    """Head (1, 0) looks at the span most and gains nothing; (0, 2) looks a little less and gains most."""
    mass = torch.tensor([[0.1, 0.2, 0.7], [0.9, 0.3, 0.05]])
    worth = torch.tensor([[0.0, 0.0, 12.0], [0.0, 3.0, 50.0]])
    return find_grounding_heads(mass, lambda mask: 60 + float(worth[mask].sum()), candidates=3, **options)


def test_heads_that_look_are_ranked_by_what_steering_them_gains():
    found = planted_search()
    assert [(entry.layer, entry.head) for entry in found.ranking] == [(0, 2), (1, 1), (1, 0), (0, 1), (0, 0), (1, 2)]
    assert [entry.gain for entry in found.ranking] == [12, 3, 0, None, None, None]
    assert found.base_score == 60
    assert found.mask(2).nonzero().tolist() == [[0, 2], [1, 1]]


def test_a_ranking_survives_its_file(tmp_path):
    found = planted_search(provenance={"model": "tiny", "strength": 2.0, "split": "calibration"})
    found.save(tmp_path / "heads.json")
    loaded = GroundingHeads.load(str(tmp_path / "heads.json"))
    assert loaded == found
    assert loaded.provenance["model"] == "tiny"
    assert {"created", "torch", "rls_bench"} <= loaded.provenance.keys()


def test_another_file_is_refused_by_name(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"layers": 2}')
    with pytest.raises(ValueError, match=r"other\.json: wanted the grounding heads"):
        GroundingHeads.load(path)


def test_span_mass_must_name_layers_and_heads():
    with pytest.raises(ValueError, match="span_mass"):
        find_grounding_heads(torch.zeros(4), lambda mask: 0.0)
