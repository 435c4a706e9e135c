"""Shared by all tests: GPU tests skip without a card; tools that CI demands are skipped elsewhere."""

import os

import pytest


def pytest_collection_modifyitems(items):
    """Skip tests marked `gpu` where torch sees no CUDA card."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch  # only now: collecting other tests need not wait for it

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="wants a GPU, and torch sees no CUDA card here"))


@pytest.fixture
def demand():
    """`demand(condition, what)` skips where `condition` is false; with LABKIT_REQUIRE_TOOLS=1 it fails."""

    def demanded(condition, what):
        if not condition and os.environ.get("LABKIT_REQUIRE_TOOLS") == "1":
            pytest.fail(f"{what} is required here (LABKIT_REQUIRE_TOOLS=1)")
        if not condition:
            pytest.skip(f"wants {what}")

    return demanded
