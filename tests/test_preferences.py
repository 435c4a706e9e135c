"""Preferences: losses equal to trl's, runs that leave the base alone, pairs, divergence and win rates."""

import copy
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset

from labkit import env, evaluate
from labkit.errors import LabkitError
from labkit.methods import lora
from labkit.methods import preferences as pr
from labkit.tasks import voice

WORDS = 40
SMALL = {"vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48}
PAIRS = [
    {"prompt": "a b", "chosen": " good", "rejected": " bad"},
    {"prompt": "c", "chosen": " good good", "rejected": " bad one"},
]
OFF = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True,
       "gradient_checkpointing": False}  # fmt: skip


@pytest.fixture
def sharp(tiny):
    """Random models whose predictions are far from even, and far from those of another seed."""

    def make(seed=0, **changes):
        model = tiny(seed, **changes)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(5 if weight.ndim == 2 else 1)
        return model.requires_grad_(True)

    return make


@pytest.fixture
def fp32(monkeypatch):
    monkeypatch.setattr(env, "precision", lambda on=None: "fp32")


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


def apart(left, right):
    """The largest difference between two results of `gradients`."""
    assert set(left[1]) == set(right[1])
    furthest = max((left[1][name] - right[1][name]).abs().max().item() for name in left[1])
    return max(abs(left[0] - right[0]), furthest)


def batch_of_pairs():
    """Two chosen answers, then two rejected, of unequal lengths, padded on the right as by trl."""
    torch.manual_seed(3)
    rows = [(4, 5), (3, 2), (4, 3), (3, 6)]  # tokens of prompt and answer
    ids, attention, answer = (torch.zeros(4, 10, dtype=torch.long) for _ in range(3))
    for number, (prompt, length) in enumerate(rows):
        ids[number, : prompt + length] = torch.randint(3, WORDS, (prompt + length,))
        attention[number, : prompt + length] = 1
        answer[number, prompt : prompt + length] = 1
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": answer}


def answer_logps(model, batch, mean=False):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return pr.sequence_logps(logits, batch["input_ids"], batch["completion_mask"], mean).chunk(2)


def ours(model, reference, loss, beta=0.5, mean=False, stop=True):
    batch = batch_of_pairs()
    theirs = answer_logps(reference, batch, mean)
    theirs = [one.detach() for one in theirs] if stop else theirs
    return gradients(model, loss(*answer_logps(model, batch, mean), *theirs, beta))


# ---- losses


def test_log_probabilities_are_sums_over_answer_tokens_alone(sharp):
    model, batch = sharp(**SMALL), batch_of_pairs()
    chosen, _ = answer_logps(model, batch)
    row = batch["input_ids"][0, :9]
    scores = model(row[None]).logits[0].log_softmax(-1)
    by_hand = sum(scores[at - 1, row[at]].item() for at in range(4, 9))
    assert chosen[0].item() == pytest.approx(by_hand, abs=1e-4)
    mean, _ = answer_logps(model, batch, mean=True)
    assert mean[0].item() == pytest.approx(by_hand / 5, abs=1e-4)


@pytest.mark.parametrize("kind, loss, mean", [
    ("sigmoid", pr.dpo_loss, False), ("ipo", pr.ipo_loss, True), ("sigmoid_norm", pr.dpo_loss, True),
])  # fmt: skip
def test_losses_on_pairs_and_their_gradients_are_those_of_trl(sharp, tokenizer, tmp_path, kind, loss, mean):
    from trl import DPOConfig, DPOTrainer

    model, reference = sharp(0, **SMALL), sharp(1, **SMALL)
    settings = DPOConfig(output_dir=str(tmp_path), beta=0.5, loss_type=[kind], **OFF)
    trainer = DPOTrainer(
        copy.deepcopy(model), copy.deepcopy(reference), settings, train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )  # fmt: skip
    theirs = gradients(trainer.model, trainer.compute_loss(trainer.model, batch_of_pairs()))
    assert apart(ours(model, reference, loss, mean=mean), theirs) < 1e-5

    def flipped(chosen, rejected, ref_chosen, ref_rejected, beta):
        return loss(rejected, chosen, ref_rejected, ref_chosen, beta)

    def alone(chosen, rejected, ref_chosen, ref_rejected, beta):
        return loss(chosen, rejected, 0, 0, beta)

    for wrong, averaged in ((loss, not mean), (flipped, mean), (alone, mean)):
        assert apart(ours(model, reference, wrong, mean=averaged), theirs) > 1e-2


