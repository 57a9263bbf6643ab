"""What an import needs and says: no heavy modules, and a cure where it cannot succeed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import csoftmax
from support import children

PACKAGE = Path(csoftmax.__file__).resolve().parent
ROOT = Path(__file__).resolve().parent.parent


def modules_after(statement):
    return set(children.run_well("-c", f"import sys; {statement}; print(*sys.modules)").split())


def test_the_import_loads_no_module_that_numpy_does_not_but_its_own():
    added = modules_after("import numpy, csoftmax") - modules_after("import numpy")
    assert {name for name in added if name.partition(".")[0] != "csoftmax"} <= {
        "_cython_3_3_0",
        "cython_runtime",
        *(name for name in added if re.fullmatch(r"_cython_[0-9a-z_]+", name)),
    }
    assert "csoftmax._batch" in added


def test_the_import_needs_none_of_the_heavy_modules_even_where_numpy_stops_importing_them():
    output = children.run_well(children.program("without_heavy_modules"))
    assert output == f"[0.5 0.5] {csoftmax.__version__}\n"


def test_the_version_is_that_of_the_installed_package():
    metadata = pytest.importorskip("importlib.metadata")
    try:
        installed = metadata.version("csoftmax")
    except metadata.PackageNotFoundError:
        pytest.skip("built in place, not installed")
    assert csoftmax.__version__ == installed
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", installed)


def python_in(folder, *arguments):
    """Run Python in a folder, from which it imports first."""
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def source_folder(tmp_path):
    """A checkout in which nothing was compiled."""
    folder = tmp_path / "a checkout"
    nothing_compiled = shutil.ignore_patterns("*.so", "*.pyd", "*.c", "__pycache__")
    shutil.copytree(PACKAGE, folder / "csoftmax", ignore=nothing_compiled)
    (folder / "setup.py").touch()
    return folder


@pytest.mark.parametrize("statement", ["import csoftmax", "from csoftmax.special import softmax"])
def test_an_import_in_the_source_folder_says_so_and_the_cure_works(source_folder, statement):
    done = python_in(source_folder, "-c", statement)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        f"ImportError: csoftmax is imported from its source folder, {source_folder}, which has no compiled modules"
        " for this Python: start Python in another folder to import what is installed, or compile them here by"
        " `python -m pip install --editable .`"
    )
    assert "circular" not in done.stderr
    assert "During handling" not in done.stderr
    elsewhere = source_folder.parent  # the other cure is followed in test_builds
    done = python_in(elsewhere, "-c", f"{statement}; import csoftmax; print(csoftmax.__file__)")
    assert done.stdout.strip() == csoftmax.__file__, done.stderr


def test_a_source_folder_that_was_built_in_place_imports(source_folder):
    for module in [*PACKAGE.glob("*.so"), *PACKAGE.glob("kernels/*.so")]:
        shutil.copy(module, source_folder / "csoftmax" / module.relative_to(PACKAGE))
    if not list(source_folder.glob("csoftmax/*.so")):
        pytest.skip("modules have another ending here")
    done = python_in(source_folder, "-c", "import csoftmax; print(csoftmax.__file__)")
    assert done.stdout.strip() == str(source_folder / "csoftmax" / "__init__.py"), done.stderr


def test_other_import_errors_in_the_source_folder_are_their_own(source_folder):
    for module in [*PACKAGE.glob("*.so"), *PACKAGE.glob("kernels/*.so")]:
        shutil.copy(module, source_folder / "csoftmax" / module.relative_to(PACKAGE))
    (compiled, *_) = [*source_folder.glob("csoftmax/_batch.*.so"), None]
    if compiled is None:
        pytest.skip("modules have another ending here")
    compiled.write_bytes(b"no library")
    done = python_in(source_folder, "-c", "import csoftmax")
    assert "source folder" not in done.stderr
    assert compiled.name in done.stderr


def test_without_a_setup_py_beside_it_a_package_without_modules_is_just_broken(source_folder):
    (source_folder / "setup.py").unlink()
    done = python_in(source_folder, "-c", "import csoftmax")
    assert done.returncode != 0
    assert "source folder" not in done.stderr
