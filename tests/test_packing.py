"""Rows to tokens to packed batches: what is learned from, and what each token may see."""

import itertools
from collections import Counter

import pytest
import torch

from labkit.errors import LabkitError
from labkit.train.loss import headless, weighted_nll
from labkit.train.packing import Batch, collate, in_order, plan, room_for
from labkit.train.rows import Encoded, encode, encode_all

CHAT = {
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "completion": [{"role": "assistant", "content": "Hello 12"}],
}


# ---- rows


def test_a_chat_row_is_the_template_and_only_its_answer_counts(tokenizer):
    row = encode(CHAT, tokenizer)
    text = tokenizer.apply_chat_template([*CHAT["prompt"], *CHAT["completion"]], tokenize=False)
    assert tokenizer.decode(row.ids) == text
    learned = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight]
    assert tokenizer.decode(learned) == "Hello 12<|im_end|>\n"
    assert set(row.weights) == {0.0, 1.0}


def test_a_string_row_ends_with_the_end_token_which_is_learned(tokenizer):
    row = encode({"prompt": "2+2=", "completion": " 4"}, tokenizer)
    assert tokenizer.decode(row.ids) == "2+2= 4<|im_end|>"
    assert row.ids[-1] == tokenizer.eos_token_id and row.weights[-1] == 1.0


def test_an_end_token_that_is_there_already_is_not_doubled(tokenizer):
    row = encode({"prompt": "2+2=", "completion": " 4<|im_end|>"}, tokenizer)
    assert row.ids.count(tokenizer.eos_token_id) == 1


def test_a_merge_over_the_border_counts_as_answer(tokenizer):
    prompt, completion = "The answ", "er is yes"
    alone, whole = tokenizer(prompt).input_ids, tokenizer(prompt + completion).input_ids
    assert whole[: len(alone)] != alone  # otherwise this text shows nothing
    row = encode({"prompt": prompt, "completion": completion}, tokenizer)
    learned = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight]
    assert tokenizer.decode(learned) == " answer is yes<|im_end|>"


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_prompt_tokens_weigh_what_is_asked(tokenizer, share):
    row = encode(CHAT, tokenizer, share)
    prompt = len(tokenizer.apply_chat_template(CHAT["prompt"], add_generation_prompt=True, return_dict=False))
    assert row.weights == [share] * prompt + [1.0] * (len(row) - prompt)


@pytest.mark.parametrize("row, words", [
    ({"completion": "x"}, "no prompt"),
    ({"prompt": "x"}, "no completion"),
    ({}, "no prompt and no completion"),
    ({"prompt": "x", "completion": ""}, "no completion"),
    ({"prompt": [], "completion": []}, "no prompt and no completion"),
    ({"prompt": CHAT["prompt"], "completion": [{"role": "assistant", "content": ""}]}, "no answer tokens"),
    ({"prompt": "x", "completion": CHAT["completion"]}, "mixes a string and messages"),
    ({"prompt": "x " * 100, "completion": "y"}, "more than the packed row length of 64"),
])  # fmt: skip
def test_a_row_that_cannot_be_trained_on_is_named_by_its_number(tokenizer, row, words):
    good = {"prompt": "x", "completion": "y"}
    with pytest.raises(LabkitError, match=f"row 2 .*{words}"):
        encode_all([good, good, row], tokenizer, 64)
    assert len(encode_all([good, good], tokenizer, 64)) == 2


def test_the_length_that_an_error_proposes_is_enough(tokenizer):
    row = {"prompt": "x " * 100, "completion": "y"}
    with pytest.raises(LabkitError) as caught:
        encode_all([row], tokenizer, 64)
    proposed = int(str(caught.value).split("length=")[1].split()[0])
    assert len(encode_all([row], tokenizer, proposed)) == 1


def test_no_rows_are_refused(tokenizer):
    with pytest.raises(LabkitError, match="no rows"):
        encode_all([], tokenizer, 64)


# ---- the plan


def steps_of(lengths, batch, length, seed=0, pack=True, count=50):
    return list(itertools.islice(plan(lengths, batch, length, seed, pack), count))


@pytest.mark.parametrize("pack", [True, False])
def test_no_packed_row_is_over_full_and_none_is_empty(pack):
    lengths = [5 + 7 * n % 40 for n in range(60)]
    for bins in steps_of(lengths, 3, 64, pack=pack):
        assert len(bins) == 3
        assert all(0 < sum(lengths[number] for number in numbers) <= 64 for numbers in bins)
        assert pack or all(len(numbers) == 1 for numbers in bins)


def test_without_packing_an_epoch_holds_every_row_once():
    drawn = [number for bins in steps_of([9] * 24, 4, 64, pack=False, count=12) for (number,) in bins]
    assert sorted(drawn[:24]) == sorted(drawn[24:]) == list(range(24))
    assert drawn[:24] != drawn[24:]  # a fresh shuffle


