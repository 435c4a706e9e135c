"""Generation: the same whatever the batch, in the order asked; and kept inside a JSON Schema."""

import json
import re

import pytest
import torch
from transformers import LogitsProcessor

from labkit import constrain
from labkit import evaluate as evaluation
from labkit.constrain import schema_constraint
from labkit.errors import LabkitError
from labkit.evaluate import generate, score
from labkit.tasks import tickets as t


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """In bf16 batched and single sums differ in the last bits, and greedy choices with them."""
    monkeypatch.setattr(evaluation.env, "precision", lambda on=None: "fp32")


PROMPTS = ["The tent has a hole and", "Hi", "12  apples", "Please cancel my order of two bags, and"]


def answers(model, tokenizer, prompts=PROMPTS, **options):
    return generate(model, tokenizer, prompts, **{"max_new_tokens": 6, "progress": False, **options})


def test_a_batch_gives_the_same_answers_as_one_row_at_a_time_in_the_same_order(base, tokenizer):
    batched = answers(base, tokenizer)
    assert batched == [answers(base, tokenizer, [prompt])[0] for prompt in PROMPTS]
    assert batched == answers(base, tokenizer, batch_size=2)
    assert batched[::-1] == answers(base, tokenizer, PROMPTS[::-1])
    assert len(set(batched)) == len(PROMPTS)


def test_padding_is_on_the_left_whatever_the_tokenizer_says(base, tokenizer, monkeypatch):
    expected = answers(base, tokenizer)
    monkeypatch.setattr(tokenizer, "padding_side", "right")
    assert answers(base, tokenizer) == expected
    assert tokenizer.padding_side == "right"  # and it is left as it was
    # The control: padded on the right, the model does answer something else.
    inputs = tokenizer(PROMPTS[:2], return_tensors="pt", padding=True)
    out = base.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(out[1], skip_special_tokens=True) != expected[1]


def test_messages_and_their_text_give_the_same_answer(base, tokenizer):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert answers(base, tokenizer, [messages, text]) == ["The capital of France is Paris"] * 2


LONG = "One tent, two tents, three tents. " * 10  # 110 tokens


def test_a_long_shared_beginning_is_computed_once_and_changes_no_answer(base, tokenizer, monkeypatch):
    prompts = [LONG + prompt for prompt in PROMPTS]
    seen = []
    watch = base.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    cached = answers(base, tokenizer, prompts)
    watch.remove()
    assert seen[0][0] == 1 and seen[0][1] >= evaluation.LONG_PREFIX  # once, alone
    assert seen[1][0] == len(prompts) and seen[1][1] < 20  # then only what differs
    monkeypatch.setattr(evaluation, "LONG_PREFIX", 10**6)
    assert cached == answers(base, tokenizer, prompts)
    # The control: a beginning that differs is not taken for shared, and does change the answers.
    assert answers(base, tokenizer, [f"{number} {prompt}" for number, prompt in enumerate(prompts)]) != cached


def test_equal_prompts_and_a_prompt_that_begins_another_get_their_own_answers(base, tokenizer):
    prompts = [LONG, LONG, LONG + "Four"]
    assert answers(base, tokenizer, prompts) == [answers(base, tokenizer, [prompt])[0] for prompt in prompts]


class Script(LogitsProcessor):
    """Make row n say n + 1 times "a", then its end token, then "b" for ever."""

    def __init__(self, tokenizer):
        self.a, self.b = (tokenizer(letter).input_ids[0] for letter in "ab")
        self.end, self.step = tokenizer.eos_token_id, 0

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, float("-inf"))
        for row in range(len(scores)):
            said = self.step - (row + 1)
            scores[row, self.a if said < 0 else self.end if said == 0 else self.b] = 0
        self.step += 1
        return scores


def test_a_row_ends_at_its_end_token_and_at_the_token_limit(tiny, tokenizer):
    prompts = ["x"] * 4
    said = answers(tiny(), tokenizer, prompts, constraint=lambda: Script(tokenizer))
    assert said == ["a", "aa", "aaa", "aaaa"]
    assert answers(tiny(), tokenizer, prompts, constraint=lambda: Script(tokenizer), max_new_tokens=2) == [
        "a", "aa", "aa", "aa"
    ]  # fmt: skip


def test_a_constraint_is_made_afresh_for_each_batch(tiny, tokenizer):
    options = {"constraint": lambda: Script(tokenizer), "batch_size": 2}
    assert answers(tiny(), tokenizer, ["x"] * 4, **options) == ["a", "aa", "a", "aa"]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(tiny, tokenizer, training):
    model = tiny().train(training)
    answers(model, tokenizer, ["x"])
    assert model.training is training


