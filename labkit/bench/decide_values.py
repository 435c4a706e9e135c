"""From the jobs of `bench decide` to choices, and to the values and scores of its record.

`found` are results by job, `asked` is `decide.settings()`, `chosen` what `chosen` returned. An arm is a way
to answer a family's questions, a kind a sort of question, whose rows are those of a family or a part of them.
Of questions that nothing answers, a kind's number is the share that is refused minus the share of answerable
questions that is refused too: who refuses everything has 0.
"""

import os
import re

from labkit import env
from labkit.bench import methods as bench_methods
from labkit.bench.decide_facts import KINDS, difference, facts, interval_of, kind_of
from labkit.bench.decide_jobs import FAMILIES, Reading, indexes, prompts_of

LABELS = {"tickets": "form", "sql": "skill", "handbook": "handbook"}  # of scores

# ---- choices, all on validation rows --------------------------------------------------------------------


def chosen(found, asked):
    """What validation rows choose: prompts by family, a Reading by index, the reader's pieces.

    Most rows right; among equals most valid ones, then the earlier of the budget, which is shorter. The best
    index is that by which the base answers most. A finetuned reader is too dear to be tried with everything:
    it gets what shows most validation rows their answer in a number of words that leaves it epochs enough.
    """
    readings, recalls = {}, {}
    for index in indexes():
        looks = dict(_looks(found, index))
        every = {Reading(index, size, int(key.split("-")[0]), key.split("-")[1]): right
                 for size, one in looks.items() for key, right in one["share"].items()}  # fmt: skip
        readings[index] = max(every, key=lambda one: (every[one], -one.size * one.k))
        recalls |= {(index, size, int(k)): share for size, one in looks.items()
                    for k, share in one["recall"].items()}  # fmt: skip
    best = max(readings, key=lambda index: found[f"look_{index}_{readings[index].size}"]["share"][
        f"{readings[index].k}-{readings[index].last}"])  # fmt: skip
    return {
        "prompts": {family: _prompts(found, family) for family in FAMILIES},
        "constrained": _best(found, "constrained"), "oracle": _best(found, "oracle"),
        "readings": readings, "retrieval": best, "reader": _reader(recalls, asked["read"]),
    }  # fmt: skip


def _reader(recalls, most):
    """(index, words of a piece, pieces) with the highest recall among those of at most so many words."""
    short = {one: share for one, share in recalls.items() if one[1] * one[2] <= most}
    return max(short, key=lambda one: (short[one], -one[1] * one[2]))


def tuned(tried, chosen):
    """What `chosen` gets from the sweeps, {arm: {rate: result}}: the rates, and the reader with its own."""
    rates = {arm: bench_methods.best_rate(each) for arm, each in tried.items()}
    return {"both": Reading(*chosen["reader"], f"{rates['both']:g}"), "rates": rates,
            "rates tried": {arm: {f"{rate:g}": one["right"] for rate, one in sorted(each.items())}
                            for arm, each in tried.items()}}  # fmt: skip


def _prompts(found, family):
    names = prompts_of(family)
    with_rows = [number for number, name in enumerate(names) if re.search(r"\d examples$", name)]
    without = [number for number in range(len(names)) if number not in with_rows]
    return {"instructions": _best(found, family, without), "few-shot": _best(found, family, with_rows),
            "prompted": _best(found, family)}  # fmt: skip


def _best(found, what, numbers=None):
    def merit(number):
        one = found[f"try_{what}_{number}"]
        return one["right"], one["detail"].get("valid", 0), -number

    return max(range(len(prompts_of(what))) if numbers is None else numbers, key=merit)


def _looks(found, index):
    """(size, result) of the jobs that looked through an index."""
    for name, one in found.items():
        if name.startswith(f"look_{index}_"):
            yield int(name.split("_")[2]), one


# ---- which jobs are which arm ---------------------------------------------------------------------------


