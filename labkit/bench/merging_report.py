"""The tables of `bench merging`. Each takes the record's values, or reads them."""

from statistics import mean

from labkit.bench.markdown import measured, table, together, values

NAME = "merging"
SETTINGS = {  # what the numbers of a setting are
    "average": (), "task-arithmetic": ("scale",), "slerp-models": ("t",), "slerp-deltas": ("t",),
    "ties": ("density", "scale"), "ties-untrimmed": ("scale",), "ties-unelected": ("density", "scale"),
    "dare": ("drop", "scale"), "dare-ties": ("drop", "scale"),
}  # fmt: skip
NAMES = {
    "average": "average", "task-arithmetic": "task arithmetic", "slerp-models": "SLERP of models",
    "slerp-deltas": "SLERP of deltas", "ties": "TIES", "ties-untrimmed": "control: TIES, nothing trimmed",
    "ties-unelected": "control: TIES, no election", "dare": "DARE", "dare-ties": "DARE and TIES",
}  # fmt: skip
GROUPS = {"seeds": "one rate, all seeds", "all": "all rates and seeds"}


@measured(NAME)
def lines(found):
    """All tables as Markdown lines."""
    tables = (merges_table, sweep_table, negation_table, dare_table, soups_table, lora_table, stack_table,
              probes_table)  # fmt: skip
    return together(tables, found)


# ---- merges of tasks ------------------------------------------------------------------------------------


@measured(NAME)
def merges_table(found):
    """Markdown lines: test score on each task and share of the specialists' gain kept, by merge."""
    tasks = list(found["specialists"])
    alone = [["the base", "", *(f"{found['base']['test'][task]:.1%}" for task in tasks), *[""] * len(tasks)]]
    for own, one in found["specialists"].items():
        alone.append([f"specialist: {own}", "", *(_percent(one["test"][task]) for task in tasks),
                      *[""] * len(tasks)])  # fmt: skip
    merged = [_merge_row(found, tasks, some, method)
              for some, methods in found["merges"].items() for method in methods]  # fmt: skip
    alone.append(_joint_row(found, tasks))
    asked = found["settings"]
    rates = ", ".join(f"{task} {rate:g}" for task, rate in asked["rates"].items())
    head = f"model|setting|{'|'.join(tasks)}|{'|'.join(f'kept, {task}' for task in tasks)}"
    return [
        *table(head, alone + merged),
        "",
        f"Right answers, {asked['rows']:,} test rows of a task (voice: at most 400), mean of "
        f"{_seeds(asked)}. Kept: share of the specialist's gain over the base. Settings are the best on "
        f"{asked['tried']} validation rows (voice: 100) with one seed. Specialists were trained on other "
        "rows of those rows' phrasings, so these are easier than test rows. (end): a number at an end. Best "
        "is what keeps most on the task it serves worst. *: best method there, for its tasks; ~: within one "
        "standard error of it. Controls are never the best. The average has one setting, others up to eight.",
        "",
        f"Learning rates: {rates}; those of sql and voice were found with 400 steps, not these "
        f"{asked['steps']}. TIES trims each tensor by itself, where its paper trims the whole model; DARE "
        "and TIES takes the mean of the entries that agree, where mergekit 0.1.5 adds them up.",
    ]


def _joint_row(found, tasks):
    """One model trained on the pair, which a merge of the two has to be compared with."""
    one, kept = found["joint"], _each(found["kept by training on both"])
    end = " (end)" if one["at an end"] else ""
    return [f"trained on both: {' + '.join(kept)}", f"rate {one['rate']:g}{end}, {one['steps']:,} steps",
            *(_percent(one["test"][task]) if task in kept else "" for task in tasks),
            *(_percent(kept[task]) if task in kept else "" for task in tasks)]  # fmt: skip


def _each(kept):
    """{task: what each seed keeps}, whether or not there was an interval to give."""
    return {task: one["each"] if isinstance(one, dict) else one for task, one in kept.items()}


def _merge_row(found, tasks, some, method):
    near = " ~" if method in found["near best"][some] else ""
    one, star = found["merges"][some][method], " *" if found["best"][some] == method else near
    scores = [_percent(one["test"][task]) if task in one["test"] else "" for task in tasks]
    kept = [_percent(one["kept"][task]) if task in one["kept"] else "" for task in tasks]
    name = f"{' + '.join(one['test'])}: {NAMES[method]}{star}"
    return [name, setting(method, one["setting"], one["at ends"]), *scores, *kept]


