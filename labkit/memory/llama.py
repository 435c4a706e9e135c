"""One step of a Llama-like model under every method, played on a tape of sizes.

It follows transformers' modeling_llama.py and peft line by line: what a variable holds there, it holds here.
Of blocks that are alike only the first two and last two are played; what one leaves is booked for the rest.
"""

from math import prod

from labkit.memory import machine, ops
from labkit.memory.linears import Linears, Weights

ITEM = {"fp32": 4, "bf16": 2, "bf16 autocast": 4}  # bytes of a base weight
PLAYED = 4  # blocks of a run of equal ones that are played


class Model:
    """A setting's model with its weights on a tape, ready to play a forward pass."""

    def __init__(self, setting, tape, trained=None):
        self.setting, self.tape, self.shape = setting, tape, setting.shape
        shape, method = setting.shape, setting.method
        full = method in ("full", "dpo") if trained is None else trained
        self.rows = setting.batch * (2 if method == "dpo" else 1)
        self.item = ITEM[setting.precision]
        self.prefix = setting.tokens if method == "prefix" else 0
        self.now = setting.seq + (setting.tokens if method == "prompt" else 0)  # tokens of a row at work
        self.past = self.prefix  # tokens of a row in the cache
        self.linears, self.weights = Linears(self), Weights(tape)
        make = self.weights.make
        self.table = make(shape.vocab * shape.hidden, self.item, "vocab x hidden", full)
        self.head = (
            self.table if shape.tied else make(shape.vocab * shape.hidden, self.item, "vocab x hidden", full)
        )
        self.norm = make(shape.hidden, self.item, "hidden", full or method == "partial")
        adapter = self.linears.adapter
        if method == "prompt":
            self.prompt = make(setting.tokens * shape.hidden, adapter, "tokens x hidden", True)
        if method == "prefix":
            self.prompt = make(
                setting.tokens * 2 * shape.layers * shape.key, adapter, "tokens x layers x k, v", True
            )
        if method == "qlora":
            self.codes = make(256, 4, "NF4 scales' codes")
        tape.new((shape.head_dim, "rotary frequencies"), 4, "rotary frequencies", "weights")
        self.blocks = []  # (weights, how many like it follow unplayed, number)
        frozen = shape.layers - setting.blocks if method == "partial" else 0
        for count, trained in ((frozen, False), (shape.layers - frozen, full or method == "partial")):
            self._make_blocks(count, trained)
        self.cache, self.leaf = {}, None

    def _make_blocks(self, count, trained):
        """`count` equal blocks, of which at most four are played and the second stands for the rest too."""
        left = max(0, count - PLAYED)
        for i in range(min(count, PLAYED)):
            more = left if i == 1 else 0
            before = len(self.tape.events)
            self.weights.copies = 1 + more
            block = self._make_block(trained)
            self.tape.repeat(self.tape.account(before, len(self.tape.events)), more)
            self.blocks.append((block, more, len(self.blocks)))
        self.weights.copies = 1

    def _make_block(self, trained):
        make, setting, hidden = self.weights.make, self.setting, self.shape.hidden
        block = self.linears.weights(self.weights, trained)
        block["norms"] = [make(hidden, self.item, "hidden", trained) for _ in range(2)]
        if setting.method == "adapter":
            wide, narrow, item = hidden, setting.bottleneck, self.linears.adapter
            block["adapters"] = [
                [make(wide * narrow, item, "hidden x bottleneck", True),
                 make(narrow, item, "bottleneck", True),
                 make(wide * narrow, item, "hidden x bottleneck", True), make(wide, item, "hidden", True)]
                for _ in range(2)
            ]  # fmt: skip
        return block

    # sizes ---------------------------------------------------------------------------------------------

    def dims(self, *names):
        """(elements, text) of a tensor with these sizes."""
        shape, sizes = self.shape, {"1": 1}
        sizes |= {"batch": self.rows, "seq": self.now, "keys": self.now + self.past, "hidden": shape.hidden,
                  "inter": shape.inter, "heads x head_dim": shape.query, "kv_heads x head_dim": shape.key,
                  "heads": shape.heads, "vocab": shape.vocab, "rank": self.setting.rank,
                  "bottleneck": self.setting.bottleneck, "tokens": self.setting.tokens,
                  "head_dim": shape.head_dim, "layers": shape.layers, "k and v": 2}  # fmt: skip
        return prod(sizes[name] for name in names), " x ".join(name for name in names if name != "1")

    def measure(self):
        """Work out the sizes of tensors for the tokens now at work."""
        widths = ("hidden", "inter", "heads x head_dim", "kv_heads x head_dim", "rank", "bottleneck")
        self.per_token = {name: self.dims("batch", "seq", name) for name in widths}
        self.row = self.dims("batch", "seq", "1")
        self.queries = self.dims("batch", "heads", "seq")
        self.scores = self.dims("batch", "heads", "seq", "keys")
        self.mask = self.dims("seq", "keys")
        self.spread = self.dims("batch", "keys", "heads x head_dim")

    # forward -------------------------------------------------------------------------------------------

    def hidden(self, keep_cache=False):
        """The last hidden states of `now` tokens a row."""
        tape = self.tape
        self.measure()
        # transformers' forward holds the embedded tokens and the positions until it returns, peft's its
        # prompts.
        held = (x, _), positions = self._embedded(), tape.new(self.dims("seq"), 8, "positions")
        if self.prefix:
            self._prefix()
        item = x.item
        cos, sin = (tape.new(self.dims("seq", "head_dim"), item, "cos, sin") for _ in range(2))
        mask = None
        if self.setting.attention == "eager" or self.prefix:
            eager = self.setting.attention == "eager"
            dims = self.dims("batch", "seq", "keys") if eager else self.mask
            mask = tape.new(dims, item if eager else 1, "attention: mask")
        for block, more, number in self.blocks:
            before, tape.block = len(tape.events), number
            run = self._runner(block, cos, sin, mask, number if keep_cache or self.prefix else None)
            x = tape.checkpoint(run, x) if self.setting.checkpointing and tape.grad_enabled else run(x)
            del run
            tape.repeat(tape.account(before, len(tape.events)), more)
        tape.block = "head"
        x = ops.rms_norm(tape, x, self.norm, self.row)
        del held, positions
        return x

    def forget(self):
        """Let go of the cache."""
        for _, more, number in self.blocks:
            before = len(self.tape.events)
            self.cache.pop(number, None)
            self.tape.repeat(self.tape.account(before, len(self.tape.events)), more)

    def _runner(self, block, cos, sin, mask, cache):
        return lambda x: self._block(block, x, cos, sin, mask, cache)

    def _embedded(self):
        tape, setting = self.tape, self.setting
        tape.block = "embedding"
        ids = self.dims("batch", "seq", "1")[0]
        if setting.method != "prompt":
            x = ops.embed(tape, self.table, self.per_token["hidden"], machine.embedding_backward(ids))
            return self._wanting(x), None
        own = (self.rows * setting.seq * self.shape.hidden, "batch x seq x hidden")
        x = self._wanting(ops.embed(tape, self.table, own, 0))
        prompts = ops.embed(tape, self.prompt, self.prompt.dims, 0)
        dims = self.dims("batch", "tokens", "hidden")
        prompts = tape.cast(tape.op(dims, prompts.item, "prompts", [prompts]), x.item, "prompts")
        joined = tape.op(self.per_token["hidden"], x.item, "prompts and tokens", [prompts, x], back=_first_of)
        return joined, prompts

    def _wanting(self, x):
        """With checkpointing transformers has embedded tokens want a gradient, whatever is trained; that
        gradient stays with them until the loss is let go of (enable_input_require_grads)."""
        if self.setting.checkpointing and self.tape.grad_enabled and not x.needs:
            x.needs = True
            self.leaf = x
        return x

    def _prefix(self):
        """Keys and values of the prefix: embedded for all blocks at once, then copied into each block's
        cache."""
        tape = self.tape
        whole = ops.embed(
            tape, self.prompt, (self.rows * self.prompt.dims[0], f"batch x {self.prompt.dims[1]}"), 0
        )
        whole = tape.cast(whole, self.item, "prefix")
        part = self.dims("batch", "tokens", "kv_heads x head_dim")
        for _, more, number in self.blocks:
            before, tape.block = len(tape.events), ("prefix", number)
            self.cache[number] = [
                tape.op(part, whole.item, "KV cache", [whole], back=_gathered) for _ in "kv"
            ]
            tape.repeat(tape.account(before, len(tape.events)), more)

    def _block(self, block, x, cos, sin, mask, cache):
        tape = self.tape
        residual = x
        x = ops.rms_norm(tape, x, block["norms"][0], self.row)
        x = self._adapted(block, 0, lambda x: self._attention(block, x, cos, sin, mask, cache), x)
        x = ops.add(tape, residual, x, "residual stream")
        residual = x
        x = ops.rms_norm(tape, x, block["norms"][1], self.row)
        x = self._adapted(block, 1, lambda x: self._mlp(block, x), x)
        return ops.add(tape, residual, x, "residual stream")

    def _mlp(self, block, x):
        tape, call = self.tape, self.linears

        def gated(x):
            gate = ops.silu(tape, call(block["gate_proj"], "gate_proj", x), "silu of gate")
            return ops.multiply(tape, gate, call(block["up_proj"], "up_proj", x), "silu x up")

        return call(block["down_proj"], "down_proj", gated(x))

    def _attention(self, block, x, cos, sin, mask, cache):
        tape, call = self.tape, self.linears
        q = ops.copied_back(tape, call(block["q_proj"], "q_proj", x))
        k = ops.copied_back(tape, call(block["k_proj"], "k_proj", x))
        v = call(block["v_proj"], "v_proj", x)

        def rotated(q, k):
            return ops.rotate(tape, q, cos, sin), ops.rotate(tape, k, cos, sin)

        q, k = rotated(q, k)
        if cache is not None:
            k, v = self._remember(k, v, cache)
        out = self._attend(q, k, v, mask)
        return call(block["o_proj"], "o_proj", out)

    def _attend(self, q, k, v, mask):
        tape, shape, setting = self.tape, self.shape, self.setting
        item = tape.compute or q.item
        grouped = shape.heads != shape.kv_heads
        spread = self.spread if grouped else None
        if setting.attention == "eager":
            return ops.eager_attention(tape, q, k, v, self.scores, mask, spread)
        if mask is not None and grouped:
            k, v = (ops.spread(tape, x, spread) for x in (k, v))
            grouped, spread = False, None
        kind = machine.attention_kernel(setting.attention, item, grouped, mask is not None)
        if kind == "math":
            bits = self.mask if self.now > 1 else None
            return ops.plain_attention(tape, q, k, v, self.scores, bits, spread)
        keys = self.now + self.past
        if kind == "flash":
            room = machine.flash_backward(
                self.rows, self.now, keys, shape.heads, shape.kv_heads, shape.head_dim, item
            )
        else:
            room = machine.efficient_backward(self.rows, self.now, shape.heads)
        numbers = self.dims("batch", "seq", "keys") if mask is not None else None
        return ops.fused_attention(tape, q, k, v, self.queries, room, numbers)

    def _remember(self, k, v, cache):
        """transformers' DynamicCache: what was there and what is new, copied into one tensor."""
        tape, dims = self.tape, self.dims("batch", "keys", "kv_heads x head_dim")
        old = self.cache.pop(cache, [None, None])
        new, item = [], k.item  # transformers takes the keys' dtype for both
        for x in (k, v):
            before = old.pop(0)
            x = tape.cast(x, item, "k, v in the cache's dtype")
            new.append(
                tape.op(dims, item, "KV cache", [x] if before is None else [before, x], back=_first_of)
            )
            del x, before
        self.cache[cache] = new
        return new

    def _adapted(self, block, place, inner, x):
        """Houlsby's adapter after a part: out + up(silu(down(out)))."""
        out = inner(x)
        if self.setting.method != "adapter":
            return out
        del x
        tape, (down, down_bias, up, up_bias) = self.tape, block["adapters"][place]
        sizes, item = self.per_token, self.linears.adapter

        def narrow(x):
            return ops.linear(tape, x, down, sizes["bottleneck"], "adapter: down", down_bias)

        small = ops.silu(tape, narrow(tape.cast(out, item, "adapter: input in its dtype")), "adapter: silu")
        change = ops.linear(tape, small, up, sizes["hidden"], "adapter: up", up_bias)
        del small
        return ops.add(tape, out, tape.cast(change, out.item, "adapter: change"), "adapter: sum")


def _first_of(tape, node, g):
    """Gradients of joined tensors are views of the whole's gradient."""
    g.view = True
    return [edge and g for edge in node.edges]


def _gathered(tape, node, g):
    """One block's part of the prefix is a slice: its gradient becomes part of one as large as the whole."""
    return [tape.new(node.edges[0][1], node.edges[0][2], ops.GRAD)]