def untrained(chosen):
    """{family: {arm: its job}} of the arms that train nothing."""
    out = {}
    for family in FAMILIES:
        prompts = chosen["prompts"][family]
        out[family] = {arm: [f"test_{family}_{prompts[arm]}"] for arm in ("instructions", "few-shot")}
    out["tickets"]["constrained"] = [f"test_constrained_{chosen['constrained']}"]
    out["handbook"] |= {index: [f"read_{reading}"] for index, reading in chosen["readings"].items()}
    out["handbook"]["oracle"] = [f"test_oracle_{chosen['oracle']}"]
    return out


def jobs_of(chosen, asked):
    """{family: {arm: its jobs, one a seed}}; an arm that is not trained has one."""
    out, seeds = untrained(chosen), asked["seeds"]
    for family in FAMILIES:
        out[family]["finetuned"] = [f"final_{family}_{chosen['rates'][family]:g}_{seed}" for seed in seeds]
    out["handbook"]["both"] = [f"both_{chosen['both']}_{seed}" for seed in seeds]
    return out


def timed(chosen):
    """{family: {arm: the prompt, Reading or rate that it is timed with}}."""
    out = {}
    for family in FAMILIES:
        prompts = chosen["prompts"][family]
        out[family] = {arm: prompts[arm] for arm in ("instructions", "few-shot")}
        out[family]["finetuned"] = f"{chosen['rates'][family]:g}"
    out["tickets"]["constrained"] = chosen["constrained"]
    out["handbook"] |= {**chosen["readings"], "both": chosen["both"], "oracle": chosen["oracle"]}
    return out


def answers_of(found, chosen, asked):
    """{family: {arm: [what `told` kept, one a seed]}}; `both, oracle` is the reader, given the document."""
    out = {family: {arm: [found[name] for name in each] for arm, each in arms.items()}
           for family, arms in jobs_of(chosen, asked).items()}  # fmt: skip
    out["handbook"]["both, oracle"] = [one["oracle"] for one in out["handbook"]["both"]]
    return out


# ---- the record -----------------------------------------------------------------------------------------


def scores(found, chosen, asked):
    """Test rows by score, one text a seed, as records keep them.

    `form: finetuned`, `skill: few-shot`, `handbook: both`: all rows of a family, whatever their kind.
    "prompted" is the best of the budget's prompts, "larger prompted" the larger model's, if there is one.
    """
    rows = {}
    for family, arms in answers_of(found, chosen, asked).items():
        for arm, runs in arms.items():
            rows[family, arm] = [one["rows"] for one in runs]
        prompted = found[f"test_{family}_{chosen['prompts'][family]['prompted']}"]["rows"]
        rows[family, "prompted"] = [prompted]
        if f"larger_{family}" in found:
            rows[family, "larger prompted"] = [found[f"larger_{family}"]["rows"]]
    rows["handbook", "retrieval"] = rows["handbook", chosen["retrieval"]]
    return {f"{LABELS[family]}: {arm}": {"task": family, "split": "test", "rows": each}
            for (family, arm), each in rows.items()}  # fmt: skip


def summary(found, chosen, asked):
    """The record's values, under the names that the claims' bands use."""
    answers = answers_of(found, chosen, asked)
    alone = {name.split("_")[1]: one for name, one in found.items() if name.startswith("alone_")}
    kinds = {kind: kind_of(kind, answers) for kind in KINDS}
    valid = {arm: [one["detail"]["valid"] for one in runs if "valid" in one["detail"]]
             for arm, runs in answers["tickets"].items()}  # fmt: skip
    return {
        "settings": _settings(asked),
        "chosen": _chosen(chosen),
        "rates tried": chosen["rates tried"],
        "prompts tried": {what: {name: found[f"try_{what}_{number}"]["right"]
                                 for number, name in enumerate(prompts_of(what))}
                          for what in (*FAMILIES, "constrained", "oracle")},
        "retrieval tried": {index: {str(size): {key: one[key] for key in ("share", "recall", "mrr")}
                                    for size, one in _looks(found, index)} for index in indexes()},
        "kinds": {kind: one for kind, one in kinds.items() if one["arms"]},
        "facts": facts(answers, chosen),
        # By test row, packed, so that refusals and what contains the answer can be counted otherwise later.
        "marks": {arm: {key: [one[key] for one in runs] for key in ("refused", "contains")}
                  for arm, runs in answers["handbook"].items()},
        "valid": valid,
        "small": {kind: _small(kind, found, answers, chosen) for kind in ("form", "skill")},
        "detail": {family: {arm: [one["detail"] for one in runs] for arm, runs in arms.items()}
                   for family, arms in answers.items()},
        "recall": {arm: answers["handbook"][arm][0]["recall"] for arm in (*indexes(), "both")},
        "shuffled": _shuffled(found, chosen, asked),
        "forgetting": _forgetting(found, answers),
        "ms": {family: one["ms"] for family, one in alone.items()},
        "update": _update(alone),
        "training": {name: [one["training"] for one in runs] for name, runs in _trained(answers).items()},
    }  # fmt: skip