def test_a_reference_that_is_not_held_still_teaches_nothing(sharp):
    model = sharp(**SMALL)
    still, moving = (ours(model, model, pr.dpo_loss, stop=stop) for stop in (True, False))
    assert still[0] == moving[0] == pytest.approx(np.log(2), abs=1e-6)
    size = [max(grad.abs().max().item() for grad in one[1].values()) for one in (still, moving)]
    assert size[0] > 0.01 and size[1] < 1e-6


def test_bradley_terry_is_the_loss_of_trls_reward_trainer(sharp, tokenizer, tmp_path):
    from trl import RewardConfig, RewardTrainer

    model = pr.scorer(sharp(**SMALL), tokenizer)
    torch.nn.init.normal_(model.score.weight)
    settings = RewardConfig(output_dir=str(tmp_path), **OFF)
    trainer = RewardTrainer(
        copy.deepcopy(model), args=settings, train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )  # fmt: skip
    batch = {name: values for name, values in batch_of_pairs().items() if name != "completion_mask"}
    theirs = gradients(trainer.model, trainer.compute_loss(trainer.model, dict(batch)))
    chosen, rejected = model(**batch).logits[:, 0].chunk(2)
    assert apart(gradients(model, pr.bradley_terry_loss(chosen, rejected)), theirs) < 1e-5
    chosen, rejected = model(**batch).logits[:, 0].chunk(2)
    assert apart(gradients(model, pr.bradley_terry_loss(rejected, chosen)), theirs) > 1e-2


def test_grpo_with_clipping_and_kl_is_the_loss_of_trl(sharp, tokenizer, tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    model, batch = sharp(**SMALL), batch_of_pairs()
    ids, attention = batch["input_ids"], batch["attention_mask"]
    ids, mask, start = ids, attention[:, 4:], 4  # the same prompt length for all: 4 tokens, then the answer
    advantages = torch.tensor([1.0, -0.5, -1.2, 0.7])
    torch.manual_seed(5)
    with torch.no_grad():
        now = pr.token_logps(model(ids, attention_mask=attention).logits, ids)[:, start - 1 :]
        old, reference = now + 0.4 * torch.randn_like(now), now + 0.5 * torch.randn_like(now)

    def by_formula(advantages=advantages, beta=0.3, epsilon=0.2):
        policy = pr.token_logps(model(ids, attention_mask=attention).logits, ids)[:, start - 1 :]
        return gradients(model, pr.grpo_loss(policy, old, reference, advantages, mask, beta, epsilon))

    settings = GRPOConfig(
        output_dir=str(tmp_path), epsilon=0.2, loss_type="grpo", use_bias_correction_kl=False,
        num_generations=2, per_device_train_batch_size=2, **OFF,
    )  # fmt: skip
    trainer = GRPOTrainer(
        copy.deepcopy(model), lambda completions, **_: [0.0] * len(completions), args=settings,
        train_dataset=Dataset.from_list(PAIRS), processing_class=tokenizer,
    )  # fmt: skip
    trainer.beta = 0.3  # set only now, so that it looks for no reference: its log-probabilities are given
    inputs = {
        "prompt_ids": ids[:, :start], "prompt_mask": attention[:, :start], "completion_ids": ids[:, start:],
        "completion_mask": mask, "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }  # fmt: skip
    theirs = gradients(trainer.model, trainer.compute_loss(trainer.model.eval(), inputs))
    assert apart(by_formula(), theirs) < 1e-5
    for changed in ({"epsilon": 100}, {"beta": 0}, {"advantages": -advantages}):
        assert apart(by_formula(**changed), theirs) > 1e-2, changed


def test_advantages_are_centred_scaled_and_zero_where_all_answers_are_alike():
    rewards = torch.tensor([[0.0, 1.0, 2.0, 5.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.1, 0.2, 0.5]])
    scaled, plain = pr.group_advantages(rewards), pr.group_advantages(rewards, scale=False)
    assert torch.allclose(scaled.mean(-1), torch.zeros(3), atol=1e-6) and not scaled[1].any()
    assert torch.allclose(scaled[0].std(), torch.tensor(1.0), atol=1e-3)
    assert torch.allclose(scaled[0], scaled[2], atol=1e-2)  # a tenth of the spread counts as much
    assert torch.allclose(plain[0], 10 * plain[2], atol=1e-5) and not torch.allclose(plain[0], plain[2])


def test_k3_is_never_negative_and_right_on_average():
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 20).log_softmax(-1)
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True)
    each = pr.k3(policy[drawn], reference[drawn])
    exact = (policy.exp() * (policy - reference)).sum().item()
    assert each.min() >= 0 and each.mean().item() == pytest.approx(exact, rel=0.03)
    assert pr.k3(reference[drawn], policy[drawn]).mean().item() != pytest.approx(exact, rel=0.1)
    assert not pr.k3(policy, policy).any()