def setting(method, text, ends=()):
    """A setting in words: `density 0.2 (end), scale 1`; `ends` are places of numbers at an end."""
    numbers = [] if text == "none" else text.split("-")
    return ", ".join(f"{name} {number}{' (end)' if place in ends else ''}" for place, (name, number) in
                     enumerate(zip(SETTINGS[method], numbers, strict=True)))  # fmt: skip


@measured(NAME)
def sweep_table(found):
    """Markdown lines: validation score on each task by the coefficient of task arithmetic."""
    points, asked = sweep_points(found), found["settings"]
    columns = [(some, task) for some, each in points.items() for task in each]
    scales = [scale for scale, _ in points["pair"][columns[0][1]]]
    rows = [[f"{scale:g}", *(f"{dict(points[some][task])[scale]:.1%}" for some, task in columns)]
            for scale in scales]  # fmt: skip
    head = "scale|" + "|".join(f"{task}, of {len(points[some])}" for some, task in columns)
    return [
        *table(head, rows),
        "",
        f"Task arithmetic of 2 and of 3 specialists, the same scale for each delta: right answers, "
        f"{asked['tried']} validation rows of a task (voice: at most 100), one seed.",
    ]


def sweep_points(found=None):
    """{set: {task: [(scale, share of validation rows right)]}} of task arithmetic; {} without a record."""
    found = found or values(NAME)
    if not found:
        return {}
    out = {}
    for some, methods in found["tuned"].items():
        tried = sorted((float(scale), right) for scale, right in methods["task-arithmetic"].items())
        out[some] = {task: [(scale, right[task]) for scale, right in tried] for task in tried[0][1]}
    return out


@measured(NAME)
def negation_table(found):
    """Markdown lines: what the tickets delta does when it is added to the base, and when it is taken away."""
    base, asked = found["base"], found["settings"]
    rows = [["the base", f"{base['test']['tickets']:.1%}", f"{base['tickets loss']:.3f}",
             f"{base['general loss']:.3f}"]]  # fmt: skip
    for key, name in (("specialist", "plus the delta: the specialist"), ("negated", "minus the delta")):
        one = found["negation"][key]
        rows.append([name, _percent(one["right"]), _number(one["tickets loss"]),
                     _number(one["general loss"])])  # fmt: skip
    return [
        *table("model|tickets|loss on right answers to tickets|loss on plain English", rows),
        "",
        f"Test rows, mean of {_seeds(asked)}; losses in nats per token. The base answers hardly a ticket "
        "right, so only the losses can say whether the skill was taken away.",
    ]


# ---- one task -------------------------------------------------------------------------------------------


@measured(NAME)
def dare_table(found):
    """Markdown lines: test score of a tickets specialist by the share of its delta that is dropped."""
    asked = found["settings"]
    rows = [[f"{float(drop):.0%}", _percent(one["rescaled"]), _percent(one["as it is"])]
            for drop, one in found["dare"].items()]  # fmt: skip
    return [
        *table("dropped|tickets, the rest rescaled|not rescaled", rows),
        "",
        f"Mean of {_seeds(asked)}, other entries dropped for each; {asked['claimed']:,} test rows at 0% and "
        f"90%, the first {asked['rows']:,} of them elsewhere.",
    ]


@measured(NAME)
def soups_table(found):
    """Markdown lines: uniform and greedy soups of tickets specialists, and their best parents."""
    asked, soups = found["settings"], found["soups"]
    order = sorted(soups, key=lambda group: (group == "all", group == "seeds", group))
    rows = [[GROUPS.get(group, f"all rates, seed {group}"), str(len(one["parents"])),
             *(f"{one['test'][name]:.1%}" for name in ("best parent", "soup", "greedy soup")),
             ", ".join(map(_parent, one["members"])),
            ", ".join(f"{_parent(name)} {share:.1%}" for name, share in one["parents on test"].items())]
            for group in order for one in [soups[group]]]  # fmt: skip
    rates = ", ".join(f"{rate:g}" for rate in asked["soup rates"])
    return [
        *table("soup of|parents|best parent|uniform soup|greedy soup|the greedy soup takes|"
               "each parent, test rows", rows),
        "",
        f"Full finetunes on tickets, rates {rates}: right answers, {asked['claimed']:,} test rows. The best "
        f"parent and the greedy soup's members (rate, seed) are chosen on {asked['judging']} validation "
        "rows, whose phrasings were trained on, so that parents lie close together there; the first of them "
        "is the best parent, which need not be the one best on test rows.",
    ]