def test_packing_covers_every_row_before_any_comes_often():
    lengths = [5 + 7 * n % 40 for n in range(200)]
    counts, seen = Counter(), 0
    for bins in steps_of(lengths, 4, 64, count=200):
        for numbers in bins:
            counts.update(numbers)
            seen += len(numbers)
        # Looking ahead may draw a row of the next epoch early, but never two epochs ahead.
        assert max(counts.values()) - min(counts[n] for n in range(200)) <= 2
    assert seen > 5 * 200
    assert min(counts.values()) >= seen // 200 - 1


def test_packing_fills_most_of_a_row():
    lengths = [5 + 7 * n % 40 for n in range(200)]
    used = [sum(lengths[n] for n in numbers) for bins in steps_of(lengths, 4, 256) for numbers in bins]
    assert sum(used) / len(used) > 0.97 * 256


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert steps_of([9] * 30, 2, 64, seed=1) == steps_of([9] * 30, 2, 64, seed=1)
    assert steps_of([9] * 30, 2, 64, seed=1) != steps_of([9] * 30, 2, 64, seed=2)


# ---- batches


@pytest.fixture
def encoded(tokenizer, tickets):
    return encode_all(tickets[:6], tokenizer, 512, 0.1)


def test_a_batch_holds_shifted_targets_and_positions_from_zero(encoded):
    batch = collate(encoded, [[0, 1], [2]], 512)
    first, second = len(encoded[0]), len(encoded[1])
    assert batch.ids.shape == (2, 512) and batch.rows == [0, 1, 2]
    assert batch.ids[0, :first].tolist() == encoded[0].ids
    assert batch.targets[0, : first - 1].tolist() == encoded[0].ids[1:]
    assert batch.weights[0, : first - 1].tolist() == pytest.approx(encoded[0].weights[1:])
    assert batch.weights[0, first - 1] == 0  # the last token of a row does not predict the next row
    assert batch.positions[0, :first].tolist() == list(range(first))
    assert batch.positions[0, first : first + second].tolist() == list(range(second))
    assert batch.tokens == first + second + len(encoded[2])
    assert batch.weights[0, first + second :].sum() == 0


def test_boundaries_say_where_a_row_or_padding_begins(encoded):
    batch = collate(encoded, [[0, 1], [2]], 512)
    first, second, third = (len(encoded[number]) for number in range(3))
    assert batch.boundaries.tolist() == [0, first, first + second, 512, 512 + third, 1024]
    full = collate(encoded, [[2]], None)
    assert full.boundaries.tolist() == [0, third]  # no padding, no boundary for it


def test_with_room_a_batch_has_fixed_sizes_and_the_same_loss(tiny, encoded):
    model, bins = tiny(), [[0, 1, 2], [3, 4]]
    room = room_for(encoded, [bins, [[5], [0]]])
    small, roomy = collate(encoded, bins, 512), collate(encoded, bins, 512, room=room)
    assert (len(roomy.counted), len(roomy.boundaries)) == room
    assert len(small.counted) < room[0] and len(small.boundaries) < room[1]
    assert roomy.boundaries[-1] == 1024 and roomy.boundaries.diff().min() == 0
    losses = []
    with torch.no_grad(), headless(model) as head:
        for batch in (small, roomy):
            hidden = logits_of(model, batch, batch.mask())
            losses.append(weighted_nll(hidden, head, batch.targets, batch.weights, batch.counted).item())
        fewer = weighted_nll(hidden, head, batch.targets, batch.weights, roomy.counted[9:]).item()
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert fewer != pytest.approx(losses[0], rel=1e-5)  # the control: every position that counts is needed


def test_room_is_enough_for_every_step_of_a_plan(encoded):
    lengths = [len(row) for row in encoded]
    bins = steps_of(lengths, 2, 512, count=20)
    room = room_for(encoded, bins)
    for some in bins:
        exact = collate(encoded, some, 512)
        assert len(exact.counted) <= room[0] and len(exact.boundaries) <= room[1]
    with pytest.raises(ValueError, match="negative"):
        collate(encoded, bins[0], 512, room=(1, room[1]))


def test_in_order_every_row_comes_once_and_the_last_batch_is_filled_up():
    lengths = [30, 40, 20, 64, 10]
    assert list(in_order(lengths, 2, 64)) == [[[0], [1, 2]], [[3], [4]]]
    assert list(in_order(lengths[:4], 2, 64)) == [[[0], [1, 2]], [[3], []]]
    assert list(in_order(lengths, 2, None)) == [[[0], [1]], [[2], [3]], [[4]]]