# ---- sampling and divergence


PROMPTS = ["one", "a much longer prompt than the first", [{"role": "user", "content": "Hi"}]]


def test_nearly_no_temperature_samples_what_greedy_decoding_gives(fp32, sharp, tokenizer):
    model = sharp()
    options = {"max_new_tokens": 4, "progress": False}
    greedy = evaluate.generate(model, tokenizer, PROMPTS, **options)
    cold = pr.sample(model, tokenizer, PROMPTS, n=2, temperature=1e-4, batch=4, **options)
    assert [[one.text for one in some] for some in cold] == [[text] * 2 for text in greedy]
    warm = pr.sample(model, tokenizer, PROMPTS, n=2, temperature=3.0, **options)
    assert [[one.text for one in some] for some in warm] != [[text] * 2 for text in greedy]
    with pytest.raises(LabkitError, match="above 0"):
        pr.sample(model, tokenizer, PROMPTS, temperature=0.0)


def test_answers_of_adapters_are_sampled_with_these_merged(fp32, monkeypatch, tiny, tokenizer):
    policy, seen = moved(tiny()), []
    linear = policy.base_model.model.model.layers[0].mlp.up_proj
    linear.register_forward_hook(lambda layer, *_: seen.append(layer.merged))

    def texts():
        found = pr.sample(policy, tokenizer, PROMPTS, n=1, temperature=1e-4, max_new_tokens=4, progress=False)
        return [one.text for (one,) in found]

    answers = texts()
    assert set(seen) == {True} and not linear.merged
    assert answers == evaluate.generate(policy, tokenizer, PROMPTS, max_new_tokens=4, progress=False)
    with policy.disable_adapter():
        assert answers != texts()


def test_a_seed_decides_samples_and_leaves_the_callers_random_state(fp32, tiny, tokenizer):
    model = tiny().train()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (
        pr.sample(model, tokenizer, PROMPTS, n=2, max_new_tokens=3, seed=seed, progress=False)
        for seed in (1, 1, 2)
    )
    assert first == again != other and first[0][0] != first[0][1]
    assert torch.equal(torch.get_rng_state(), before) and model.training


def test_an_answer_ends_with_its_end_token(fp32, monkeypatch, tiny, tokenizer):
    model, end = tiny(), tokenizer.eos_token_id
    new = torch.tensor([[500, end, end, end], [500, 501, 502, 503]])
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: torch.cat([input_ids, new], dim=1))
    short, cut = pr.sample(model, tokenizer, ["x"], n=2, max_new_tokens=4, progress=False)[0]
    assert short.ids == [500, end] and short.ended and short.text == tokenizer.decode([500])
    assert cut.ids == [500, 501, 502, 503] and not cut.ended


