"""The step whose memory is asked for, built for real: model, method, optimizer, and one call that does it.

It is the step as the field writes it: transformers' model and loss, peft's methods, torch's or bitsandbytes'
optimizer. Weights are random, since memory does not depend on what they say.
"""

from contextlib import ExitStack

import torch
from torch import nn

from labkit.memory import nf4

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "bf16 autocast": torch.float32}  # of base weights
PEFT = ("lora", "dora", "qlora", "ia3", "prompt", "prefix")
ADAPTED = (*PEFT, "adapter")  # methods whose trained weights are not the base's
SCALE = 0.02  # standard deviation of random weights


class Recipe:
    """A setting made real on a device.

    model       what is trained (peft's wrapper included)
    reference   the frozen second model of DPO, else None
    optimizer   None for inference
    ids         (rows, seq) token ids
    step()      forward, backward, optimizer step, gradients set to None; for inference the prompt and the
                decoded tokens. Returns nothing, so that nothing outlives it.
    """

    def __init__(self, setting, device):
        self.setting, self.device = setting, torch.device(device)
        self.model = build_model(setting, self.device)
        self.reference = None
        if setting.method == "dpo":
            self.reference = build_model(setting.but(method="inference", checkpointing=False), self.device)
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = None if setting.method == "inference" else build_optimizer(setting, trained)
        rows = setting.batch * (2 if setting.method == "dpo" else 1)  # of each pair, chosen and rejected
        self.ids = torch.randint(0, setting.shape.vocab, (rows, setting.seq), device=self.device)

    def step(self):
        """One training step, or one generation."""
        if self.setting.method == "inference":
            return self._generate()
        with _kernels(self.setting):
            with self._autocast():
                loss = self._loss()
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _autocast(self):
        on = self.setting.precision == "bf16 autocast"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def _loss(self):
        if self.setting.method == "dpo":
            return self._preference_loss()
        if self.setting.fused_loss:
            return self._fused_loss()
        # Of the output only the loss outlives this line: the logits go unless the backward pass wants them.
        return self.model(input_ids=self.ids, labels=self.ids, **self._uncached()).loss

    def _uncached(self):
        # A prefix travels in the cache; no other training step has use for one, and transformers' Trainer
        # turns it off too.
        return {} if self.setting.method == "prefix" else {"use_cache": False}

    def _fused_loss(self):
        from labkit.train.loss import headless, weighted_nll

        with headless(self.model) as head:
            hidden = self.model(input_ids=self.ids, use_cache=False).logits[:, :-1]
            weights = torch.ones(hidden.shape[:2], device=self.device)
            counted = torch.arange(weights.numel(), device=self.device)
            return weighted_nll(hidden, head, self.ids[:, 1:], weights, counted) / weights.numel()

    def _preference_loss(self):
        with torch.no_grad() if self.reference is None else ExitStack():
            policy = self._log_likelihood(self.model)
        with torch.no_grad():
            reference = self._log_likelihood(self.reference)
        chosen, rejected = (policy - reference).chunk(2)
        return -nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()

    def _log_likelihood(self, model):
        logits = model(input_ids=self.ids, use_cache=False).logits[:, :-1]
        words = logits.float().log_softmax(-1).gather(-1, self.ids[:, 1:, None])
        return words.squeeze(-1).sum(-1)

    @torch.no_grad()
    def _generate(self):
        with _kernels(self.setting), self._autocast():
            out = self.model(input_ids=self.ids, use_cache=True, logits_to_keep=1)
            for _ in range(self.setting.new_tokens):
                word, cache, out = out.logits[:, -1:].argmax(-1), out.past_key_values, None
                out = self.model(input_ids=word, past_key_values=cache, use_cache=True, logits_to_keep=1)


def _kernels(setting):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH) if setting.attention == "math" else ExitStack()


# ---- the model ------------------------------------------------------------------------------------------


def build_model(setting, device):
    """The model of a setting with its method applied, each weight made on `device` in its final dtype.

    It is laid out on the meta device first, which takes no memory: no weight ever exists twice.
    """
    from torch.utils._python_dispatch import _disable_current_modes
    from transformers import LlamaForCausalLM

    with _disable_current_modes(), torch.device("meta"):  # a trace has no eyes for what has no memory
        model = LlamaForCausalLM(llama_config(setting))
        if setting.method == "qlora":
            nf4.lay_out(model, setting.precision)
        model = _METHODS[setting.method](model, setting) if setting.method in _METHODS else model
        if setting.method in PEFT:
            model = _with_peft(model, setting)
    if setting.method == "inference":
        model.requires_grad_(False).eval()
    else:
        model.train()
    adapters = DTYPES[setting.adapters] if setting.method in ADAPTED else None
    materialize(model, device, DTYPES[setting.precision], adapters)
    if setting.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def llama_config(setting):
    """transformers' config of the setting's shape."""
    from transformers import LlamaConfig

    shape = setting.shape
    return LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.inter,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=max(shape.positions, setting.seq + setting.new_tokens),
        tie_word_embeddings=shape.tied, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        attn_implementation="eager" if setting.attention == "eager" else "sdpa",
    )  # fmt: skip