def test_the_mask_shows_earlier_tokens_of_the_same_row_and_nothing_else():
    documents = torch.tensor([[1, 1, 2, 2, 0]])
    blank = torch.zeros(1, 5)
    mask = Batch(blank.long(), blank, documents, *[blank] * 4, rows=[]).mask()[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


@torch.no_grad()
def logits_of(model, batch, mask):
    inputs = {"input_ids": batch.ids, "position_ids": batch.positions, "attention_mask": mask}
    return model(**inputs, use_cache=False).logits


def test_packed_rows_see_nothing_of_each_other(tiny, encoded):
    model = tiny()
    batch = collate(encoded, [[0, 1, 2], [3, 4]], 512)
    packed = logits_of(model, batch, batch.mask())
    causal = torch.ones(1, 1, 512, 512, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    leaky = logits_of(model, batch, causal)
    for slot, numbers in enumerate([[0, 1, 2], [3, 4]]):
        start = 0
        for number in numbers:
            ids = torch.tensor([encoded[number].ids])
            with torch.no_grad():
                alone = model(input_ids=ids).logits[0]
            end = start + len(encoded[number])
            assert torch.allclose(packed[slot, start:end], alone, atol=1e-5)
            if start:  # the negative control: with a plain causal mask a later row sees the earlier ones
                assert not torch.allclose(leaky[slot, start:end], alone, atol=1e-3)
            start = end


def test_the_loss_of_a_packed_batch_is_the_sum_over_its_rows(tiny, encoded):
    model = tiny()
    batch = collate(encoded, [[0, 1, 2], [3, 4]], 512)
    with torch.no_grad(), headless(model) as head:
        hidden = logits_of(model, batch, batch.mask())
        whole = weighted_nll(hidden, head, batch.targets, batch.weights)
    alone = 0.0
    for number in range(5):
        row = encoded[number]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0].float()
        for position, (target, weight) in enumerate(zip(row.ids[1:], row.weights[1:], strict=True)):
            alone += weight * (logits[position].logsumexp(0) - logits[position, target]).item()
    assert whole.item() == pytest.approx(alone, rel=1e-5)


def test_rows_of_one_batch_padded_to_the_longest_are_as_packed(tiny, encoded):
    model = tiny()
    with torch.no_grad(), headless(model) as head:
        losses = []
        for batch in (collate(encoded, [[0], [1]], None), collate(encoded, [[0, 1]], 512)):
            hidden = logits_of(model, batch, batch.mask())
            losses.append(weighted_nll(hidden, head, batch.targets, batch.weights).item())
    assert batch.ids.shape == (1, 512)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# ---- the loss


class Spy(torch.nn.Linear):
    """A head that notes how many positions it is given at a time."""

    def __init__(self):
        super().__init__(16, 50, bias=False)
        self.sizes = []

    def forward(self, hidden):
        self.sizes.append(hidden.shape[:-1].numel())
        return super().forward(hidden)


def loss_and_gradients(chunk, weights):
    torch.manual_seed(0)
    head, hidden = Spy(), torch.randn(2, 40, 16, requires_grad=True)
    targets = torch.randint(50, (2, 40))
    loss = weighted_nll(hidden, head, targets, weights, chunk=chunk)
    loss.backward()
    return loss.item(), hidden.grad, head.weight.grad, head.sizes


def test_the_loss_in_chunks_equals_the_loss_at_once_in_value_and_gradients():
    weights = torch.rand(2, 40).round(decimals=1)
    whole, chunked = (loss_and_gradients(chunk, weights) for chunk in (1000, 7))
    assert chunked[0] == pytest.approx(whole[0], rel=1e-6)
    assert torch.allclose(chunked[1], whole[1], atol=1e-6)
    assert torch.allclose(chunked[2], whole[2], atol=1e-5)
    assert max(chunked[3]) == 7 and max(whole[3]) > 7


def test_positions_that_do_not_count_never_reach_the_head():
    weights = torch.zeros(2, 40)
    weights[0, 3:8] = 1
    _, gradient, _, sizes = loss_and_gradients(1000, weights)
    assert sizes == [5]
    assert gradient[1].abs().sum() == 0 and gradient[0, 3:8].abs().sum() > 0


def test_encoded_rows_know_their_length():
    assert len(Encoded([1, 2, 3], [0.0, 1.0, 1.0])) == 3


def test_the_head_is_taken_off_and_put_back(tiny):
    model, ids = tiny(), torch.tensor([[5, 6, 7]])
    with pytest.raises(RuntimeError, match="planted"), headless(model) as head:
        assert model(ids).logits.shape == (1, 3, 64)
        assert head.weight.shape == (49152, 64)
        raise RuntimeError("planted")
    assert model(ids).logits.shape == (1, 3, 49152)
    assert model.lm_head.weight is model.model.embed_tokens.weight