def test_divergence_is_zero_from_itself_and_its_estimators_agree(fp32, tiny, tokenizer):
    policy, reference = tiny(0), tiny(1)
    with torch.no_grad():
        for model in (policy, reference):
            model.get_input_embeddings().weight[2000:].mul_(0.1)  # a peaked distribution over fewer words
            model.model.norm.weight.mul_(8)
    prompts = PROMPTS[:2]  # short ones
    answers = pr.sample(policy, tokenizer, prompts, n=200, max_new_tokens=3, progress=False)
    found = pr.divergence(policy, tokenizer, prompts, answers, reference=reference, batch=50, progress=False)
    assert min(found.exact) > 0 and min(found.sampled) < 0  # which is why the exact one is reported
    exact, sampled = np.array(found.exact), np.array(found.sampled)
    error = sampled.std() / len(sampled) ** 0.5
    assert abs(exact.mean() - sampled.mean()) < 4 * error < exact.mean()
    assert exact.std() < sampled.std() / 2 and found.mean == pytest.approx(exact.mean())
    itself = pr.divergence(
        policy, tokenizer, prompts[:1], [answers[0][:9]], reference=copy.deepcopy(policy), progress=False
    )
    assert itself.mean == pytest.approx(0, abs=1e-6) and max(map(abs, itself.sampled)) < 1e-5


@torch.no_grad()
def test_the_divergence_of_one_token_answers_is_that_of_the_next_token(fp32, tiny, tokenizer):
    policy, reference = tiny(0), tiny(1)
    answers = [[pr.Answer([11], "", False), pr.Answer([2000], "", False)], [pr.Answer([30], "", False)]]
    found = pr.divergence(policy, tokenizer, PROMPTS[:2], answers, reference=reference, progress=False)
    for number, prompt in enumerate(PROMPTS[:2]):
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids])
        p, q = (model(ids).logits[0, -1].log_softmax(-1) for model in (policy, reference))
        by_hand = (p.exp() * (p - q)).sum().item()
        assert found.exact[2 * number] == pytest.approx(by_hand, abs=1e-5)
    assert found.exact[0] == found.exact[1] != found.exact[2] and found.tokens == [1, 1, 1]
    with pytest.raises(LabkitError, match="reference="):
        pr.divergence(policy, tokenizer, PROMPTS[:2], answers)


# ---- pairs


ROWS = [{"prompt": [{"role": "user", "content": name}], "id": f"voice-train-{name}", "phrasing": name,
         "message": name} for name in "xyz"]  # fmt: skip


def letters(row, text):
    """A judge: a text keeps the rule of each letter that it holds."""
    return {letter: letter in text for letter in "abc"}


def test_pairs_are_the_best_against_the_worst_and_ties_give_none():
    answers = [["ab", "a", "abc", "c", "a"], ["a", "b", "c"], ["b", "ab", "bc"]]
    pairs = pr.on_policy(ROWS, answers, judge=letters).to_list()
    assert [pair["message"] for pair in pairs] == ["x", "z"]
    first, second = ({side: pair[side][0]["content"] for side in ("chosen", "rejected")} for pair in pairs)
    assert first["chosen"] == "abc" and first["rejected"] in ("a", "c")
    assert second["chosen"] in ("ab", "bc") and second["rejected"] == "b"
    assert pairs[0]["chosen_kept"] == 1 and pairs[0]["rejected_kept"] == pytest.approx(1 / 3)
    assert set(pairs[0]["breaks"].split()) == set("abc") - set(first["rejected"])
    chosen = {
        tuple(pair["chosen"][0]["content"] for pair in pr.on_policy(ROWS, answers, judge=letters, seed=seed))
        for seed in range(8)
    }
    assert chosen == {("abc", "ab"), ("abc", "bc")}  # the seed chooses among equals
    with pytest.raises(LabkitError, match="no pair"):
        pr.on_policy(ROWS[:1], [["a", "b"]], judge=letters)


def test_an_answer_that_was_cut_off_is_on_neither_side_of_a_pair():
    cut, good, bad = pr.Answer([1], "abc", False), pr.Answer([1, 2], "ab", True), pr.Answer([1, 2], "a", True)
    short = pr.Answer([1], "", False)
    (pair,) = pr.on_policy(ROWS[:2], [[cut, good, bad, short], [cut, bad, short]], judge=letters).to_list()
    assert [pair[side][0]["content"] for side in ("chosen", "rejected")] == ["ab", "a"]
    with pytest.raises(LabkitError, match="that ended"):
        pr.on_policy(ROWS[:1], [[cut, bad, short]], judge=letters)


