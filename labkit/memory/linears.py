"""The linear layers of a block under every method: plain, in NF4, and with what peft adds to them."""

from labkit.memory import machine, ops
from labkit.memory.tape import Tensor

IA3 = ("k_proj", "v_proj", "down_proj")  # peft's default targets for Llama; down_proj is scaled at its input


class Weights:
    """Makes weights on a tape and remembers which are trained: `trained` lists [elements, item, copies]."""

    def __init__(self, tape):
        self.tape, self.trained = tape, []
        self.copies = 1

    def make(self, elements, item, label, trained=False):
        """One weight of `elements`; trained ones want gradients and an optimizer's state."""
        w = Tensor(self.tape, (elements, label), item, "weights", "weights")
        w.needs = trained
        if trained:
            self.trained.append([elements, item, self.copies])
        return w

    def nf4(self, elements, label):
        """NF4 with double quantization: half a byte a weight, an 8-bit scale for 64 weights, an fp32 scale
        for 256 of those, a table of 16 codes and an offset."""
        parts = ((-(-elements // 2), 1, f"{label}, 4 bits"), (-(-elements // 64), 1, "NF4 scales, 8 bits"),
                 (-(-elements // 64 // 256), 4, "NF4 scales' scales"), (16, 4, "NF4 codes"),
                 (1, 4, "NF4 offsets"))  # fmt: skip
        return [self.make(*part) for part in parts]


class Linears:
    """Calls a linear layer by name as the method of a model has it."""

    def __init__(self, model):
        setting = model.setting
        self.model, self.tape, self.method = model, model.tape, setting.method
        self.item = model.item  # of base weights
        self.adapter = 4 if setting.adapters == "fp32" else 2
        self.shapes = setting.shape.linears()
        tuned = setting.method in ("lora", "dora", "qlora")
        self.adapted = set(setting.adapted()) if tuned else set(IA3) if setting.method == "ia3" else set()
        self.compute = 4 if setting.precision == "fp32" else 2  # bitsandbytes' compute dtype
        self.autocast = setting.precision == "bf16 autocast"
        self.out = {
            "q_proj": "heads x head_dim", "k_proj": "kv_heads x head_dim", "v_proj": "kv_heads x head_dim",
            "o_proj": "hidden", "gate_proj": "inter", "up_proj": "inter", "down_proj": "hidden",
        }  # fmt: skip

    def weights(self, make, trained):
        """The weights of one block's linear layers: {name: {part: weight}}."""
        setting, block = self.model.setting, {}
        for name, (inner, outer) in self.shapes.items():
            if self.method == "qlora":
                parts = {"nf4": make.nf4(inner * outer, "linear weights")}
            else:
                parts = {"w": make.make(inner * outer, self.item, name, trained)}
            if name in self.adapted and self.method == "ia3":
                parts["l"] = make.make(
                    inner if name == "down_proj" else outer, self.adapter, "IA3 scales", True
                )
            elif name in self.adapted:
                parts["a"] = make.make(inner * setting.rank, self.adapter, "LoRA A", True)
                parts["b"] = make.make(outer * setting.rank, self.adapter, "LoRA B", True)
                if self.method == "dora":
                    parts["m"] = make.make(outer, self.adapter, "DoRA magnitudes", True)
            block[name] = parts
        return block

    def __call__(self, parts, name, x):
        """What the layer `name` with weights `parts` makes of `x`."""
        if "l" in parts:
            return self._ia3(parts, name, x)
        if "a" not in parts:
            return self._base(parts, name, x)
        if self.method == "qlora":
            return self._qlora(parts, name, x)
        return self._lora(parts, name, x)

    def _base(self, parts, name, x):
        dims = self.model.per_token[self.out[name]]
        if "w" in parts:
            return ops.linear(self.tape, x, parts["w"], dims, name)
        return self._nf4(name, x, dims)

    def _nf4(self, name, x, dims):
        """bitsandbytes: x in the compute dtype, times weights made 16-bit for the moment; keeps nothing
        new."""
        tape, item, wanted = self.tape, self.compute, x.item
        inner, outer = self.shapes[name]
        fused = machine.fused_4bit(self.model.rows * self.model.now, outer, inner)
        x = tape.cast(x, item, f"{name}: input in 16 bits")
        whole = (inner * outer, "a weight out of NF4")
        scales = (inner * outer // 64, "its scales")

        def room(tape, count):
            return [tape.new(scales, 4, "NF4 scales in fp32", "casts") for _ in range(count)] + [
                tape.new(whole, item, "a weight out of NF4", "casts")
            ]

        def back(tape, node, g):
            made = room(tape, 1)
            grads = [tape.new(node.edges[0][1], item, ops.GRAD)]
            del made
            return grads

        if not fused:
            made = room(tape, 2)
            out = tape.op(dims, item, name, [x], back=back)
            del made
        else:
            out = tape.op(dims, item, name, [x], back=back)
        return tape.cast(out, wanted, f"{name} in fp32")

    def _delta(self, parts, name, x):
        """lora_B(lora_A(x)) keeps x as A takes it, and the rank's few numbers a token."""
        tape, sizes = self.tape, self.model.per_token
        hidden = ops.linear(tape, x, parts["a"], sizes["rank"], "LoRA A")
        return ops.linear(tape, hidden, parts["b"], sizes[self.out[name]], "LoRA B")

    def _lora(self, parts, name, x):
        """peft's Linear.forward: x in the adapter's dtype (an fp32 copy if x is 16-bit), the scaled
        update."""
        tape = self.tape
        result = self._base(parts, name, x)
        item = result.item
        x = tape.cast(x, self.adapter, f"{name}: input in the adapter's dtype")
        if self.method == "dora":
            result = ops.add(tape, result, self._dora(parts, name, x, result), "LoRA: sum")
        else:
            result = ops.add(
                tape, result, ops.scale(tape, self._delta(parts, name, x), "LoRA: scaled"), "LoRA: sum"
            )
        return tape.cast(result, item, "LoRA: sum in 16 bits")

    def _qlora(self, parts, name, x):
        """peft's Linear4bit.forward: the base's result is cloned; under autocast x is not cast by peft."""
        tape = self.tape
        result = self._base(parts, name, x)
        result = tape.op(result.dims, result.item, "QLoRA: clone of the base's result", [result])
        item = result.item
        if not self.autocast:
            x = tape.cast(x, self.adapter, f"{name}: input in the adapter's dtype")
        output = ops.scale(tape, self._delta(parts, name, x), "LoRA: scaled")
        if not self.autocast:
            output = tape.cast(output, item, "LoRA: update in the base's dtype")
        return ops.add(tape, result, output, "LoRA: sum")

    def _dora(self, parts, name, x, base):
        """peft's DoraLinearLayer.forward: the norm of W + BA anew each time (several copies of W for a
        moment); keeps the base's result and the update, since the magnitude scales both."""
        tape, (inner, outer) = self.tape, self.shapes[name]
        square, whole, row = (
            (inner * inner, "inputs x inputs"),
            (inner * outer, f"{name}"),
            (outer, "outputs"),
        )
        compute = tape.compute or self.adapter
        with tape.no_grad():  # its history is dropped with `update`, at the end of this function
            eye = tape.new(square, self.adapter, "DoRA: identity")
            history = tape.cast(eye, compute, "DoRA: identity in 16 bits")  # saved for A's gradient
            del eye
            if tape.forgetting:  # nothing is saved, so nothing of the history stays
                del history
            update = tape.cast(tape.new(whole, compute, "DoRA: B A"), x.item, "DoRA: B A")
            weight = tape.cast(parts["w"], x.item, "DoRA: W in the adapter's dtype")
            scaled = tape.new(whole, x.item, "DoRA: B A scaled")
            total = tape.new(whole, x.item, "DoRA: W + B A")
            del scaled, total
        length = tape.new(row, x.item, "DoRA: norm of W + B A")
        norm = tape.op(row, x.item, "DoRA: magnitude / norm", [parts["m"]], [length])
        delta = self._delta(parts, name, x)
        first = ops.multiply(
            tape, ops.passed(tape, norm, row, "DoRA: magnitude / norm - 1"), base, "DoRA: base part"
        )
        second = ops.scale(tape, ops.multiply(tape, norm, delta, "DoRA: update part"), "DoRA: update part")
        del update, weight
        return ops.add(tape, first, second, "DoRA: sum")

    def _ia3(self, parts, name, x):
        """Scales a result, or the input of the feed-forward's last layer; keeps what is scaled."""
        tape, item = self.tape, x.item
        scales = ops.passed(tape, parts["l"], parts["l"].dims, "IA3 scales")
        if name == "down_proj":
            x = tape.cast(x, self.adapter, "IA3: input in fp32")
            scaled = tape.cast(ops.multiply(tape, x, scales, "IA3: scaled"), item, "IA3: scaled in 16 bits")
            return self._base(parts, name, scaled)
        result = self._base(parts, name, x)
        return tape.cast(
            ops.multiply(tape, result, scales, "IA3: scaled"), result.item, "IA3: scaled in 16 bits"
        )
