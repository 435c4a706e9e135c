"""From the jobs of `bench decide` to choices, and to the values and scores of its record.

`found` are results by job, `asked` is `decide.settings()`, `chosen` what `chosen` returned. An arm is a way
to answer a family's questions, a kind a sort of question, whose rows are those of a family or a part of them.
"""

import os
import re

import numpy as np

from labkit import tasks
from labkit.bench import methods as bench_methods
from labkit.bench.decide_jobs import FAMILIES, Reading, indexes, prompts_of
from labkit.records import stats

# Kind: the family whose test rows it has, and which of them (None: all).
KINDS = {"form": ("tickets", None), "skill": ("sql", None),
         **{f"facts: {kind}": ("handbook", kind) for kind in ("trained", "changed", "untrained", "absent")}}
LABELS = {"tickets": "form", "sql": "skill", "handbook": "handbook"}  # of scores
CONTROLS = ("oracle", "both, oracle")  # given what no arm has: not to be chosen
FACTS = "facts: trained"

# ---- choices, all on validation rows --------------------------------------------------------------------


def shares(tried):
    """{rate: share} as `bench_methods.best_rate` wants it."""
    return {rate: {"right": right, "loss": None} for rate, right in tried.items()}


def chosen(found, rates):
    """What validation rows choose: prompts by family, a Reading by index, the reader's pieces, the rates.

    Most rows right; among equals most valid ones, then the earlier of the budget, which is shorter. The best
    index is that by which the base answers most. A finetuned reader is too dear to be tried with everything:
    it gets what shows most validation rows their answer, among equals the fewest words.
    """
    prompts = {family: _prompts(found, family) for family in FAMILIES}
    readings, recalls = {}, {}
    for index in indexes():
        looks = {size: one for size, one in _looks(found, index)}
        every = {Reading(index, size, int(key.split("-")[0]), key.split("-")[1]): right
                 for size, one in looks.items() for key, right in one["share"].items()}  # fmt: skip
        readings[index] = max(every, key=lambda one: (every[one], -one.size * one.k))
        recalls |= {(index, size, int(k)): share for size, one in looks.items()
                    for k, share in one["recall"].items()}  # fmt: skip
    best = max(readings, key=lambda index: found[f"look_{index}_{readings[index].size}"]["share"][
        f"{readings[index].k}-{readings[index].last}"])  # fmt: skip
    return {
        "prompts": prompts, "oracle": _best(found, "oracle", range(len(prompts_of("handbook")))),
        "readings": readings, "retrieval": best,
        "reader": max(recalls, key=lambda one: (recalls[one], -one[1] * one[2])),
        "rates": {family: bench_methods.best_rate(shares(tried)) for family, tried in rates.items()},
        "rates tried": {family: {f"{rate:g}": right for rate, right in sorted(tried.items())}
                        for family, tried in rates.items()},
    }  # fmt: skip


def best_reader(tried, chosen):
    """What `chosen` gets from the sweep of finetuning plus retrieval, {rate: result}."""
    rate = bench_methods.best_rate(tried)
    shown = {f"{one:g}": result["right"] for one, result in sorted(tried.items())}
    return {"both": Reading(*chosen["reader"], f"{rate:g}"),
            "rates tried": chosen["rates tried"] | {"both": shown},
            "rates": chosen["rates"] | {"both": rate}}  # fmt: skip


def _prompts(found, family):
    names = prompts_of(family)
    with_rows = [number for number, name in enumerate(names) if re.search(r"\d examples$", name)]
    without = [number for number in range(len(names)) if number not in with_rows]
    return {"instructions": _best(found, family, without), "few-shot": _best(found, family, with_rows),
            "prompted": _best(found, family, range(len(names)))}  # fmt: skip


def _best(found, what, numbers):
    def merit(number):
        one = found[f"try_{what}_{number}"]
        return one["right"], one["detail"].get("valid", 0), -number

    return max(numbers, key=merit)


def _looks(found, index):
    """(size, result) of the jobs that looked through an index."""
    for name, one in found.items():
        if name.startswith(f"look_{index}_"):
            yield int(name.split("_")[2]), one


# ---- which jobs are which arm ---------------------------------------------------------------------------


