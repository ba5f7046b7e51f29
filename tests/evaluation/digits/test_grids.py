import pytest
import torch

from rls_bench.evaluation.digits.grids import CELL_PIXELS, HUES, SIDE, Look, draw, draw_presence, patches

pytest.importorskip("sklearn")
CLEAN = Look(0.0, 1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_hue_asked_for_is_in_its_cell_and_in_no_other():
    grids = draw(40, "train", CLEAN, generator(), questions=3)
    cells = patches(grids.pixels).unflatten(-1, (3, CELL_PIXELS**2))
    # Ink of one hue has the same ratio of red, green and blue everywhere.
    colours = torch.nn.functional.normalize(cells.sum(-1), dim=-1)
    asked = colours.gather(1, grids.cells[..., None].expand(-1, -1, 3))
    alike = (torch.einsum("bqc,bkc->bqk", asked, colours) > 0.9999).sum(-1)
    assert (alike == 1).all()


def test_patches_count_cells_by_rows():
    pixels = torch.zeros(1, 3, SIDE * CELL_PIXELS, SIDE * CELL_PIXELS)
    pixels[:, :, CELL_PIXELS : 2 * CELL_PIXELS, :CELL_PIXELS] = 1
    assert patches(pixels).sum(-1).nonzero().tolist() == [[0, SIDE]]


def test_one_generator_gives_one_batch():
    first, again = (draw(5, "test", Look(0.3, 0.5), generator(3)) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.answers, again.answers)


def test_fading_keeps_the_ink_and_takes_the_hue():
    grey = draw(5, "test", Look(0.0, 0.0), generator()).pixels
    assert grey.sum() > 0
    torch.testing.assert_close(grey[:, 0], grey[:, 1])


def test_presence_names_the_hues_that_a_grid_holds():
    pixels, present = draw_presence(20, "train", CLEAN, generator())
    assert pixels.shape == (20, 3, 32, 32)
    assert present.shape == (20, HUES)
    assert ((present == 0) | (present == 1)).all()
    assert present.sum(1).min() >= 1
