"""The table of a record of `bench methods`, one method a line, and which of its peaks compare."""

from labkit.records import judge, stats

HEAD = ("method", "trainable weights", "learning rate", "exact match, test", "by seed", "minus full", "peak",
        "general loss", "probe")  # fmt: skip


def lines(whole, methods=None, without=()):
    """A record as a Markdown table, one method a line, and what its columns mean.

    methods: the names to show, in their order; all if None. without: columns of HEAD to leave out.
    """
    values, columns = whole["values"], [column for column in HEAD if column not in without]
    shown = {name: values["methods"][name] for name in methods or values["methods"]}
    out = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in shown.items():
        cells = dict(zip(HEAD, _cells(whole, name, found), strict=True))
        out.append(f"| {' | '.join(cells[column] for column in columns)} |")
    asked, base = values["settings"], values["base"]
    seeds = f"{len(asked['seeds'])} {'seed' if len(asked['seeds']) == 1 else 'seeds'}"
    rows = int(next(iter(whole["scores"].values()))["rows"][0].split(":")[0])
    out += [
        "",
        f"{asked['task']}, {asked['model']}: {asked['steps']} steps of {asked['batch']} x {asked['length']} "
        f"tokens, {seeds}, {rows:,} test rows. Brackets: 95% interval, over phrasings and seeds. Gaps are in "
        "points. Learning rates were chosen by phrasings kept from training, with one seed.",
    ]
    if {"general loss", "probe"} & set(columns):
        out.append(
            "General loss (nats per token of plain English) and probe (points) are changes from the "
            f"base's {base['general loss']:.3f} and {base['probe']:.1%}."
        )
        if any(map(is_soft_prompt, shown.values())):
            out.append(
                "-: what is lost with a soft prompt on was not measured, so it does not compare with the "
                "others here. Left off, the base itself answers; so it does with any unmerged adapter."
            )
    if "peak" in columns:
        places = ", and a soft prompt's places are in it" if any(map(is_soft_prompt, shown.values())) else ""
        out.append(f"The peak is training's{places}.")
    if "peak" in columns and len(groups := ways(shown)) > 1:
        alike = "; ".join(f"{way}: {', '.join(names)}" for way, names in groups.items())
        out.append(
            f"Peaks compare only where `fit` took its steps in one way. {alike}. Peaks of all in one way: "
            "`bench peaks`."
        )
    if any(found["diverged"] for found in shown.values()):
        out.append("A seed whose training diverged counts as no row right.")
    if any(found["at an end"] for found in shown.values()):
        out.append("*: still the lowest or highest learning rate tried; a further one may be better.")
    made = sorted({place for found in shown.values() for place in found["made on"]})
    dates = sorted({found["made"] for found in shown.values()})
    out.append(f"Trained on: {'; '.join(made)}. {', '.join(dates)}.")
    return out


def _cells(whole, name, found):
    base, recorded = whole["values"]["base"], judge.Recorded(whole)
    exact = judge.estimate({"score": name}, recorded)
    gap = judge.estimate({"gap": [name, "full"]}, recorded) if name != "full" else None
    shares = [stats.unpack_rows(rows).mean() for rows in whole["scores"][name]["rows"]]
    soft = is_soft_prompt(found)
    return [
        name,
        f"{found['trainable']:,} ({100 * found['trainable'] / base['weights']:.3g}%)",
        f"{found['rate']:g}{'*' if found['at an end'] else ''}",
        f"{exact.mean:.1%} [{exact.low:.1%}, {exact.high:.1%}]",
        f"{min(shares):.1%} to {max(shares):.1%}" if len(shares) > 1 else "",
        f"{_points(gap.mean)} [{_points(gap.low)}, {_points(gap.high)}]" if gap else "",
        f"{found['peak bytes'] / 1e9:.1f} GB" if found["peak bytes"] else "-",  # every seed diverged
        "-" if soft else _change(found["general loss"], base["general loss"], "{:+.3f}".format),
        "-" if soft else _change(found["probe"], base["probe"], _points),
    ]


def _change(each, before, shown):
    """The mean change from the base with its interval over seeds; `-` where a seed has no number."""
    if None in each:
        return "-"
    found = stats.of_values([one - before for one in each])
    return shown(found.mean) + (f" [{shown(found.low)}, {shown(found.high)}]" if len(each) > 1 else "")


def _points(share):
    """A difference of shares in points; adding 0 makes of -0.0 a plain one."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def ways(entries):
    """{how `fit` took the steps: names of the methods}; the peaks of two ways do not compare.

    Left out are soft prompts, whose places come on top of a step's tokens, and what diverged on every seed.
    """
    found = {}
    for name, entry in entries.items():
        way = " or ".join(path for path in entry["path"] if path != "diverged")
        if way and not is_soft_prompt(entry):
            found.setdefault(way, []).append(name)
    return found


def is_soft_prompt(entry):
    """Is it a method whose places come on top of a step's tokens, and which can be left off?"""
    return entry["module"].startswith("labkit/methods/soft_prompts/")
