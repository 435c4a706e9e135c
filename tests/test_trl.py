"""`fit` reads rows as trl's SFTTrainer does, and starts from the same loss."""

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from labkit.train import fit
from labkit.train.rows import encode_all


@pytest.fixture(scope="module", params=["chat", "strings"])
def rows(request, tickets, tokenizer):
    """Four tickets as messages, and the same as strings."""
    four = [{"prompt": row["prompt"], "completion": row["completion"]} for row in tickets[:4]]
    if request.param == "chat":
        return four
    return [
        {
            "prompt": tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=False
            ),
            "completion": row["completion"][0]["content"],
        }
        for row in four
    ]


@pytest.fixture
def trainer(rows, tokenizer, tiny, tmp_path):
    """An SFTTrainer over these rows, for one step at rate 0 with all of them in the batch."""
    settings = SFTConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_steps=1, learning_rate=0.0,
        per_device_train_batch_size=4, gradient_checkpointing=False, logging_steps=1, disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    data = Dataset.from_list(rows)
    return SFTTrainer(tiny(), args=settings, train_dataset=data, processing_class=tokenizer)


def learned(row):
    """The labels of one of our rows: its tokens where they count, -100 elsewhere."""
    return [token if weight else -100 for token, weight in zip(row.ids, row.weights, strict=True)]


def test_rows_are_tokenized_and_masked_as_trl_does(trainer, rows, tokenizer):
    ours = encode_all(rows, tokenizer, 512)
    theirs = list(trainer.train_dataset)
    assert [row.ids for row in ours] == [list(row["input_ids"]) for row in theirs]
    assert [learned(row) for row in ours] == [list(row["labels"]) for row in theirs]
    assert all(0 < sum(row.weights) < len(row) for row in ours)


def test_the_first_loss_is_that_of_trl(trainer, rows, tokenizer, tiny):
    trainer.train()
    theirs = trainer.state.log_history[0]["loss"]
    options = {"steps": 1, "lr": 0.0, "batch": 4, "pack": False, "precision": "fp32", "progress": False}
    assert fit(tiny(), rows, tokenizer, **options).losses[0] == pytest.approx(theirs, abs=1e-4)
    # The control: the loss over the whole text is another.
    whole = fit(tiny(), rows, tokenizer, prompt_loss_weight=1.0, **options).losses[0]
    assert whole != pytest.approx(theirs, abs=1e-4)
