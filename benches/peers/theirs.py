"""The PyTorch side of the comparison: reads the name of a piece of work, does it once, prints the seconds."""

import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(2)
torch.manual_seed(1)
model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)).eval()
prompts = torch.tensor([[100 + 997 * i + 31 * j for j in range(13)] for i in range(8)])


def forward_backward():
    """What one EAP gradient costs a plain user: forward and backward of the clean prompts, to all weights."""
    model.zero_grad(set_to_none=True)
    logits = model(prompts).logits[:, -1]
    rows = torch.arange(8)
    (logits[rows, 50 + rows] - logits[rows, 5 + rows]).sum().backward()


PREFIXES = [[50 + 211 * j + 17 * i for i in range(10)] for j in range(21)]
PROMPT, LAST_OF_SUBJECT, TARGET = [1000 + 37 * i for i in range(8)], 3, [2000, 2001]
LAYER, STEPS = 5, 20


def padded(rows):
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def make_inverse():
    keys = torch.randn(3072, 4096)
    return torch.linalg.inv(keys @ keys.T / 4096 + 1e-3 * torch.eye(3072))


def rome():
    """One ROME edit as its authors' code does it: every row, layer and logit again in every step."""
    model.requires_grad_(False)
    mlp = model.transformer.h[LAYER].mlp
    seen = {}
    hooks = [mlp.c_proj.register_forward_hook(lambda _, x, y: seen.update(key=x[0], out=y))]

    def keys_of(rows, lookup):
        with torch.no_grad():
            ids, mask = padded(rows)
            model(ids, attention_mask=mask)
        return seen["key"][:, lookup].clone(), seen["out"][:, lookup].clone()

    k_bar = keys_of([prefix + PROMPT for prefix in PREFIXES], 10 + LAST_OF_SUBJECT)[0].mean(0)
    k_clean, o_clean = (x[0] for x in keys_of([PROMPT], LAST_OF_SUBJECT))
    u = INVERSE @ k_bar
    u = u / u.norm()
    hooks.pop().remove()

    rows = [prefix + PROMPT + TARGET[:-1] for prefix in PREFIXES] + [PROMPT[: LAST_OF_SUBJECT + 1] + [318, 257]]
    ids, mask = padded(rows)
    lookups = torch.tensor([10 + LAST_OF_SUBJECT] * 21 + [LAST_OF_SUBJECT])
    delta = torch.zeros(768, requires_grad=True)
    start, before = None, None

    def add(_, inputs, out):
        nonlocal start
        if start is None:
            start = out[0, lookups[0]].detach().clone()
        out = out.clone()
        out[torch.arange(22), lookups] += delta
        return out

    hooks = [mlp.register_forward_hook(add)]
    adam = torch.optim.Adam([delta], lr=0.5)
    first = 10 + len(PROMPT) - 1
    for step in range(STEPS):
        adam.zero_grad()
        logits = model(ids, attention_mask=mask).logits
        log_p = logits[:21].log_softmax(-1)
        nll = -torch.stack([log_p[:, first + t, token] for t, token in enumerate(TARGET)]).mean()
        after = logits[21, LAST_OF_SUBJECT].log_softmax(-1)
        before = after.detach().clone() if before is None else before
        kl = (after.exp() * (after - before)).sum()
        loss = nll + 0.0625 * kl + 0.5 * delta.norm() / start.norm() ** 2
        if step == STEPS - 1:
            break
        loss.backward()
        adam.step()
        with torch.no_grad():
            longest = 4 * start.norm()
            if delta.norm() > longest:
                delta.mul_(longest / delta.norm())
    hooks.pop().remove()
    with torch.no_grad():
        row = (start + delta - o_clean) / (k_clean @ u)
        weight = mlp.c_proj.weight
        kept = weight.clone()
        weight += torch.outer(u, row)
        weight.copy_(kept)
    model.requires_grad_(True)


INVERSE = make_inverse()
WORK = {"forward + backward": forward_backward, "rome": rome}

for line in sys.stdin:
    start = time.perf_counter()
    WORK[line.strip()]()
    print(time.perf_counter() - start, flush=True)
