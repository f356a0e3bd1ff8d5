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


WORK = {"forward + backward": forward_backward}

for line in sys.stdin:
    start = time.perf_counter()
    WORK[line.strip()]()
    print(time.perf_counter() - start, flush=True)
