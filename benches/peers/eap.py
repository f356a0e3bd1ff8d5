"""Edge attribution patching as the public method's loop does it in PyTorch: every head has its own input for queries, keys
and values and its own output, hooks collect differences of outputs and gradients of inputs, and one einsum per
destination scores its edges. Batches of 16 pairs, float32, autograd."""

import torch
from torch.nn.functional import gelu

BATCH = 16


class SplitGpt2:
    """GPT-2 with a residual stream that every destination reads separately."""

    def __init__(self, model):
        self.config, self.trunk = model.config, model.transformer
        heads, width = self.config.n_head, self.config.n_embd
        self.blocks = []
        for block in self.trunk.h:
            weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
            qkv = [w.detach().reshape(width, heads, -1).permute(1, 0, 2) for w in weight.split(width, dim=1)]
            biases = [b.detach().reshape(heads, -1) for b in bias.split(width)]
            out = block.attn.c_proj.weight.detach().reshape(heads, -1, width)
            self.blocks.append((block, qkv, biases, out))

    def norm(self, layer, x):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.pow(2).mean(-1, keepdim=True) + self.config.layer_norm_epsilon).sqrt()
        return centred / scale * layer.weight.detach() + layer.bias.detach()

    def embed(self, ids):
        positions = torch.arange(ids.shape[1])
        return (self.trunk.wte.weight[ids] + self.trunk.wpe.weight[positions]).detach()

    def logits(self, embedded, output_hook, input_hook):
        """Logits of the last token. `output_hook(first_source, outputs [b, p, sources, d])` sees each component's output,
        `input_hook(n_sources, destinations, input [b, p, destinations, d])` each input before it is read."""
        heads, tokens = self.config.n_head, embedded.shape[1]
        causal = torch.full((tokens, tokens), float("-inf")).triu(1)
        residual, sources, destinations = embedded, 1, 0
        output_hook(0, residual.unsqueeze(2))
        for block, qkv, biases, out in self.blocks:
            projected = []
            for weight, bias in zip(qkv, biases):
                x = residual.unsqueeze(2).repeat(1, 1, heads, 1)
                input_hook(sources, destinations, x)
                destinations += heads
                projected.append(torch.einsum("bphd,hde->bphe", self.norm(block.ln_1, x), weight) + bias)
            q, k, v = projected
            scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / q.shape[-1] ** 0.5 + causal
            z = torch.einsum("bhqk,bkhe->bqhe", scores.softmax(-1), v)
            results = torch.einsum("bphe,hed->bphd", z, out)
            output_hook(sources, results)
            sources += heads
            residual = residual + results.sum(2) + block.attn.c_proj.bias.detach()
            x = residual.unsqueeze(2)
            input_hook(sources, destinations, x)
            destinations += 1
            mlp = block.mlp
            inner = self.norm(block.ln_2, x[:, :, 0]) @ mlp.c_fc.weight.detach() + mlp.c_fc.bias.detach()
            result = gelu(inner, approximate="tanh") @ mlp.c_proj.weight.detach() + mlp.c_proj.bias.detach()
            output_hook(sources, result.unsqueeze(2))
            sources += 1
            residual = residual + result
        x = residual.unsqueeze(2)
        input_hook(sources, destinations, x)
        return self.norm(self.trunk.ln_f, x[:, -1, 0]) @ self.trunk.wte.weight.detach().T

    def score(self, clean, corrupted, correct, incorrect, steps):
        """Mean scores [sources, destinations] of all edges: EAP with `steps` None, otherwise EAP-IG on the input with so
        many steps. The metric is the logit difference of two sets of answers."""
        config = self.config
        n_sources = 1 + config.n_layer * (config.n_head + 1)
        n_destinations = config.n_layer * (3 * config.n_head + 1) + 1
        scores = torch.zeros(n_sources, n_destinations)
        for first in range(0, len(clean), BATCH):
            rows = slice(first, first + BATCH)
            difference = torch.zeros(len(clean[rows]), clean.shape[1], n_sources, config.n_embd)

            def add(sign):
                def hook(source, outputs):
                    difference[:, :, source : source + outputs.shape[2]] += sign * outputs.detach()

                return hook

            def ignore(*_):
                pass

            def watch(sources, destination, x):
                def score(gradient):
                    edges = torch.einsum("bpsd,bphd->sh", difference[:, :, :sources], gradient)
                    scores[:sources, destination : destination + x.shape[2]] += edges

                x.register_hook(score)

            e_clean, e_corrupted = self.embed(clean[rows]), self.embed(corrupted[rows])
            with torch.no_grad():
                self.logits(e_corrupted, add(1), ignore)
                self.logits(e_clean, add(-1), ignore)
            at = [1.0] if steps is None else [k / steps for k in range(steps)]
            for share in at:
                embedded = (e_corrupted + share * (e_clean - e_corrupted)).requires_grad_()
                logits = self.logits(embedded, ignore, watch)
                good = logits.gather(1, correct[rows]).mean(1)
                bad = logits.gather(1, incorrect[rows]).mean(1)
                (-(good - bad).sum() / len(at)).backward()
        return scores / len(clean)