@pytest.fixture(scope="module")
def ready():
    """The first ready-made pairs."""
    return voice.load_pairs()["train"].select(range(400))


def test_pairs_by_the_rules_have_the_columns_of_the_ready_made_ones_and_no_held_out_rule(ready):
    rows = [{"prompt": voice.render(row["message"]), **row} for row in voice.read("test")[:6]]
    answers = [[row["reply"], row["draft"]] for row in rows]
    pairs = pr.on_policy(rows, answers)
    assert set(ready.column_names) < set(pairs.column_names) and pairs[0]["source"] == "on-policy"
    assert all(pair["chosen"][0]["content"] in {row["reply"] for row in rows} for pair in pairs)
    broken = {rule for pair in pairs for rule in pair["breaks"].split()}
    assert broken and broken <= set(voice.PAIR_RULES)


def test_balanced_pairs_say_nothing_by_length_where_unbalanced_ones_do(ready):
    balanced = pr.length_balanced(ready)
    before, after = (np.array(pr.length_gaps(some)) for some in (ready, balanced))
    assert (before > 0).mean() > 0.6 and (after > 0).mean() == 0.5 and len(after) > 100
    assert sorted(after) == sorted(-after) and sorted(before) != sorted(-before)
    order, names = list(ready["id"]), list(balanced["id"])
    numbers = [order.index(name) for name in names]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    assert list(pr.length_balanced(ready, seed=1)["id"]) != names
    one_sided = ready.select(np.flatnonzero(before > 0)[:5])
    with pytest.raises(LabkitError, match="counterpart"):
        pr.length_balanced(one_sided)


# ---- win rates


def verdicts_of(kind, rows=400, seed=0):
    """Verdicts of a judge that sees length, quality, or both, on answers longer in two of three rows."""
    draw = np.random.default_rng(seed)
    gaps = draw.normal(4, 10, rows).round()
    wanted = {"length": 0.4 * gaps, "quality": np.full(rows, 0.8), "both": 0.8 + 0.1 * gaps}[kind]
    return (draw.random(rows) < 1 / (1 + np.exp(-wanted))).astype(float), gaps


