"""The memory calculator: which card fits, what would make it fit, with widgets and without."""

import pytest

from labkit import plots, widgets
from labkit.errors import LabkitError
from labkit.memory import Setting, predict
from labkit.memory.cards import CARDS, first_change, fits, room


def test_cards_offer_a_little_less_than_their_name_says():
    for name, offered in CARDS.items():
        assert 0.9 * int(name.split()[0]) * 2**30 < offered < int(name.split()[0]) * 2**30
    with pytest.raises(LabkitError, match="12 GB.*8 GB"):
        room("12 GB")


def test_what_fits_small_cards_fits_large_ones():
    setting = Setting("7b", method="lora", precision="bf16")
    verdicts = [fits(setting, card) for card in CARDS]
    assert verdicts == sorted(verdicts) and True in verdicts and False in verdicts


def test_paged_states_do_not_count_against_a_card():
    setting = Setting("1b", optimizer="paged", checkpointing=True)
    report = predict(setting)
    paged = report.categories["optimizer paged"]
    assert report.process - paged <= room("16 GB") < report.process and fits(setting, "16 GB")
    assert not fits(setting.but(optimizer="fused"), "16 GB")
    assert any("paged" in line and "not count" in line for line in widgets.table(setting))


def test_the_first_change_is_one_that_is_enough_and_needed():
    setting = Setting("7b", method="full", precision="bf16")
    assert first_change(setting, "80 GB") == ([], setting)
    names, changed = first_change(setting, "24 GB")
    assert names == ["LoRA"] and changed.method == "lora" and fits(changed, "24 GB")
    names, changed = first_change(setting, "8 GB")
    assert fits(changed, "8 GB") and changed.method == "qlora" and "LoRA" not in names
    assert first_change(Setting("65b", method="full", precision="bf16"), "8 GB") == (None, None)


def test_changes_that_cannot_be_had_are_not_proposed():
    setting = Setting("1b", method="prefix", batch=64, seq=4096)  # prefix tuning knows no checkpointing
    for card in CARDS:
        names, changed = first_change(setting, card)
        assert names is None or "checkpointing" not in names or changed.method != "prefix"


def test_the_plain_table_names_every_card_and_the_sum():
    setting = Setting("smollm2-135m", batch=8)
    lines = widgets.table(setting)
    assert [card for card in CARDS if any(line.strip().startswith(card) for line in lines)] == list(CARDS)
    assert f"{predict(setting).process / 1e9:.2f} GB" in "\n".join(lines)


@pytest.mark.parametrize(
    "fields",
    [{"method": "full", "batch": 8}, {"method": "lora", "optimizer": "paged"},
     {"method": "inference", "batch": 4, "precision": "bf16"}],
)  # fmt: skip
def test_parts_are_the_whole_process_and_the_cache_is_called_by_its_name(fields):
    setting = Setting("smollm2-135m", **fields)
    report, found = predict(setting), widgets.parts(predict(setting))
    assert sum(found.values()) == report.process and min(found.values()) >= 0
    values = 2 * setting.batch * setting.seq * setting.shape.layers * setting.shape.key
    assert found["KV cache"] == (2 * values if setting.method == "inference" else 0)


def test_without_a_notebook_the_calculator_prints_its_table(capsys):
    widgets.memory_calculator(shape="1b", method="lora")
    assert capsys.readouterr().out.rstrip("\n").split("\n") == widgets.table(
        Setting("1b", method="lora", precision="bf16")
    )


def test_with_widgets_every_choice_shows_another_answer_and_a_wrong_one_an_advice():
    panel = widgets._panel(Setting("smollm2-135m", batch=2))
    boxes, words = panel.children
    controls = {control.description: control for box in boxes.children for control in box.children}
    before = words.value
    assert set(controls) == set(widgets.CHOICES.values())
    assert "whole process" in before and 'src="data:image/png;base64,iVBOR' in before
    controls["batch"].value = 4
    assert words.value != before
    controls["method"].value = "inference"
    controls["checkpointing"].value = True
    assert "role='alert'" in words.value and "inference" in words.value
    controls["checkpointing"].value = False
    assert "whole process" in words.value


def test_stacked_bars_leave_out_what_is_nowhere_and_lines_far_off():
    groups = {"a": {"x": 1.0, "y": 0.0, "z": 2.0}, "b": {"x": 0.5, "y": 0.0, "z": 0.0}}
    fig, alt = plots.stacked_figure(groups, "title", "GB", {"near": 3.5, "far": 80})
    (axes,) = fig.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["x", "z"]
    assert [text.get_text() for text in axes.texts] == ["near"]
    assert "a: x 1, z 2" in alt and "b: x 0.5" in alt
    colours = [bar[0].get_facecolor() for bar in axes.containers]
    alone, alt = plots.stacked_figure({"b": {"x": 4e-6, "y": 0.0, "z": 1.0}}, "title", "GB")
    assert alt.endswith("b: z 1.")  # nobody sees a part of 4e-6 in the bar
    alone, _ = plots.stacked_figure({"b": {"x": 0.0, "y": 0.0, "z": 1.0}}, "title", "GB")
    assert alone.axes[0].containers[0][0].get_facecolor() == colours[1]  # z looks the same in both
    plots.png(fig), plots.png(alone)
