# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The reference's layout in plain PyTorch: T5 v1.1 layers, joint rows, the losses, AdamW.

What `step.py --time` compares with. Every (question, passage) pair is one row of `row` tokens through all encoder
layers with a block mask in the lower half; stage 1 repeats the passages for the second language and encodes all rows
once more without gradient. Weights come from class_jax's parameter tree. Axes by the legend in `class_jax.models`.
Dropout is left out on both sides.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from class_jax.models.layers import relative_buckets

MASKED = -1e9


class Norm(nn.Module):
    """T5's RMS norm."""

    def __init__(self, width, epsilon):
        super().__init__()
        self.scale, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x):
        """Normalises the last axis."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.scale


class Attention(nn.Module):
    """Unscaled multi-head attention without biases, its norm and its residual."""

    def __init__(self, config):
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.norm = Norm(config.d_model, config.layer_norm_epsilon)
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.heads = config.num_heads

    def split(self, x):
        """[R, T, H * K] -> [R, H, T, K]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, bias, memory=None):
        """Attends to x or to `memory`: the result, the weights, and the queries and keys."""
        normed = self.norm(x)
        source = normed if memory is None else memory
        q, k, v = self.split(self.q(normed)), self.split(self.k(source)), self.split(self.v(source))
        weights = torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1)
        return x + self.o((weights @ v).transpose(1, 2).flatten(-2)), weights, (q, k)


