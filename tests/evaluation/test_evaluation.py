import pandas as pd
from matplotlib.figure import Figure

from rls_bench.evaluation.evaluation import Bar, Evaluation, Run, replace_section


def test_a_section_is_added_where_there_is_none():
    assert replace_section("", "## A\n\nnew\n") == "## A\n\nnew\n"
    assert replace_section("# Title\n\nkept\n", "## A\n\nnew\n") == "# Title\n\nkept\n\n## A\n\nnew\n"


def test_a_section_is_replaced_in_its_place():
    text = "# Title\n\n## A\n\nold\n\n### deeper\n\nold\n\n## B\n\nkept\n"
    assert replace_section(text, "## A\n\nnew\n") == "# Title\n\n## A\n\nnew\n\n## B\n\nkept\n"
    assert replace_section("## B\n\nkept\n\n## A\n\nold\n", "## A\n\nnew\n") == "## B\n\nkept\n\n## A\n\nnew\n"


def test_a_heading_that_only_begins_alike_is_left_alone():
    assert replace_section("## AB\n\nkept\n", "## A\n\nnew\n") == "## AB\n\nkept\n\n## A\n\nnew\n"


def test_a_section_names_command_machine_and_bars():
    evaluation = Evaluation(
        "toy",
        "Toy",
        "What it is.",
        pd.DataFrame(),
        {"T": pd.DataFrame({"a": [1]})},
        [Bar("x", "≥ 1", "2", True)],
        Figure(),
    )
    section = evaluation.section(Run("rls-bench evaluate toy", 12.3, 9.8), "toy.png")
    for part in (
        "## Toy",
        "`rls-bench evaluate toy`",
        "12 s, 10 s of CPU time, on",
        "| x | ≥ 1 | 2 | yes |",
        "**T**",
        "![Toy](toy.png)",
    ):
        assert part in section