def materialize(model, device, dtype, adapters=None):
    """Give every meta weight of `model` memory on `device`: `dtype`, and `adapters` for what is trained.

    Shared weights stay shared. Layers laid out as NF4 get packed weights and their quantization state.
    """
    made, code = {}, None
    for module in list(model.modules()):
        if nf4.is_one(module):
            code = nf4.table(device) if code is None else code
            nf4.fill(module, device, code)
        for name, weight in list(module._parameters.items()):
            if weight is None or not weight.is_meta:
                continue
            if id(weight) not in made:
                own = adapters if adapters is not None and weight.requires_grad else dtype
                made[id(weight)] = nn.Parameter(
                    _random(weight, device, own), requires_grad=weight.requires_grad
                )
            module._parameters[name] = made[id(weight)]
        if any(buffer.is_meta for buffer in module._buffers.values() if buffer is not None):
            _refill_buffers(module, device)
    if hasattr(model, "prompt_tokens"):  # indices that peft keeps beside its modules
        tokens = {name: len(kept) for name, kept in model.prompt_tokens.items()}
        model.prompt_tokens = {name: torch.arange(count, device=device) for name, count in tokens.items()}
    return model


def _random(weight, device, dtype):
    data = torch.empty(weight.shape, device=device, dtype=dtype)
    return data.normal_(0, SCALE) if weight.dim() > 1 else data.fill_(1)


def _refill_buffers(module, device):
    """Buffers that a module computes from its config, as rotary embeddings do."""
    with device:
        fresh = type(module)(config=module.config)
    module._buffers.update(fresh._buffers)


# ---- the methods ----------------------------------------------------------------------------------------


def _partial(model, setting):
    model.requires_grad_(False)
    for module in [*model.model.layers[-setting.blocks :], model.model.norm]:
        module.requires_grad_(True)
    return model


def _with_peft(model, setting):
    import peft

    targets = "all-linear" if setting.targets == "all-linear" else setting.adapted()
    kinds = {
        "ia3": lambda: peft.IA3Config(task_type="CAUSAL_LM"),
        "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=setting.tokens),
        "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=setting.tokens),
    }
    config = kinds.get(setting.method, lambda: peft.LoraConfig(
        task_type="CAUSAL_LM", r=setting.rank, lora_alpha=2 * setting.rank, target_modules=targets,
        use_dora=setting.method == "dora",
    ))()  # fmt: skip
    return peft.get_peft_model(model, config, autocast_adapter_dtype=setting.adapters == "fp32")


class Bottleneck(nn.Module):
    """Houlsby's adapter after a part of a block: out + up(silu(down(out))), both projections with biases."""

    def __init__(self, inner, width, bottleneck):
        super().__init__()
        self.inner = inner
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)

    def forward(self, *args, **kwargs):
        """What the part gives, adapted; further outputs (attention weights) pass through."""
        out = self.inner(*args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        change = self.up(nn.functional.silu(self.down(first.to(self.down.weight.dtype))))
        first = first + change.to(first.dtype)
        return (first, *out[1:]) if isinstance(out, tuple) else first


def _houlsby(model, setting):
    model.requires_grad_(False)
    for block in model.model.layers:
        block.self_attn = Bottleneck(block.self_attn, setting.shape.hidden, setting.bottleneck)
        block.mlp = Bottleneck(block.mlp, setting.shape.hidden, setting.bottleneck)
    return model


_METHODS = {"partial": _partial, "adapter": _houlsby}


# ---- the optimizer --------------------------------------------------------------------------------------


def build_optimizer(setting, trained):
    """The setting's optimizer over the weights `trained`."""
    # foreach is what torch takes on CUDA when not told; said here so that a trace on another device takes it.
    if setting.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-3, foreach=True)
    if setting.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=1e-4, foreach=True)
    if setting.optimizer == "fused":
        return torch.optim.AdamW(trained, lr=1e-4, fused=True)
    import bitsandbytes as bnb
    from torch.utils._python_dispatch import _disable_current_modes

    kinds = {"8-bit": "AdamW8bit", "paged": "PagedAdamW32bit", "paged 8-bit": "PagedAdamW8bit"}
    with _disable_current_modes():  # it computes tables of codes, which a trace could not hold
        return getattr(bnb.optim, kinds[setting.optimizer])(trained, lr=1e-4)
