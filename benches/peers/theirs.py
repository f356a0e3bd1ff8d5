"""The PyTorch side of the comparison: reads the name of a piece of work, does it once, prints the seconds."""

import copy
import sys
import time

import torch
from eap import SplitGpt2
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


def batch(sequences, length):
    return torch.tensor([[(100 + 997 * i + 31 * j) for j in range(length)] for i in range(sequences)])


def forward(sequences, length):
    """The trunk: hidden states, no logits."""
    with torch.no_grad():
        model.transformer(batch(sequences, length))


def backward(sequences, length):
    """Mean NLL of every next token, and its gradient with respect to all weights."""
    model.zero_grad(set_to_none=True)
    ids = batch(sequences, length)
    model(ids, labels=ids).loss.backward()


def sgemm():
    a = torch.full((2048, 2048), 0.5)
    for _ in range(4):
        a @ a


class MaskTraining:
    """The study's mask training as its authors' code does a step: straight-through binary-concrete masks on every
    parameter of the blocks, the full model's choice computed beside."""

    def __init__(self):
        self.blocks = {name: p.detach() for name, p in model.transformer.named_parameters() if name.startswith("h.")}
        self.logits = {name: (2.7 + 0.01 * torch.randn_like(p)).requires_grad_() for name, p in self.blocks.items()}
        self.adam = torch.optim.AdamW(self.logits.values(), lr=0.01, weight_decay=0.01)
        self.head = torch.randn(2, 768)
        self.ids = torch.tensor([[(100 + 97 * i + 31 * j) % 50000 for j in range(16)] for i in range(128)])

    def step(self):
        with torch.no_grad():
            wanted = (model.transformer(self.ids).last_hidden_state[:, -1] @ self.head.T).argmax(-1)
        self.adam.zero_grad()
        masked = {}
        for name, logits in self.logits.items():
            u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            soft = torch.sigmoid((logits + u.log() - (-u).log1p()) / 0.01)
            hard = (soft > 0.5).to(soft.dtype)
            masked[name] = self.blocks[name] * (hard - soft.detach() + soft)
        hidden = torch.func.functional_call(model.transformer, masked, (self.ids,)).last_hidden_state[:, -1]
        loss = torch.nn.functional.cross_entropy(hidden @ self.head.T, wanted)
        total = sum(logits.numel() for logits in self.logits.values())
        loss = loss + 10 * sum(torch.sigmoid(logits).sum() for logits in self.logits.values()) / total
        loss.backward()
        self.adam.step()


mask_training = None


def mask_step():
    global mask_training
    model.requires_grad_(False)
    mask_training = mask_training or MaskTraining()
    start = time.perf_counter()
    mask_training.step()
    return time.perf_counter() - start


EDITS, MEASURED = 198, 4


def fine_tune():
    """Edits of the study as its authors' code does them: a copy of the model, ten steps of SGD on all weights with masked
    gradients, every weight clamped, and the loss of the target after them. A few edits, scaled up."""
    generator = torch.Generator().manual_seed(3)
    mask = {n: (torch.rand(p.shape, generator=generator) < 0.05).float() for n, p in model.named_parameters() if ".h." in n}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in mask:
                p.mul_(mask[name])
    start = time.perf_counter()
    for i in range(MEASURED):
        edited = copy.deepcopy(model)
        before = {name: p.detach().clone() for name, p in edited.named_parameters()}
        sgd = torch.optim.SGD(edited.parameters(), lr=5e-4)
        prompt, target = [100 + 97 * i + 31 * j for j in range(12)], [2000 + i, 3000 + i]
        ids = torch.tensor([prompt + target])
        labels = torch.tensor([[-100] * len(prompt) + target])
        for _ in range(10):
            sgd.zero_grad()
            edited(ids, labels=labels).loss.backward()
            for name, p in edited.named_parameters():
                if name in mask:
                    p.grad.mul_(mask[name])
            sgd.step()
            with torch.no_grad():
                for name, p in edited.named_parameters():
                    p.clamp_(before[name] - 5e-4, before[name] + 5e-4)
        with torch.no_grad():
            edited(ids, labels=labels)
    return (time.perf_counter() - start) * EDITS / MEASURED


def trajectory():
    """Twenty mask steps of one trajectory after a first one. A few, scaled up."""
    mask_step()
    return sum(mask_step() for _ in range(4)) * 20 / 4


def score():
    """NLL of the target after each of 1,000 prompts, in padded batches of 32 with all their logits."""
    with torch.no_grad():
        for first in range(0, 1000, 32):
            rows = [prompt + target[:-1] for prompt, target in SCORED[first : first + 32]]
            ids, mask = padded(rows)
            log_p = model(ids, attention_mask=mask).logits.log_softmax(-1)
            for i, (prompt, target) in enumerate(SCORED[first : first + 32]):
                at = torch.arange(len(target)) + len(prompt) - 1
                -log_p[i, at, torch.tensor(target)].mean().item()


SCORED = [
    ([(100 + 97 * i + 31 * j) % 50000 for j in range(6 + i % 9)], [2000 + i, 3000 + i][: 1 + i % 2]) for i in range(1000)
]

# As greater-than pairs: the eighth of twelve tokens differs, and the metric compares sets of years.
YEARS = torch.tensor([[100 + 997 * (i % 40) + 31 * j for j in range(12)] for i in range(64)])
OTHER_YEARS = YEARS.clone()
OTHER_YEARS[:, 7] += 1


def eap(steps):
    model.requires_grad_(False)
    later, earlier = torch.arange(50).repeat(64, 1) + 3000, torch.arange(50).repeat(64, 1) + 4000
    assert SplitGpt2(model).score(YEARS, OTHER_YEARS, later, earlier, steps).abs().sum() > 0


def romes():
    """Twenty ROME edits. Two, scaled up."""
    prepared_rome()
    start = time.perf_counter()
    for _ in range(2):
        rome()
    return (time.perf_counter() - start) * 20 / 2


INVERSE = None


def prepared_rome():
    global INVERSE
    if INVERSE is None:
        INVERSE = make_inverse()
    rome()


WORK = {
    "sgemm": sgemm,
    "forward 1x16": lambda: forward(1, 16),
    "forward 8x16": lambda: forward(8, 16),
    "forward 8x64": lambda: forward(8, 64),
    "backward 8x16": lambda: backward(8, 16),
    "backward 8x64": lambda: backward(8, 64),
    "forward + backward": forward_backward,
    "mask step": mask_step,
    "ft": fine_tune,
    "rome": prepared_rome,
    "eap 64": lambda: eap(None),
    "eap-ig 64": lambda: eap(5),
    "score": score,
    "trajectory": trajectory,
    "20 rome": romes,
}

for line in sys.stdin:
    start = time.perf_counter()
    # A work that prepares or scales says its seconds itself.
    seconds = WORK[line.strip()]()
    print(time.perf_counter() - start if seconds is None else seconds, flush=True)