def _parent(name):
    _, _, rate, seed = name.split("_")
    return f"{rate} ({seed})"


@measured(NAME)
def lora_table(found):
    """Markdown lines: two adapters combined, with the error of their update."""
    asked, alone, rows = found["settings"], found["lora"]["alone"], []
    for way, one in found["lora"]["ways"].items():
        errors = "; ".join(f"{weight}: {_error(each)}" for weight, each in one["error"].items())
        tested = [_percent(one["test"][task]) for task in alone]
        rows.append([way, errors, ", ".join(one["weights"]), *tested])
    own = ", ".join(f"{task} {_percent(each)}" for task, each in alone.items())
    return [
        *table(f"way|relative error of the update, by weight|weights chosen|{'|'.join(alone)}", rows),
        "",
        f"LoRA adapters of rank 16, both with the same weight, chosen by seed on validation rows; right "
        f"answers, {asked['rows']:,} test rows, mean of {_seeds(asked)}. Each adapter alone: {own}. Their "
        "learning rate was looked for on tickets alone; sql took the same.",
    ]


def _error(each):
    return f"{mean(each):.1e}" if mean(each) < 0.001 else f"{mean(each):.2f}"


# ---- stacked layers, representations --------------------------------------------------------------------


@measured(NAME)
def stack_table(found):
    """Markdown lines: loss of the base and of a stack of its layers over continued pre-training."""
    asked, arms = found["settings"], found["stack"]
    rows = [[f"{step:,} {'step' if step == 1 else 'steps'}",
             *(_number(arms[arm]["curve"][str(step)]) for arm in ("base", "stacked"))]
            for step in sorted(map(int, arms["base"]["curve"]))]  # fmt: skip
    for when in ("before", "after"):
        rows.append([f"plain English, {when}",
                     *(_number(arms[arm][when]["general"]) for arm in ("base", "stacked"))])  # fmt: skip
    layers = " and ".join(f"{one['layers']} ({one['weights'] / 1e6:.0f}M weights)" for one in arms.values())
    longer, stack, gaps = found["longer"], arms["stacked"], found["after, equal compute"]
    rows.append([f"equal compute: the base {longer['steps']:,} steps", _number(longer["text"]),
                 _number(stack["after"]["text"])])  # fmt: skip
    fair = ", ".join(f"{gap:+.3f}" for gap in gaps)
    rates = ", ".join(f"{arm} {one['sweep']['best']:g}"
                      f"{' (an end of those tried)' if one['sweep']['at an end'] else ''}"
                      for arm, one in arms.items())  # fmt: skip
    after = ", ".join(f"{gap:+.3f}" for gap in found["after"])
    return [
        *table("trained for|the base|the stack", rows),
        "",
        f"Layers: {layers}. Both read the same {stack['tokens'] / 1e6:.1f} million tokens of the shop's text,"
        f" {stack['passes']:.1f} passes over it; loss on other text of its kinds, nats per token, mean of "
        f"{_seeds(asked)}; steps look into one run. Rates, by validation text: {rates}. Stack minus base: "
        f"{found['before']:+.3f} before; after, by seed: {after}. A token costs the stack "
        f"{stack['weights'] / arms['base']['weights']:.1f} times the compute. Against a base that got as much"
        f" ({longer['passes']:.1f} passes, the base's rate): {fair}.",
    ]


@measured(NAME)
def probes_table(found):
    """Markdown lines: what a linear probe reads from the states of one model, and of two side by side."""
    asked = found["settings"]
    rows = [[arm, str(one["size"]), ", ".join(f"{penalty:g}" for penalty in one["penalty"]),
             _percent(one["right"])] for arm, one in found["probes"].items()]  # fmt: skip
    return [
        *table("states of|features|penalty, by seed|intent right, test", rows),
        "",
        f"Last token's final state, probe fitted on {asked['probed']:,} training rows of tickets, penalty "
        f"chosen on validation rows; {asked['rows']:,} test rows, mean of {_seeds(asked)}.",
    ]


def _seeds(asked):
    count = len(asked["seeds"])
    return f"{count} {'seed' if count == 1 else 'seeds'}"


def _percent(shares):
    return f"{mean(shares):.1%}" if None not in shares else "no gain"


def _number(each):
    return f"{mean(each):.3f}"
