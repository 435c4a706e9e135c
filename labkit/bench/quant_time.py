"""How long a product and a training step take with NF4 weights, beside bf16 weights of the same shape.

Compute-bound: thousands of tokens through layers of a 7B model's width. One token at a time is timed as well:
there the time goes into reading weights.
"""

# Of Llama-7B: the width, the MLP's width, heads; four blocks of it stand for all.
WIDE = {"hidden": 4096, "inner": 11008, "heads": 32, "blocks": 4, "tokens": 4096, "vocabulary": 32000}
NARROW = {"hidden": 64, "inner": 128, "heads": 4, "blocks": 1, "tokens": 16, "vocabulary": 256}
SECONDS = 1.0  # of timing for each number; a trial takes a tenth


def measure(repeats):
    """Median seconds and ratios, NF4 over bf16, one for each repeat; without a GPU no "time ratio"."""
    import torch

    card = torch.cuda.is_available()
    shape, on = (WIDE if card else NARROW), torch.device("cuda" if card else "cpu")
    seconds = SECONDS if card else SECONDS / 100
    found = {}
    for what, make in (("matmul", products), ("decode", single), ("step", steps)):
        plain, four = (make(shape, on, four_bit) for four_bit in (False, True))
        # Each repeat times both, one after the other, so that a slow moment meets both.
        found[what] = [(_median(plain, seconds), _median(four, seconds)) for _ in range(repeats)]
        del plain, four
    ratios = {what: [four / plain for plain, four in pairs] for what, pairs in found.items()}
    times = {what: dict(zip(("bf16", "nf4"), zip(*pairs, strict=True), strict=True))
             for what, pairs in found.items()}  # fmt: skip
    return {"time ratio": ratios, "times": times} if card else {"trial": ratios}


def products(shape, on, four_bit, tokens=None):
    """A call of one wide linear layer on thousands of tokens."""
    import torch

    layer = linear(shape["hidden"], shape["inner"], on, four_bit)
    x = torch.randn(tokens or shape["tokens"], shape["hidden"], device=on, dtype=torch.bfloat16)

    def call():
        with torch.no_grad():
            return layer(x)

    return call


def single(shape, on, four_bit):
    """The same on one token."""
    return products(shape, on, four_bit, tokens=1)


def steps(shape, on, four_bit):
    """A LoRA training step (forward, backward, AdamW) of a few wide blocks with frozen weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=shape["hidden"], intermediate_size=shape["inner"], num_attention_heads=shape["heads"],
        num_hidden_layers=shape["blocks"], vocab_size=shape["vocabulary"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    if four_bit:
        for name, layer in list(model.named_modules()):
            if type(layer) is nn.Linear and name != "lm_head":
                parent, _, last = name.rpartition(".")
                new = linear(layer.in_features, layer.out_features, on, True, layer.weight.data)
                setattr(model.get_submodule(parent), last, new)
        model.is_loaded_in_4bit = True  # peft asks
    model = get_peft_model(model.to(on), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(shape["vocabulary"], (1, shape["tokens"]), device=on)

    def call():
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return call


def linear(inputs, outputs, on, four_bit, weight=None):
    """A frozen linear layer without bias in bf16, or in NF4 as QLoRA has it, on the device `on`."""
    import bitsandbytes as bnb
    import torch

    if weight is None:
        weight = torch.randn(outputs, inputs) * inputs**-0.5
    weight = weight.to(torch.bfloat16)
    if four_bit:
        layer = bnb.nn.Linear4bit(inputs, outputs, bias=False, compute_dtype=torch.bfloat16, device="meta")
        layer.weight = bnb.nn.Params4bit(weight.contiguous(), requires_grad=False, quant_type="nf4",
                                         compress_statistics=True, module=layer)  # fmt: skip
    else:
        layer = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return layer.to(on)


def _median(call, seconds):
    """Median seconds of a call; the timer warms up, and waits for the card."""
    from torch.utils.benchmark import Timer

    call()
    return Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=seconds).median
