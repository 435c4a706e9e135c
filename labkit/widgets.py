"""The memory calculator: choose a step, see what it takes, which cards it fits, what would make it fit."""

import base64
import html

from labkit.errors import LabkitError

CHOICES = {
    "shape": "model", "method": "method", "precision": "precision", "optimizer": "optimizer",
    "batch": "batch", "seq": "tokens a row", "checkpointing": "checkpointing", "fused_loss": "fused loss",
}  # fmt: skip
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)


def memory_calculator(**start):
    """Show the calculator, beginning at `Setting(**start)`; a plain table where there are no widgets.

    Every control takes the keyboard: Tab moves on, Space opens a list, arrow keys and Enter choose in it.
    """
    from labkit.memory import Setting

    setting = Setting(**{"shape": "7b", "method": "full", "precision": "bf16", **start})
    if not _has_widgets():
        print("\n".join(table(setting)))
        return
    from IPython.display import display

    display(_panel(setting))


def table(setting):
    """Lines of text: bytes by part, their sum, and for each card whether it fits or what would make it."""
    from labkit.memory import predict
    from labkit.memory.cards import OFFERS, first_change, fits

    report = predict(setting)
    what = f"{setting.shape.name}, {setting.method}, {setting.precision}, {setting.optimizer}"
    lines = [f"{what}, batch {setting.batch} x {setting.seq} tokens; peak at the {report.moment}"]
    lines += [f"  {name:<16} {size / 1e9:8.2f} GB" for name, size in parts(report).items() if size]
    lines.append(f"  {'whole process':<16} {report.process / 1e9:8.2f} GB ({report.process / 2**30:.2f} GiB)")
    if report.categories.get("optimizer paged"):
        lines.append("  (paged states may leave the card: the lines below do not count them)")
    for card, offered in OFFERS.items():
        if fits(setting, card):
            says = "fits"
        else:
            names, changed = first_change(setting, card)
            says = "no change here is enough" if names is None else f"would fit with {', '.join(names)}"
        lines.append(f"  {card} card ({offered} of its {card.split()[0]} GiB for you): {says}")
    return lines


def parts(report):
    """{part: bytes} of a predicted `Report`, which together are its whole process.

    They are its categories, the KV cache apart from the activations, and "unused reserve": what torch has
    taken from the card beyond what is allocated at the peak.
    """
    from labkit.memory.report import CATEGORIES

    cache = sum(term.bytes for term in report.terms if term.name == "KV cache")
    found = {name: report.categories.get(name, 0) for name in CATEGORIES}
    found["activations"] -= cache
    return found | {"KV cache": cache, "unused reserve": report.peak_reserved - report.peak_allocated}


def bars(settings, title):
    """Show a stacked bar of the whole process for each of {label: Setting}, by part, and a line for each card
    near it: what the card offers, on the axis in GB, written beside it in GiB."""
    from labkit import plots

    plots.show(*_bars(settings, title))


def _bars(settings, title):
    """(figure, alt text) of `bars`."""
    from labkit import plots
    from labkit.memory import predict
    from labkit.memory.cards import CARDS, OFFERS

    groups = {
        label: {name: size / 1e9 for name, size in parts(predict(setting)).items()}
        for label, setting in settings.items()
    }
    cards = {f"{OFFERS[name]:g} GiB": size / 1e9 for name, size in CARDS.items()}
    return plots.stacked_figure(groups, title, "GB (10⁹ bytes)", cards)


def _has_widgets():
    """Is there a notebook that draws ipywidgets?"""
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def _panel(setting):
    import ipywidgets as w

    from labkit.memory.setting import METHODS, OPTIMIZERS, PRECISIONS
    from labkit.memory.shapes import SHAPES

    wide = {"description_width": "7.5em"}
    made = {
        "shape": w.Dropdown(options=list(SHAPES), value=setting.shape.name),
        "method": w.Dropdown(options=METHODS, value=setting.method),
        "precision": w.Dropdown(options=PRECISIONS, value=setting.precision),
        "optimizer": w.Dropdown(options=OPTIMIZERS, value=setting.optimizer),
        "batch": w.BoundedIntText(value=setting.batch, min=1, max=512),
        "seq": w.Dropdown(options=LENGTHS, value=setting.seq),
        "checkpointing": w.Checkbox(value=setting.checkpointing, indent=True),
        "fused_loss": w.Checkbox(value=setting.fused_loss, indent=True),
    }
    for name, control in made.items():
        control.description, control.style = CHOICES[name], wide
    words = w.HTML()

    def show(_=None):
        from labkit import plots
        from labkit.memory import Setting, predict

        try:
            chosen = Setting(**{name: control.value for name, control in made.items()})
            whole = predict(chosen).process / 1e9
            lines = table(chosen)
        except LabkitError as error:
            words.value = f"<p role='alert'>{html.escape(str(error))}</p>"
            return
        title = f"{chosen.shape.name}: {whole:.1f} GB for the whole process"
        figure, alt = _bars({chosen.method: chosen}, title)
        picture = base64.b64encode(plots.png(figure)).decode()
        image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
        words.value = f"{image}<pre>{html.escape(chr(10).join(lines))}</pre>"

    for control in made.values():
        control.observe(show, "value")
    show()
    controls = list(made.values())
    return w.VBox([w.HBox([w.VBox(controls[:4]), w.VBox(controls[4:])]), words])