CLUSTERS = [number // 4 for number in range(400)]


def test_a_judge_of_length_alone_gives_half_where_the_plain_rate_is_higher():
    for verdicts, gaps in (verdicts_of("length"), verdicts_of("length", seed=1)):
        plain, controlled = pr.win_rate(verdicts, CLUSTERS), pr.length_controlled(verdicts, gaps, CLUSTERS)
        assert plain.low > 0.55 and plain.mean > 0.6
        assert controlled.low < 0.5 < controlled.high and abs(controlled.mean - 0.5) < 0.1
    _, gaps = verdicts_of("length")
    always = (gaps > 0) + 0.5 * (gaps == 0)  # length decides without exception: the slope has no bound
    assert pr.length_controlled(always, gaps, CLUSTERS).mean == pytest.approx(0.5, abs=0.1)
    assert always.mean() > 0.62


def test_quality_is_left_when_length_is_taken_out():
    truth = 1 / (1 + np.exp(-0.8))
    for kind in ("quality", "both"):
        verdicts, gaps = verdicts_of(kind)
        found = pr.length_controlled(verdicts, gaps, CLUSTERS)
        assert found.low > 0.5 and found.low < truth < found.high
    flipped = pr.length_controlled(1 - verdicts, -gaps, CLUSTERS)
    assert flipped.mean == pytest.approx(1 - found.mean, abs=1e-9)


def test_the_interval_is_that_of_drawing_phrasings_anew_and_fitting_again():
    verdicts, gaps = verdicts_of("both")
    found = pr.length_controlled(verdicts, gaps, CLUSTERS)
    draw, members = np.random.default_rng(1), np.array(CLUSTERS)
    refitted = []
    for _ in range(200):
        rows = np.concatenate([np.flatnonzero(members == one) for one in draw.integers(100, size=100)])
        refitted.append(pr.controlled_rows(verdicts[rows], gaps[rows]).mean())
    width = np.subtract(*np.quantile(refitted, [0.975, 0.025]))
    assert found.high - found.low == pytest.approx(width, rel=0.25)


def test_ties_count_half_and_several_seeds_widen_the_interval():
    assert pr.win_rate([0.5] * 400, CLUSTERS).mean == 0.5
    some = [verdicts_of("both", seed=seed) for seed in range(3)]
    verdicts, gaps = (np.stack(one) for one in zip(*some, strict=True))
    found = pr.length_controlled(verdicts, gaps, CLUSTERS)
    assert len(found.each) == 3 and found.seeds_reach > 0
    with pytest.raises(LabkitError, match="one gap a verdict"):
        pr.length_controlled(verdicts, gaps[0], CLUSTERS)


def test_answers_are_compared_by_held_out_rules_and_their_words():
    rows = voice.read("test")[:40]
    drafts, replies = ([row[column] for row in rows] for column in ("draft", "reply"))
    verdicts, gaps = pr.compare(rows, [pr.Answer([], text, True) for text in replies], drafts)
    assert set(verdicts) == {0.5, 1.0} and np.mean(verdicts) > 0.7  # gold replies keep every rule
    swapped, opposite = pr.compare(rows, drafts, replies)
    assert [1 - one for one in swapped] == verdicts and [-one for one in opposite] == gaps != opposite


# ---- reward models


def test_calibration_error_is_small_for_honest_margins_and_large_for_boasting_ones():
    draw = np.random.default_rng(0)
    sizes = np.abs(draw.normal(0, 1.5, 20_000))
    margins = np.where(draw.random(len(sizes)) < 1 / (1 + np.exp(-sizes)), sizes, -sizes)
    assert pr.calibration_error(margins, 0 * margins) < 0.02
    assert pr.calibration_error(5 * margins, 0 * margins) > 0.15
    assert pr.calibration_error([9.0] * 4, [0.0] * 4) < 1e-3  # sure, and always right
    assert pr.calibration_error([0.0, 0.0], [9.0, 9.0]) == pytest.approx(1, abs=1e-3)
    assert pr.pair_accuracy([1, 0, 2, 3], [0, 1, 2, 0]) == 0.625
    assert pr.length_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert pr.length_correlation([1, 1, 1], [10, 20, 30]) == 0


def test_a_reward_model_learns_planted_pairs_and_leaves_the_language_model(fp32, tiny, tokenizer):
    model = tiny()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    good, bad = ([{"role": "assistant", "content": text}] for text in ("good", "bad"))
    prompts = [[{"role": "user", "content": word}] for word in "abcdefgh"]
    pairs = [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt in prompts]
    scorer, history = pr.reward_model(model, pairs, tokenizer, steps=8, batch=4, lr=1e-2, progress=False)
    good, bad = (
        pr.rewards(scorer, tokenizer, prompts, [text] * 8, batch=3, progress=False)
        for text in ("good", "bad")
    )
    assert history[0]["loss"] == pytest.approx(np.log(2), abs=1e-5) and len(history) == 8
    assert history[-1]["loss"] < 0.5 and pr.pair_accuracy(good, bad) == 1
    scorer.unload()
    assert_as_before(model, before)


def assert_as_before(model, before):
    """The weights of `model` are those of `before`, bit for bit, and nothing else is left on it."""
    assert {name for name, _ in model.named_parameters()} == set(before)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert "forward" not in vars(model)


# ---- runs


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "sigmoid_norm"])
def test_dpo_raises_the_margin_and_leaves_the_base_bit_for_bit(fp32, tiny, tokenizer, loss):
    model = tiny()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = model(ids).logits
    policy, history = pr.dpo(
        model, PAIRS, tokenizer, loss=loss, beta=1.0, steps=6, batch=2, lr=1e-2, rank=4, progress=False
    )
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[0]["margin"] == 0 and history[-1]["margin"] > 0.1
    moved = history[-1]["chosen_reward"] - history[-1]["rejected_reward"]
    assert moved == pytest.approx(history[-1]["margin"], abs=1e-4) and history[0]["chosen_reward"] == 0
    assert history[-1]["loss"] < history[0]["loss"]
    assert {"accuracy", "chosen_logp", "rejected_logp"} <= set(history[0]) and not policy.training
    with torch.no_grad(), policy.disable_adapter():
        assert torch.equal(policy(ids).logits, logits)  # its own reference
    with torch.no_grad():
        assert not torch.allclose(policy(ids).logits, logits, atol=1e-3)
    with pytest.raises(LabkitError, match="adapters already"):
        pr.dpo(model, PAIRS, tokenizer)
    policy.unload()
    assert_as_before(model, before)