def test_nothing_to_answer_gives_nothing(tiny, tokenizer):
    assert answers(tiny(), tokenizer, []) == []


def test_score_generates_answers_to_the_rows_and_marks_them(tiny, tokenizer, tickets, monkeypatch):
    asked = []

    def oracle(model, tokenizer, prompts, **options):
        asked.append(prompts)
        return [row["completion"][0]["content"] for row in tickets[:4]]

    monkeypatch.setattr(evaluation, "generate", oracle)
    scores = score(None, tokenizer, tickets[:4])
    assert scores.exact == scores.valid == 1.0
    assert asked[0] == [row["prompt"] for row in tickets[:4]]
    score(None, tokenizer, tickets[:4], prompts=["p"] * 4)
    assert asked[1] == ["p"] * 4
    assert score(None, tokenizer, tickets[4:8]).exact < 1.0  # the control: answers to other rows


# ---- constrained decoding


@pytest.fixture(scope="module")
def constraint(tokenizer):
    return schema_constraint(tokenizer, t.SCHEMA)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_constrained_answer_of_a_random_model_fits_the_schema(tiny, tokenizer, constraint, seed):
    prompts = [f"{number} tents" for number in range(8)]
    said = answers(tiny(seed, num_hidden_layers=1), tokenizer, prompts,
                   constraint=constraint, max_new_tokens=160)  # fmt: skip
    # A number may have any count of digits, so a random model may still be writing one at the limit.
    whole = [text for text in said if not re.search(r'"quantity":\d+$', text)]
    assert whole
    for text in whole:
        assert t.valid(json.loads(text)), text


@pytest.mark.parametrize("schema, good, bad", [
    ({"type": "integer", "minimum": 1}, ["1", "10"], ["0", "-1", "01", "1.0"]),
    ({"type": "integer", "minimum": 0}, ["0", "10"], ["-1", "00"]),
    ({"type": "integer"}, ["-1", "0"], ["01"]),
    ({"type": "array", "uniqueItems": True, "maxItems": 2, "items": {"enum": ["a", "b", "c"]}},
     ["[]", '["a"]', '["c","a"]'], ['["a","a"]', '["a","b","c"]', '["d"]']),
])  # fmt: skip
def test_what_the_constraint_lets_through_is_what_the_schema_allows(schema, good, bad):
    whole = {"type": "object", "properties": {"x": schema}, "required": ["x"], "additionalProperties": False}
    regex = re.compile(constrain._regex(whole))
    assert all(regex.fullmatch(f'{{"x":{text}}}') for text in good)
    assert not any(regex.fullmatch(f'{{"x":{text}}}') for text in bad)


def test_a_rule_that_the_constraint_could_not_keep_is_refused(tokenizer):
    schema = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 7}}}
    with pytest.raises(LabkitError, match="not 7"):
        schema_constraint(tokenizer, schema)


def test_unconstrained_answers_of_a_random_model_do_not_fit(tiny, tokenizer):
    for text in answers(tiny(), tokenizer, ["1 tent", "2 tents"]):
        with pytest.raises(ValueError):
            json.loads(text)


def test_a_constraint_allows_only_tokens_of_the_schema_and_the_end_after_it(tokenizer):
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    processor = schema_constraint(tokenizer, schema)()
    ids = torch.tensor([[5], [5]])
    text = ["", ""]
    for _ in range(12):
        scores = torch.rand(2, 49152 + 64)  # some models have more outputs than their tokenizer has tokens
        scores = processor(ids, scores)
        assert torch.isinf(scores[:, 49152:]).all()
        chosen = scores.argmax(-1)
        text = [so_far + tokenizer.decode(token) for so_far, token in zip(text, chosen, strict=True)]
        ids = torch.cat([ids, chosen[:, None]], 1)
    for answer in text:
        body, end = answer[: answer.index("}") + 1], answer[answer.index("}") + 1 :]
        assert json.loads(body)["a"] in ("x", "y")
        assert set(end.split("<|im_end|>")) == {""}


def test_rows_of_another_family_are_not_scored_as_tickets(base, tokenizer):
    mine = [{"id": "my.csv, line 2", "prompt": "The capital of France is", "answer": "Paris"}]
    with pytest.raises(LabkitError, match="my.csv, line 2.*task='own_data'"):
        score(base, tokenizer, mine, progress=False)
    options = {"task": "own_data", "max_new_tokens": 1, "progress": False}
    assert score(base, tokenizer, mine, **options).exact == 1.0
    plain = [{"prompt": "The capital of France is", "completion": " Paris"}]
    assert score(base, tokenizer, plain, **options).exact == 1.0
