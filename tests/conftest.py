"""Shared by all tests: GPU tests skip without a card, tools that CI demands are skipped elsewhere; models."""

import os
import subprocess
import sys

import pytest

from labkit.paths import ROOT


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


@pytest.fixture(scope="session")
def tokenizer():
    """The real tokenizer; tests must leave it as it was."""
    from labkit import load_tokenizer

    return load_tokenizer()


@pytest.fixture(scope="session")
def base():
    """The real base model in fp32 on the CPU; tests must leave it as it was."""
    import torch

    from labkit import load_model

    return load_model(on=torch.device("cpu"))


@pytest.fixture(scope="session")
def tickets():
    """The first 64 training rows of the tickets family, in trl's form."""
    from labkit import load

    return load("tickets")["train"].select(range(64)).to_list()


def make_tiny(seed=0, **changes):
    """A random Llama of two layers, 64 wide, with the real vocabulary; always the same for a seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {
        "vocab_size": 49152, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


@pytest.fixture(scope="session")
def tiny():
    """`make_tiny`, to be called as often as a test needs models."""
    return make_tiny


@pytest.fixture
def labkit_command():
    """Run `python -m labkit ...` (or a script) in the course folder; returns the finished process."""

    def run(*arguments, script=None, timeout=120, **variables):
        env = {name: value for name, value in os.environ.items() if not name.startswith("LABKIT_")}
        env.update(PYTHONPATH=str(ROOT), **{name: str(value) for name, value in variables.items()})
        command = [sys.executable, *(["-c", script] if script else ["-m", "labkit"]), *arguments]
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout)

    return run
