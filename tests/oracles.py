"""Oracles for models and operations: plain NumPy, one sentence at a time, with a loop for each sum.

They read the parameter trees of the models and share no code with the library.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def cell_step(cell, p, state, x):
    """One step of one sentence. The state is h, or (c, h) for an LSTM; x = W e + b."""
    if cell == "simple":
        return np.tanh(x + state @ p["recurrent"])
    if cell == "gru":
        n = len(state)
        r = sigmoid(x[:n] + state @ p["gates"][:, :n])
        z = sigmoid(x[n : 2 * n] + state @ p["gates"][:, n:])
        candidate = np.tanh(x[2 * n :] + (r * state) @ p["candidate"])
        return z * state + (1 - z) * candidate
    c, h = state
    i, f, g, o = np.split(x + h @ p["recurrent"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def output(state):
    return state[1] if isinstance(state, tuple) else state


def zero_state(cell, n):
    return (np.zeros(n), np.zeros(n)) if cell == "lstm" else np.zeros(n)


def layer(cell, p, inputs, state, *, shift=0.0):
    """A recurrent layer over the tokens of one sentence: its last state and its outputs."""
    outputs = []
    for e in inputs:
        state = cell_step(cell, p, state, e @ p["kernel"] + p["bias"] + shift)
        outputs.append(output(state))
    return state, np.array(outputs)


def seq2seq(config, p, src, tgt_in):
    """Logits [T, V] of one sentence without padding."""
    x = p["src_embedding"]["embedding"][src]
    states = []
    for l in range(config.layers):
        inputs = x[::-1] if config.reverse_source else x
        state, out = layer(
            config.cell, p[f"encoder_{l}"], inputs, zero_state(config.cell, config.hidden)
        )
        x = out[::-1] if config.reverse_source else out
        states.append(state)
    fixed = output(states[-1])
    x = p["tgt_embedding"]["embedding"][tgt_in]
    for l in range(config.layers):
        every_step = config.context_every_step and l == 0
        shift = fixed @ p["context_in"]["kernel"] if every_step else 0.0
        _, x = layer(config.cell, p[f"decoder_{l}"], x, states[l], shift=shift)
    logits = dense(p["logits"], x)
    return logits + fixed @ p["context_out"] if config.context_every_step else logits


def rnn_attention(config, p, src, tgt_in):
    """Logits [T, V] and attention [T, S] of one sentence without padding."""
    x = p["src_embedding"]["embedding"][src]
    starts = []
    for l in range(config.layers):
        gates = {"simple": 1, "gru": 3, "lstm": 4}[config.cell]
        side = p[f"forwards_{l}"]["kernel"].shape[1] // gates
        last, right = layer(config.cell, p[f"forwards_{l}"], x, zero_state(config.cell, side))
        first, left = layer(
            config.cell, p[f"backwards_{l}"], x[::-1], zero_state(config.cell, side)
        )
        x = np.concatenate([right, left[::-1]], -1)
        h = np.tanh(dense(p[f"bridges_{l}"], np.concatenate([output(last), output(first)])))
        starts.append((np.zeros_like(h), h) if config.cell == "lstm" else h)
    values = x

    def attend(h):
        scores = []
        for value in values:
            if config.score == "additive":
                scores.append(p["v"] @ np.tanh(h @ p["query"] + dense(p["keys"], value)))
            elif config.score == "general":
                scores.append(h @ (value @ p["keys"]["kernel"]))
            else:
                scores.append(h @ value)
        attention = softmax(np.array(scores))
        return attention, sum(a * value for a, value in zip(attention, values, strict=True))

    states, vector, logits, maps = starts, np.zeros(config.hidden), [], []
    for token in tgt_in:
        e = p["tgt_embedding"]["embedding"][token]
        decoder = [p[f"decoder_{l}"] for l in range(config.layers)]
        x = e @ decoder[0]["kernel"] + decoder[0]["bias"]
        if config.attention_type == "bahdanau":
            attention, context = attend(output(states[0]))
            x = x + context @ p["context"]
        elif config.attention_type == "luong":
            x = x + vector @ p["feed"]
        new = []
        for l in range(config.layers):
            if l:
                x = output(new[-1]) @ decoder[l]["kernel"] + decoder[l]["bias"]
            new.append(cell_step(config.cell, decoder[l], states[l], x))
            if config.attention_type == "conditional" and l == 0:
                q = p["second"]
                attention, context = attend(output(new[0]))
                new[0] = cell_step(config.cell, q, new[0], context @ q["kernel"] + q["bias"])
        states, h = new, output(new[-1])
        if config.attention_type != "luong":
            parts = zip((h, e, context), (p[f"readout_{i}"] for i in range(3)), strict=True)
            top = np.tanh(sum(dense(q, part) for part, q in parts))
        else:
            attention, context = attend(h)
            top = vector = np.tanh(context @ p["combine_context"] + h @ p["combine_state"])
        tied = config.tie_embeddings
        table = p["tgt_embedding"]["embedding"]
        logits.append(top @ table.T + p["bias"] if tied else dense(p["logits"], top))
        maps.append(attention)
    return np.array(logits), np.array(maps)


def positions(length, width):
    table = np.zeros((length, width))
    for pos in range(length):
        for i in range(width // 2):
            table[pos, 2 * i] = np.sin(pos / 10000 ** (2 * i / width))
            table[pos, 2 * i + 1] = np.cos(pos / 10000 ** (2 * i / width))
    return table


def layer_norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def heads_attention(p, x, y, allowed):
    """Queries from x [T, D], keys and values from y [S, D], one head after another."""
    out, maps = 0, []
    for h in range(p["wq"].shape[1]):
        q, k, v = x @ p["wq"][:, h], y @ p["wk"][:, h], y @ p["wv"][:, h]
        scores = np.where(allowed, q @ k.T / np.sqrt(q.shape[-1]), -1e30)
        maps.append(softmax(scores))
        out = out + maps[-1] @ v @ p["wo"][h]
    return out, np.array(maps)


def transformer(config, p, src, tgt_in):
    """Logits [T, V] and attention maps of one sentence without padding.

    The maps are "encoder-decoder" [L * H, T, S], "encoder" [L * H, S, S], "decoder" [L * H, T, T].
    """
    maps = {"encoder-decoder": [], "encoder": [], "decoder": []}

    def attend(kind, q, y, allowed):
        def sublayer(x):
            out, attention = heads_attention(q, x, x if y is None else y, allowed)
            maps[kind].append(attention)
            return out

        return sublayer

    def around(q, x, sublayer):
        if config.norm == "pre":
            return x + sublayer(layer_norm(q["norm"], x))
        return layer_norm(q["norm"], x + sublayer(x))

    def feed_forward(q):
        return lambda x: dense(q["Dense_1"], np.maximum(dense(q["Dense_0"], x), 0))

    D = config.width
    tables = p["tgt_embedding"]["embedding"]
    x = p.get("src_embedding", p["tgt_embedding"])["embedding"][src] * np.sqrt(D)
    x = x + positions(len(src), D)
    for l in range(config.layers):
        q = p[f"encoder_{l}"]
        x = around(q["add_norms_0"], x, attend("encoder", q["attention"], None, True))
        x = around(q["add_norms_1"], x, feed_forward(q["feed_forward"]))
    memory = layer_norm(p["final_norms_0"], x) if config.norm == "pre" else x
    x = tables[tgt_in] * np.sqrt(D) + positions(len(tgt_in), D)
    past = np.tril(np.ones((len(tgt_in), len(tgt_in)), bool))
    for l in range(config.layers):
        q = p[f"decoder_{l}"]
        x = around(q["add_norms_0"], x, attend("decoder", q["self_attention"], None, past))
        cross = attend("encoder-decoder", q["cross_attention"], memory, True)
        x = around(q["add_norms_1"], x, cross)
        x = around(q["add_norms_2"], x, feed_forward(q["feed_forward"]))
    if config.norm == "pre":
        x = layer_norm(p["final_norms_1"], x)
    logits = x @ tables.T if config.tie_embeddings else dense(p["logits"], x)
    return logits, {kind: np.concatenate(parts) for kind, parts in maps.items()}