def jobs_of(chosen, asked):
    """{family: {arm: its jobs, one a seed}}; an arm that is not trained has one."""
    seeds, out = asked["seeds"], {}
    for family in FAMILIES:
        prompts = chosen["prompts"][family]
        out[family] = {arm: [f"test_{family}_{prompts[arm]}"] for arm in ("instructions", "few-shot")}
        if family == "tickets":
            out[family]["constrained"] = [f"constrained_{prompts['prompted']}"]
        if family == "handbook":
            out[family] |= {index: [f"read_{reading}"] for index, reading in chosen["readings"].items()}
        rate = f"{chosen['rates'][family]:g}"
        out[family]["finetuned"] = [f"final_{family}_{rate}_{seed}" for seed in seeds]
    if "both" in chosen:
        out["handbook"]["both"] = [f"both_{chosen['both']}_{seed}" for seed in seeds]
    out["handbook"]["oracle"] = [f"test_oracle_{chosen['oracle']}"]
    return out


def timed(chosen):
    """{family: {arm: the prompt, Reading or rate that it is timed with}}."""
    out = {}
    for family in FAMILIES:
        prompts = chosen["prompts"][family]
        out[family] = {arm: prompts[arm] for arm in ("instructions", "few-shot")}
        out[family]["finetuned"] = f"{chosen['rates'][family]:g}"
    out["tickets"]["constrained"] = chosen["prompts"]["tickets"]["prompted"]
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
    "prompted" is the best of the budget's prompts, "largest prompted" the larger model's if there is one.
    """
    rows = {}
    for family, arms in answers_of(found, chosen, asked).items():
        for arm, runs in arms.items():
            rows[family, arm] = [one["rows"] for one in runs]
        prompted = found[f"test_{family}_{chosen['prompts'][family]['prompted']}"]["rows"]
        rows[family, "prompted"] = [prompted]
        if family != "handbook":
            rows[family, "largest prompted"] = [found.get(f"larger_{family}", {"rows": prompted})["rows"]]
    rows["handbook", "retrieval"] = rows["handbook", chosen["retrieval"]]
    return {f"{LABELS[family]}: {arm}": {"task": family, "split": "test", "rows": each}
            for (family, arm), each in rows.items()}  # fmt: skip


def summary(found, chosen, asked):
    """The record's values, under the names that the claims' bands use."""
    answers = answers_of(found, chosen, asked)
    alone = {name.split("_")[1]: one for name, one in found.items() if name.startswith("alone_")}
    kinds = {kind: _kind(kind, answers) for kind in KINDS}
    return {
        "settings": _settings(asked),
        "chosen": _chosen(chosen),
        "rates tried": chosen["rates tried"],
        "prompts tried": {family: {name: found[f"try_{family}_{number}"]["right"]
                                   for number, name in enumerate(prompts_of(family))} for family in FAMILIES},
        "retrieval tried": {index: {str(size): {"share": one["share"], "recall": one["recall"]}
                                    for size, one in _looks(found, index)} for index in indexes()},
        "kinds": {kind: one for kind, one in kinds.items() if one["arms"]},
        "facts": _facts(answers, chosen),
        "small": {kind: _small(kind, found, answers, chosen) for kind in ("form", "skill")},
        "detail": {family: {arm: [one["detail"] for one in runs] for arm, runs in arms.items()}
                   for family, arms in answers.items()},
        "recall": {arm: answers["handbook"][arm][0]["recall"] for arm in (*indexes(), "both")},
        "shuffled": _shuffled(found, chosen, asked),
        "forgetting": _forgetting(found, answers),
        "ms": {family: one["ms"] for family, one in alone.items()},
        "update": _update(alone),
    }  # fmt: skip


def _settings(asked):
    """As JSON gives them back, with the names of what is not the course's own."""
    numbers = {name: {str(key): one for key, one in asked[name].items()} for name in ("pieces", "timed")}
    outside = {name: os.environ.get(f"LABKIT_{name.upper()}") for name in ("larger", "embedder")}
    return {**asked, **numbers, **outside, "seeds": list(asked["seeds"])}


def _chosen(chosen):
    """The choices in words."""
    prompts = {family: {arm: prompts_of(family)[number] for arm, number in arms.items()}
               for family, arms in chosen["prompts"].items()}  # fmt: skip
    names = prompts_of("handbook")
    readings = {index: {**_pieces(one), "prompt": names[int(one.last)]}
                for index, one in chosen["readings"].items()}  # fmt: skip
    return {"prompts": prompts, "oracle": names[chosen["oracle"]], "readings": readings,
            "both": {"index": chosen["both"].index, **_pieces(chosen["both"])},
            "retrieval": chosen["retrieval"], "rates": chosen["rates"]}  # fmt: skip


