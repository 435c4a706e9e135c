"""pytest plugin for running lessons under nbval: `pytest -p labkit.nbval_plugin --nbval-lax ...`.

What libraries say on stderr is not compared: it depends on the processor. Cells tagged `gpu` are skipped
where there is no GPU. Under the profile `smoke`, cells tagged `smoke-skip-compare` are executed but not
compared.
"""

import os

import pytest

from labkit import paths

CELL_TIMEOUT = 1800  # seconds; nbval's own default is 2,000, and a slow shared machine needs many
FLAGS = (
    "-p", "labkit.nbval_plugin", "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT}",
)  # fmt: skip


def pytest_configure(config):
    """Let kernels, which start in the notebook's folder, import labkit."""
    known = os.environ.get("PYTHONPATH", "")
    if str(paths.ROOT) not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(paths.ROOT), known]))


def pytest_collection_modifyitems(items):
    """Mark cells by their tags; items that are no notebook cells are left alone."""
    cells = [item for item in items if type(item).__name__ == "IPyNbCell"]
    smoke = os.environ.get("LABKIT_PROFILE", "").strip().lower() == "smoke"
    gpu = None
    for notebook in {item.parent for item in cells}:
        notebook.skip_compare = (*notebook.skip_compare, "stderr")
    for item in cells:
        tags = item.cell.metadata.get("tags", [])
        if "gpu" in tags:
            gpu = _has_gpu() if gpu is None else gpu
            if not gpu:
                item.add_marker(pytest.mark.skip(reason="tagged gpu, and torch sees no CUDA card here"))
        if smoke and "smoke-skip-compare" in tags:
            item.options["check"] = False


def _has_gpu():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