def _settings(asked):
    """As JSON gives them back, with the names of what is not the course's own."""
    numbers = {name: {str(key): one for key, one in asked[name].items()} for name in ("pieces", "timed")}
    outside = {name: os.environ.get(f"LABKIT_{name.upper()}") for name in ("larger", "embedder")}
    return {**asked, **numbers, **outside, "seeds": list(asked["seeds"]), "card": env.machine()}


def _chosen(chosen):
    """The choices in words."""
    prompts = {family: {arm: prompts_of(family)[number] for arm, number in arms.items()}
               for family, arms in chosen["prompts"].items()}  # fmt: skip
    names = prompts_of("oracle")
    readings = {index: {**_pieces(one), "prompt": names[int(one.last)]}
                for index, one in chosen["readings"].items()}  # fmt: skip
    return {"prompts": prompts, "constrained": prompts_of("constrained")[chosen["constrained"]],
            "oracle": names[chosen["oracle"]], "readings": readings,
            "both": {"index": chosen["both"].index, **_pieces(chosen["both"])},
            "retrieval": chosen["retrieval"], "rates": chosen["rates"]}  # fmt: skip


def _pieces(reading):
    return {"words": reading.size, "pieces": reading.k}


def _small(kind, found, answers, chosen):
    """Finetuned minus the same base prompted; and minus the larger model, None where there was none."""
    family, _ = KINDS[kind]
    number, larger = chosen["prompts"][family]["prompted"], found.get(f"larger_{family}")
    against = {"same": (found[f"test_{family}_{number}"], prompts_of(family)[number])}
    if larger:
        against["larger"] = larger, larger["prompt"]
    finetuned = answers[family]["finetuned"]
    out = {"finetuned": [one["right"] for one in finetuned], "larger": None}
    for name, (one, prompt) in against.items():
        out[name] = {"right": one["right"], "prompt": prompt,
                     "gap": interval_of(difference(kind, finetuned, [one]))}  # fmt: skip
    return out


def _shuffled(found, chosen, asked):
    rate = f"{chosen['rates']['handbook']:g}"
    runs = [found[f"shuffled_{rate}_{seed}"] for seed in asked["seeds"]]
    return {key: [one[key] for one in runs] for key in ("true", "taught")}


def _trained(answers):
    trained = {LABELS[family]: runs["finetuned"] for family, runs in answers.items()}
    return {**trained, "handbook, both": answers["handbook"]["both"]}


def _forgetting(found, answers):
    keys = ("general loss", "probe")
    return {"base": {key: [found["base"][key]] for key in keys},
            **{name: {key: [one[key] for one in runs] for key in keys}
               for name, runs in _trained(answers).items()}}  # fmt: skip


def _update(alone):
    """{arm: seconds by part} until a changed fact is answered; the text or the questions are written before.

    Trained weights hold facts in `finetuned` alone: what `both` answers stands in its pages, so that it is
    trained once.
    """
    one = alone["handbook"]
    indexing = {arm: {"indexing": each["one changed document"], "indexing all": each["all"]}
                for arm, each in one["indexing"].items()}  # fmt: skip
    return {"finetuned": {"training": one["training seconds"]["finetuned"]}, **indexing}
