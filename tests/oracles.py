"""Oracles for models and operations: plain NumPy, one sentence at a time, with a loop for each sum.

They read the parameter trees of the models and share no code with the library.
"""

import math

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
    if cell == "gru-reset-after":
        x_r, x_z, x_h = np.split(x, 3)
        u_r, u_z, u_h = np.split(state @ p["recurrent"] + p["recurrent_bias"], 3)
        r, z = sigmoid(x_r + u_r), sigmoid(x_z + u_z)
        return z * state + (1 - z) * np.tanh(x_h + r * u_h)
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
        gates = {"simple": 1, "gru": 3, "gru-reset-after": 3, "lstm": 4}[config.cell]
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


def positions_halves(length, width, frequencies):
    angles = np.arange(length)[:, None] * np.array(frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1)


def bucket(distance, buckets, max_distance, bidirectional):
    """The bucket of one distance from a query to a key (Raffel 2020)."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    growth = np.log(distance / exact) / np.log(max_distance / exact)
    return first + min(exact + int(growth * (buckets - exact) + 1e-9), buckets - 1)


def layer_norm(p, x, epsilon=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * p["scale"] + p["bias"]


def rms_norm(p, x, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * p["scale"]


def heads_attention(config, p, x, y, allowed, bias):
    """Queries from x [T, D], keys and values from y [S, D], one head after another."""

    def project(letter, rows, h):
        return rows @ p[f"w{letter}"][:, h] + (p[f"b{letter}"][h] if "bq" in p else 0)

    out, maps = p.get("bo", 0), []
    for h in range(p["wq"].shape[1]):
        q, k, v = project("q", x, h), project("k", y, h), project("v", y, h)
        scores = q @ k.T / (np.sqrt(q.shape[-1]) if config.scale_scores else 1)
        scores = np.where(allowed, scores + (0 if bias is None else bias[h]), -1e30)
        maps.append(softmax(scores))
        out = out + maps[-1] @ v @ p["wo"][h]
    return out, np.array(maps)


ERF = np.vectorize(math.erf)

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + ERF(x / np.sqrt(2))) / 2,
    "gelu-tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def encodings(config, table, length):
    """What is added to embeddings, [length, D]."""
    D, offset = config.width, config.position_offset
    if config.positions == "relative":
        return np.zeros((length, D))
    if config.positions == "learned":
        return table["table"][offset : offset + length]
    if config.positions == "sinusoidal":
        return positions(offset + length, D)[offset:]
    last = D // 2 - (config.positions == "sinusoidal-tensor2tensor")
    frequencies = [10000 ** (-i / last) for i in range(D // 2)]
    return positions_halves(offset + length, D, frequencies)[offset:]


def transformer(config, p, src, tgt_in):
    """Logits [T, V] and attention maps of one sentence without padding.

    The maps are "encoder-decoder" [L * H, T, S], "encoder" [L * H, S, S], "decoder" [L * H, T, T].
    """
    c, D = config, config.width
    maps = {"encoder-decoder": [], "encoder": [], "decoder": []}

    def norm(q, x):
        return (layer_norm if c.norm_type == "layer" else rms_norm)(q, x, c.norm_epsilon)

    def attend(kind, q, y, allowed, bias=None):
        def sublayer(x):
            rows = x if y is None else y
            out, attention = heads_attention(c, q, x, rows, allowed, bias)
            maps[kind].append(attention)
            return out

        return sublayer

    def around(q, x, sublayer):
        if c.norm == "pre":
            return x + sublayer(norm(q["norm"], x))
        return norm(q["norm"], x + sublayer(x))

    def feed_forward(q):
        def sublayer(x):
            hidden = ACTIVATIONS[c.activation](dense(q["Dense_0"], x))
            return dense(q["Dense_1"], hidden * (dense(q["linear"], x) if c.gated else 1))

        return sublayer

    def embed(stack, table, tokens):
        side = "src_positions" if stack == 0 else "tgt_positions"
        x = table[tokens] * (np.sqrt(D) if c.scale_embeddings else 1)
        x = x + encodings(c, p.get(side), len(tokens))
        return norm(p[f"embedding_norms_{stack}"], x) if c.embedding_norm else x

    def relative(side, layer, length):
        """The bias of the scores, [H, T, T]."""
        if c.positions != "relative":
            return None
        table = p[f"{side}_bias_{layer if c.relative_every_layer else 0}"]["table"]
        how = (c.relative_buckets, c.relative_max_distance, side == "encoder")
        rows = [[table[bucket(k - q, *how)] for k in range(length)] for q in range(length)]
        return np.moveaxis(np.array(rows), -1, 0)

    table = p["tgt_embedding"]["embedding"]
    x = embed(0, p.get("src_embedding", p["tgt_embedding"])["embedding"], src)
    for l in range(c.layers):
        q, bias = p[f"encoder_{l}"], relative("encoder", l, len(src))
        x = around(q["add_norms_0"], x, attend("encoder", q["attention"], None, True, bias))
        x = around(q["add_norms_1"], x, feed_forward(q["feed_forward"]))
    memory = norm(p["final_norms_0"], x) if c.norm == "pre" else x
    x = embed(1, table, tgt_in)
    past = np.tril(np.ones((len(tgt_in), len(tgt_in)), bool))
    for l in range(c.decoder_layers or c.layers):
        q, bias = p[f"decoder_{l}"], relative("decoder", l, len(tgt_in))
        x = around(q["add_norms_0"], x, attend("decoder", q["self_attention"], None, past, bias))
        cross = attend("encoder-decoder", q["cross_attention"], memory, True)
        x = around(q["add_norms_1"], x, cross)
        x = around(q["add_norms_2"], x, feed_forward(q["feed_forward"]))
    if c.norm == "pre":
        x = norm(p["final_norms_1"], x)
    if c.scale_outputs:
        x = x / np.sqrt(D)
    output = {**p.get("logits", {}), **({"kernel": table.T} if c.tie_embeddings else {})}
    return dense(output, x), {kind: np.concatenate(parts) for kind, parts in maps.items()}
