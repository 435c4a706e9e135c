"""The figure of a record of `bench methods`: what is shown, how, and what its title says."""

import pytest

from labkit.bench import methods_plot
from labkit.records import store


def entry(weights, shares, module="lora", peak=1):
    return {"trainable": weights, "test": shares, "module": f"labkit/methods/{module}.py", "peak bytes": peak}


@pytest.fixture
def entries():
    return {
        "full": entry(1000, [0.7, 0.8, 0.9]),
        "lora-r1": entry(10, [0.6]),
        "dora-r16": entry(20, [0.5]),
        "partial-8": entry(200, [0.4, 0.6]),
        "partial-2": entry(100, [0.3, 0.1]),
        "norms": entry(1, [0.55]),
        "prompt-n4": entry(2, [0.1], "soft_prompts/modules"),
        "biases": entry(3, [0.0], peak=0),  # diverged
    }


def drawn(entries, monkeypatch):
    shown = []
    record = {"values": {"methods": entries, "base": {"weights": 1000}}}
    monkeypatch.setattr(store, "read", lambda name: record if name == "methods_tickets" else None)
    monkeypatch.setattr("labkit.plots.show", lambda fig, alt: shown.append((fig.axes[0], alt)))
    methods_plot.plot()
    return shown


def test_families_are_joined_kin_is_one_family_and_soft_prompts_and_what_diverged_are_left_out(
    entries, monkeypatch
):
    ((axes, alt),) = drawn(entries, monkeypatch)
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["LoRA and its kin", "partial", "norms", "full finetuning"]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["partial"].get_xdata()) == [100, 200] and lines["partial"].get_linestyle() == "--"
    assert list(lines["partial"].get_ydata()) == pytest.approx([20, 50])
    assert lines["LoRA and its kin"].get_linestyle() == "None"
    assert list(lines["full finetuning"].get_ydata()) == pytest.approx([80, 80])
    bars = [line for line in axes.get_lines() if list(line.get_xdata()) == [100, 100]]
    assert list(bars[0].get_ydata()) == pytest.approx([10, 30])  # the worst seed and the best
    assert "dora-r16 50.0%" in alt and "prompt" not in alt and "biases" not in alt
    assert [text.get_text() for text in axes.texts] == ["lora-r1", "partial-2", "norms"]


def test_the_title_is_found_in_the_data(entries, monkeypatch):
    ((axes, _),) = drawn(entries, monkeypatch)
    title = axes.get_title(loc="left")
    assert title == "norms (0.10%) 55%, lora-r1 (1.00%) 60%, full 80%\npartial-2 (10.00%) 20%"
    entries["norms"]["test"] = [0.9]
    assert methods_plot.finding(entries, 1000).startswith("norms (0.10%) 90%")


def test_without_full_finetuning_or_a_record_it_says_what_to_run(entries, monkeypatch, capsys):
    del entries["full"]
    assert drawn(entries, monkeypatch) == []
    assert "bench methods --task tickets" in capsys.readouterr().out
    methods_plot.plot("families")
    assert "bench methods --task families" in capsys.readouterr().out
