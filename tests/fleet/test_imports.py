"""Who doesn't run a fleet never imports Ray."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_line_and_the_runner_import_no_ray() -> None:
    words = "import sys, rls_bench.cli.app, rls_bench.cli.run, rls_bench.runner.session, rls_bench.fleet.cluster\n"
    words += "assert 'rls_bench.fleet.cluster' in sys.modules\nassert 'ray' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", words], check=True, timeout=120)


def test_without_the_extra_the_package_is_named() -> None:
    words = "import sys\nsys.modules['ray'] = None\nfrom rls_bench.fleet import cluster\n"
    words += "from rls_bench.errors import MissingPackage\n"
    words += "try:\n    cluster.connected().__enter__()\nexcept MissingPackage as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True, timeout=120)
    assert "pip install 'rls-bench[fleet]'" in done.stdout