def _pieces(reading):
    return {"words": reading.size, "pieces": reading.k}


def cells(kind, runs):
    """(flags (seeds, rows), phrasings) of the rows of one kind, in the order of the test split."""
    family, part = KINDS[kind]
    phrasings, parts = labels(family)
    flags = np.stack([stats.unpack_rows(one["rows"]) for one in runs])
    here = [place for place in range(flags.shape[1]) if part in (None, parts[place])]
    return flags[:, here], [phrasings[place] for place in here]


def labels(family):
    """(phrasing of each test row, its kind; the family where there is none)."""
    test = tasks.load(family)["test"]
    return list(test["phrasing"]), list(test["kind"] if "kind" in test.column_names else [family] * len(test))


def difference(kind, first, second):
    """stats.Estimate of the share of one arm minus another's, on the rows of a kind that both answered."""
    (one, phrasings), (other, _) = cells(kind, first), cells(kind, second)
    rows = min(one.shape[1], other.shape[1])
    return stats.gap(one[:, :rows], other[:, :rows], phrasings[:rows])


def _kind(kind, answers):
    """Arms with their shares and tokens; the best one, and the others' distance from it, on the same rows."""
    family, part = KINDS[kind]
    runs = answers[family]
    arms = {}
    for arm, each in runs.items():
        flags, phrasings = cells(kind, each)
        if flags.size:
            tokens = np.mean([one["tokens"][part or family] for one in each], axis=0)
            arms[arm] = {**_interval(stats.share(flags, phrasings)), "rows": flags.shape[1],
                         "prompt tokens": float(tokens[0]), "generated tokens": float(tokens[1])}  # fmt: skip
    compared = [arm for arm in arms if arm not in CONTROLS]
    best = max(compared, key=lambda arm: arms[arm]["mean"], default=None)
    behind = {arm: _interval(difference(kind, runs[best], runs[arm])) for arm in compared if arm != best}
    return {"arms": arms, "best": best, "ahead": behind}


def _interval(found):
    return {"mean": found.mean, "low": found.low, "high": found.high, "each": list(found.each)}


def _facts(answers, chosen):
    """The claim's numbers, on facts that training states, asked for in new phrasings."""
    runs = answers["handbook"]
    runs = {"retrieval": runs[chosen["retrieval"]], **runs}
    if not cells(FACTS, runs["retrieval"])[0].size:
        return {}  # a trial's rows are few
    found = difference(FACTS, runs["retrieval"], runs["finetuned"])
    wanted = ("retrieval", "finetuned", "both", *CONTROLS)
    return {"retrieval minus finetuned": _interval(found),
            **{arm: cells(FACTS, runs[arm])[0].mean(axis=1).tolist() for arm in wanted}}  # fmt: skip


def _small(kind, found, answers, chosen):
    """Finetuned minus the largest prompted model, on the rows of a kind."""
    family, _ = KINDS[kind]
    larger = found.get(f"larger_{family}")
    number = chosen["prompts"][family]["prompted"]
    prompted = [larger or found[f"test_{family}_{number}"]]
    return {"finetuned": cells(kind, answers[family]["finetuned"])[0].mean(axis=1).tolist(),
            "prompted": float(cells(kind, prompted)[0].mean()),
            "prompt": larger["prompt"] if larger else prompts_of(family)[number],
            "gap": _interval(difference(kind, answers[family]["finetuned"], prompted))}  # fmt: skip


def _shuffled(found, chosen, asked):
    rate = f"{chosen['rates']['handbook']:g}"
    runs = [found[f"shuffled_{rate}_{seed}"] for seed in asked["seeds"]]
    return {key: [one[key] for one in runs] for key in ("true", "taught")}


def _forgetting(found, answers):
    keys = ("general loss", "probe")
    trained = {LABELS[family]: runs["finetuned"] for family, runs in answers.items()}
    trained["handbook, both"] = answers["handbook"]["both"]
    return {"base": {key: [found["base"][key]] for key in keys},
            **{name: {key: [one[key] for one in runs] for key in keys} for name, runs in trained.items()}}


def _update(alone):
    """Seconds until a changed fact is answered: a whole training, or indexing; the text is written before."""
    indexing, training = alone["handbook"]["indexing"], alone["handbook"]["training seconds"]
    return {"indexing": indexing, "training": {arm: training[arm] for arm in ("finetuned", "both")}}