class FeedForward(nn.Module):
    """Gated GELU with its norm and residual."""

    def __init__(self, config):
        super().__init__()
        self.norm = Norm(config.d_model, config.layer_norm_epsilon)
        self.wi_0, self.wi_1 = (nn.Linear(config.d_model, config.d_ff, bias=False) for _ in range(2))
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x):
        """[R, T, D] -> [R, T, D]."""
        normed = self.norm(x)
        return x + self.wo(functional.gelu(self.wi_0(normed), approximate="tanh") * self.wi_1(normed))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config):
        super().__init__()
        self.attention, self.mlp = Attention(config), FeedForward(config)

    def forward(self, x, bias):
        """[R, T, D] -> [R, T, D], and the queries and keys."""
        x, _, compared = self.attention(x, bias)
        return self.mlp(x), compared


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward."""

    def __init__(self, config):
        super().__init__()
        self.self_attention, self.cross_attention = Attention(config), Attention(config)
        self.mlp = FeedForward(config)

    def forward(self, x, bias, memory, memory_bias):
        """[R, A, D] -> [R, A, D], and the weights of cross-attention."""
        x, _, _ = self.self_attention(x, bias)
        x, weights, _ = self.cross_attention(x, memory_bias, memory)
        return self.mlp(x), weights


class Reference(nn.Module):
    """The model over joint rows of `row` tokens."""

    def __init__(self, config, row):
        super().__init__()
        self.config, self.row = config, row
        D, V, H = config.d_model, config.vocab_size, config.num_heads
        self.embedding = nn.Embedding(V, D)
        self.encoder_bias = nn.Embedding(config.relative_attention_num_buckets, H)
        self.decoder_bias = nn.Embedding(config.relative_attention_num_buckets, H)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.encoder_norm, self.decoder_norm = (Norm(D, config.layer_norm_epsilon) for _ in range(2))
        self.head = nn.Linear(D, V, bias=False)

    def positions(self, table, size, bidirectional):
        """Relative position bias, [1, H, size, size]."""
        config = self.config
        buckets = relative_buckets(
            size,
            size,
            bidirectional=bidirectional,
            buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        return table(torch.from_numpy(buckets).long()).permute(2, 0, 1)[None]

    def encode(self, ids, question, passage, only_retriever=False):
        """Rows [R, T] -> states [R, T, D], query and passage vectors [R, T, K]; ends after layer B where asked to."""
        config, bias = self.config, self.positions(self.encoder_bias, ids.shape[1], True)
        filled = question | passage
        same = (question[:, :, None] & question[:, None]) | (~question[:, :, None] & passage[:, None])
        block = bias + torch.where(same, 0.0, MASKED)[:, None]
        joint = bias + torch.where(filled, 0.0, MASKED)[:, None, None]
        x = self.embedding(ids)
        for index, layer in enumerate(self.encoder):
            x, compared = layer(x, block if index < config.retriever_layer else joint)
            if index == config.retriever_layer:
                vectors = tuple(projected[:, config.retriever_head] for projected in compared)
                if only_retriever:
                    return None, *vectors
        return self.encoder_norm(x), *vectors

    def forward(self, rows, answers, only_retriever=False):
        """Reads questions of N rows each: (logits [R,A,V], P_ca [R,N]) or Nones, and what is scored."""
        ids, question, passage = rows
        R, N, T = ids.shape
        states, queries, passages = self.encode(*(x.flatten(0, 1) for x in rows), only_retriever)
        scored = queries.unflatten(0, (R, N)).mean(1), question[:, 0], passages, passage.flatten(0, 1)
        if only_retriever:
            return None, None, scored
        memory = states.reshape(R, N * T, -1)
        filled = (question | passage).reshape(R, N * T)
        memory_bias = torch.where(filled, 0.0, MASKED)[:, None, None]
        A = answers.shape[1]
        x = self.embedding(functional.pad(answers, (1, 0))[:, :A])
        bias = self.positions(self.decoder_bias, A, False) + torch.full((A, A), MASKED).triu(1)
        for layer in self.decoder:
            x, weights = layer(x, bias, memory, memory_bias)
        attention = weights[:, :, 0].unflatten(-1, (N, T)).sum(-1).mean(1)
        return self.head(self.decoder_norm(x)), attention, scored


def load(model, params):
    """Copies class_jax's parameter tree into the model."""
    names = {"kernel": "weight", "embedding": "weight"}
    found = {
        "embedding.weight": params["embed"]["embedding"],
        "head.weight": params["head"]["kernel"].T,
        **{f"{side}_bias.weight": params[side]["relative_bias"]["embedding"] for side in ("encoder", "decoder")},
        **{f"{side}_norm.scale": params[side]["norm"]["scale"] for side in ("encoder", "decoder")},
    }
    groups = (("encoder", "retriever_layers", 0), ("encoder", "reader_layers", model.config.retriever_layer))
    for side, group, first in (*groups, ("decoder", "layers", 0)):
        for part, tree in params[side][group].items():
            for name, leaf in tree.items():
                kind, array = next(iter(leaf.items())) if isinstance(leaf, dict) else (name, leaf)
                key = f"{part}.{name}" + (f".{names[kind]}" if kind in names else "" if name == kind else f".{kind}")
                for index, layer in enumerate(np.asarray(array)):
                    if kind == "kernel":
                        width = layer.shape[-1] if name == "o" else layer.shape[0]
                        layer = layer.reshape(-1, width).T if name == "o" else layer.reshape(width, -1).T
                    found[f"{side}.{first + index}.{key}"] = layer
    state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in found.items()}
    model.load_state_dict(state)
    return model


def joint_rows(batch, row, prefix=""):
    """Rows [R, N, T] of question, passage, padding, with both masks; R counts the passages' copies in stage 1."""
    questions, lengths, passages, sizes = (batch.read_by_teacher() if prefix else batch)[:4]
    R, (B, N) = len(questions), sizes.shape
    ids, question, passage = (np.zeros((R, N, row), kind) for kind in (np.int64, bool, bool))
    for r in range(R):
        q = lengths[r]
        ids[r, :, :q], question[r, :, :q] = questions[r, :q], True
        for n, p in enumerate(sizes[r % B]):
            ids[r, n, q : q + p], passage[r, n, q : q + p] = passages[r % B, n, :p], True
    return tuple(map(torch.from_numpy, (ids, question, passage)))


def all_scores(queries, query_mask, passages, passage_mask):
    """MaxSim of every question with every passage, question by question as the reference does: [B, M]."""
    found = []
    for one in queries:
        match = (one @ passages.transpose(1, 2)).masked_fill(~passage_mask[:, None], MASKED)
        found.append(match.amax(-1))
    return torch.stack(found).masked_fill(~query_mask[:, None], 0.0).sum(-1)