def test_a_seed_decides_a_run_and_a_failure_takes_the_adapters_off(fp32, monkeypatch, tiny, tokenizer):
    options = {"steps": 2, "batch": 2, "lr": 1e-2, "rank": 2, "warmup": 0, "progress": False}
    first, again, other = (
        [entry["loss"] for entry in pr.dpo(tiny(), PAIRS, tokenizer, seed=seed, **options)[1]]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    model = tiny()
    before = {name: weight.clone() for name, weight in model.named_parameters()}

    def fails(row, text):
        raise ZeroDivisionError

    options = {"batch": 1, "group": 2, "max_new_tokens": 1, "progress": False}
    with pytest.raises(ZeroDivisionError):
        pr.grpo(model, [{"prompt": "a"}], tokenizer, fails, **options)
    assert_as_before(model, before)


def test_a_run_that_stops_early_follows_the_schedule_of_the_whole(fp32, tiny, tokenizer):
    options = {"batch": 1, "group": 2, "max_new_tokens": 1, "warmup": 0, "lr": 1e-3, "progress": False}
    whole, early, short = (
        [entry["lr"] for entry in pr.grpo(tiny(num_hidden_layers=1), [{"prompt": "a"}], tokenizer,
                                          lambda row, text: len(text), **sizes, **options)[1]]
        for sizes in ({"steps": 4}, {"steps": 4, "stop": 2}, {"steps": 2})
    )  # fmt: skip
    assert early == whole[:2] != short and len(whole) == 4


def test_what_cannot_be_trained_on_is_named(tiny, tokenizer):
    with pytest.raises(LabkitError, match="sigmoid_norm"):
        pr.dpo(tiny(), PAIRS, tokenizer, loss="simpo")
    with pytest.raises(LabkitError, match="row 1 has no rejected"):
        pr.dpo(tiny(), [PAIRS[0], {"prompt": "a", "chosen": "b"}], tokenizer)
    with pytest.raises(LabkitError, match="no rows"):
        pr.reward_model(tiny(), [], tokenizer)
    with pytest.raises(LabkitError, match="there are 1"):
        pr.grpo(tiny(), [{"prompt": "a"}], tokenizer, len, batch=2)
    with pytest.raises(LabkitError, match="2 answers or more"):
        pr.grpo(tiny(), [{"prompt": "a"}], tokenizer, len, batch=1, group=1)
    with pytest.raises(LabkitError, match="does not divide"):
        pr.dpo(tiny(), PAIRS, tokenizer, batch=3, accumulate=2)
    with pytest.raises(LabkitError, match="adapters already"):
        pr.dpo(lora.adapted(tiny(), 2), PAIRS, tokenizer)


def moved(model, seed=1):
    """`model` with adapters that have learned something: their updates are not 0."""
    policy = lora.adapted(model, 4).eval()
    torch.manual_seed(seed)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return policy


@torch.no_grad()
def test_merged_adapters_give_the_tokens_of_unmerged_ones_and_the_base_returns_bit_for_bit(
    fp32, tiny, tokenizer
):
    policy = moved(tiny())
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    linear = policy.base_model.model.model.layers[0].mlp.up_proj
    ids = tokenizer(["one two three", "four five six"], return_tensors="pt").input_ids
    options = {"max_new_tokens": 12, "do_sample": False}
    apart = policy.generate(input_ids=ids, **options)
    with pr.merged(policy):
        assert linear.merged and not torch.equal(linear.base_layer.weight, before[
            "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight"])  # fmt: skip
        assert torch.equal(policy.generate(input_ids=ids, **options), apart)
    assert not linear.merged and all(torch.equal(weight, before[name])
                                     for name, weight in policy.named_parameters())  # fmt: skip
    with policy.disable_adapter():
        assert not torch.equal(policy.generate(input_ids=ids, **options), apart)
    with pytest.raises(ZeroDivisionError), pr.merged(policy):
        raise ZeroDivisionError
    assert not linear.merged and all(torch.equal(weight, before[name])
                                     for name, weight in policy.named_parameters())  # fmt: skip
    with policy.disable_adapter(), pr.merged(policy):
        assert not linear.merged and not torch.equal(policy.generate(input_ids=ids, **options), apart)
    with pr.merged(policy), pr.merged(policy):
        assert torch.equal(policy.generate(input_ids=ids, **options), apart)
    assert not linear.merged
    policy.merge_adapter()
    policy.unmerge_adapter()  # peft's own way back: this is what the copies are for
    assert not all(torch.equal(weight, before[name]) for name, weight in policy.named_parameters())


@pytest.mark.parametrize("precision, kind", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_grpo_samples_merged_in_the_precision_of_the_hardware_and_trains_apart(
    monkeypatch, tiny, tokenizer, precision, kind
):
    from peft.tuners.lora import Linear

    monkeypatch.setattr(env, "precision", lambda on=None: precision)
    seen, steps = [], []
    forward = Linear.forward

    def spy(self, x, *args, **options):
        seen.append((self.merged, self.base_layer.weight.dtype, x.shape[1] == 1))
        return forward(self, x, *args, **options)

    monkeypatch.setattr(Linear, "forward", spy)
    model = tiny(num_hidden_layers=1)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    policy, _ = pr.grpo(
        model, [{"prompt": "a b c"}, {"prompt": "d e"}], tokenizer, lambda row, text: len(text), batch=2,
        group=2, steps=2, max_new_tokens=3, after_step=steps.append, progress=False,
    )  # fmt: skip
    merged = {one for one in seen if one[0]}
    assert merged == {(True, kind, False), (True, kind, True)}  # the prompt, then token by token
    apart = {one for one in seen if not one[0]}
    assert apart and not any(single for _, _, single in apart)  # no token is sampled from unmerged ones
    assert {dtype for _, dtype, _ in apart} == {torch.float32} and steps == [1, 2]
    assert "generate" not in vars(policy)
    policy.unload()
    assert_as_before(model, before)


@pytest.mark.parametrize("scale", [True, False])
def test_grpo_hands_trl_our_advantages_and_raises_the_reward(fp32, monkeypatch, tiny, tokenizer, scale):
    from trl import GRPOTrainer

    seen, judged = [], []
    inner = GRPOTrainer._compute_loss

    def spy(self, model, inputs):
        seen.append((inputs["advantages"].clone(), inputs["completion_mask"].shape))
        return inner(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", spy)
    rows = [{"prompt": name, "likes": str.islower} for name in ("a", "b", "c")]

    def reward(row, text):
        judged.append(float(row["likes"](text.strip()[:1] or "X")))
        return judged[-1]

    model = tiny()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    policy, history = pr.grpo(
        model, rows, tokenizer, reward, batch=2, group=16, steps=8, lr=3e-2, max_new_tokens=1, scale=scale,
        beta=0.01, progress=False,
    )  # fmt: skip
    handed = seen[0][0].sort().values
    right, wrong = (
        pr.group_advantages(torch.tensor(judged[:32]).view(2, 16), way).flatten().sort().values
        for way in (scale, not scale)
    )
    assert torch.allclose(handed, right, atol=1e-4) and not torch.allclose(handed, wrong, atol=0.1)
    assert len(judged) == 32 * 8 and seen[0][1] == (32, 1)
    start, end = (np.mean([entry["reward"] for entry in some]) for some in (history[:2], history[-2:]))
    assert end > start + 0.1 and history[0]["kl"] == 0 < history[-1]["kl"]
    policy.unload()
    assert_as_before(model, before)


def test_importing_the_package_does_not_load_torch(labkit_command):
    script = "import sys, labkit.methods.preferences; sys.exit('torch' in sys.modules)"
    assert labkit_command("-c", script, script=script).returncode == 0
    assert "torch" in sys.modules  # here it is: the check can fail
