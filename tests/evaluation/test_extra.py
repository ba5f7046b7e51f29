import pytest

from rls_bench.errors import MissingPackage
from rls_bench.evaluation.extra import require


def test_a_missing_package_is_named_with_the_line_that_installs_it():
    message = "conflict needs not_there_at_all, not installed here; run: pip install 'rls-bench[models]'"
    with pytest.raises(MissingPackage) as error:
        require("torch", "not_there_at_all", task="conflict")
    assert str(error.value) == message


def test_nothing_is_said_where_all_is_there():
    assert require("torch", task="conflict") is None