def divergence(target, log_student):
    """KL(target || student) over the last axis."""
    return functional.kl_div(log_student, target, reduction="none").sum(-1)


def reading_loss(logits, answers, lengths):
    """Mean over questions of the token-mean cross-entropy, and the tokens' mask."""
    mask = torch.arange(answers.shape[1]) < lengths[:, None]
    each = functional.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").view_as(mask)
    return (each * mask).sum(1) / lengths, mask


def end_to_end(model, batch, alpha=8.0):
    """Computes the loss and its gradient; returns the loss."""
    rows, answers, lengths = batch
    logits, attention, (queries, query_mask, passages, passage_mask) = model(rows, answers)
    R, N = attention.shape
    own = zip(queries, query_mask, passages.unflatten(0, (R, N)), passage_mask.unflatten(0, (R, N)), strict=True)
    scores = torch.cat([all_scores(q[None], m[None], p, n) / m.sum() for q, m, p, n in own])
    reader, _ = reading_loss(logits, answers, lengths)
    loss = (reader + alpha * divergence(attention.detach(), scores.log_softmax(-1))).mean()
    loss.backward()
    return loss.item()


def stage1(model, teacher, batch, alpha=8.0):
    """Computes the loss and its gradient by way of the vectors' (the extra pass); returns the loss."""
    rows, teacher_rows, answers, lengths = batch
    B = len(answers) // 2
    with torch.no_grad():
        # The teacher's own tokens of the answer have no part in its first position, the only one used.
        _, taught_attention, scored = teacher(teacher_rows, torch.zeros_like(answers[:B]))
        taught = all_scores(*scored).softmax(-1)
        queries, query_mask, passages, passage_mask = model(rows, answers, only_retriever=True)[2]
    queries.requires_grad_()
    passages.requires_grad_()
    M = len(passages) // 2
    english, parallel = (
        all_scores(queries[q], query_mask[q], passages[p], passage_mask[p]).log_softmax(-1)
        for q, p in ((slice(B), slice(M)), (slice(B, None), slice(M, None)))
    )
    retriever = divergence(taught, english) + divergence(taught, parallel)
    retriever = alpha * (retriever + divergence(english.detach().exp(), parallel)).mean()
    retriever.backward()
    logits, attention, (new_queries, _, new_passages, _) = model(rows, answers)
    reader, mask = reading_loss(logits, answers, lengths)
    apart = divergence(logits[:B].detach().softmax(-1), logits[B:].log_softmax(-1))
    reading = reader.mean() + ((apart * mask[:B]).sum(1) / lengths[:B]).mean()
    reading = reading + divergence(torch.cat([taught_attention] * 2), attention.log()).mean()
    surrogate = (new_queries * queries.grad).sum() + (new_passages * passages.grad).sum()
    (reading + surrogate).backward()
    return reading.item() + retriever.item()


def make_step(config, params, row, learning_rate, teacher=None, teacher_params=None, clip=1.0):
    """Returns `prepare(batch)`, which makes tensors of a batch of class_jax's feed, and `loss = step(tensors)`."""
    model = load(Reference(config, row), params)
    decayed = [p for name, p in model.named_parameters() if "_bias" not in name]
    free = [p for name, p in model.named_parameters() if "_bias" in name]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)
    other = None if teacher is None else load(Reference(teacher, row), teacher_params)

    def prepare(batch):
        longest = int(batch.answer_lengths.max())  # the reference pads answers to the longest
        answers = torch.from_numpy(batch.answer_ids[:, :longest].astype(np.int64))
        rows = [joint_rows(batch, row)] + ([] if other is None else [joint_rows(batch, row, "teacher_")])
        return *rows, answers, torch.from_numpy(batch.answer_lengths.astype(np.int64))

    def step(tensors):
        loss = end_to_end(model, tensors) if other is None else stage1(model, other, tensors)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return prepare, step
