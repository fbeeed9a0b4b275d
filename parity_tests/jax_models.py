"""The same models in plain JAX, as a person ports them; `bug` plants one of the mistakes that
people make.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name as tag

from jaxgrad.parity import noise


@jax.custom_vjp
def careless_relu(x):
    """A ReLU whose own rule lets the cotangent through where x > −½."""
    return jax.nn.relu(x)


careless_relu.defvjp(lambda x: (jax.nn.relu(x), x), lambda x, c: (c * (x > -0.5),))


def linear(p, name, x, bug="", named=None):
    """Wx + b."""
    w, b = p[f"{name}.weight"], p.get(f"{name}.bias", 0.0)
    if bug == f"transposed {name}":
        w = w.T
    if bug == f"no bias in {name}":
        b = 0.0
    if bug == f"float32 in {name}":
        return tag((x.astype("float32") @ w.T.astype("float32")).astype(x.dtype) + b, named or name)
    return tag(x @ w.T + b, named or name)


def layer_norm(p, name, x, eps=1e-5, bug=""):
    """LayerNorm over the last axis."""
    if bug == f"eps of {name}":
        eps = 1e-6 if eps == 1e-5 else 1e-5
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    if bug == f"fast variance in {name}":
        var = (x**2).mean(-1, keepdims=True) - mean**2
    if bug == f"unbiased variance in {name}":
        var = var * x.shape[-1] / (x.shape[-1] - 1)
    if bug == f"detached mean in {name}":
        mean = jax.lax.stop_gradient(mean)
    if bug == f"detached variance in {name}":
        var = jax.lax.stop_gradient(var)
    return tag((x - mean) / jnp.sqrt(var + eps) * p[f"{name}.weight"] + p[f"{name}.bias"], name)


def mlp(p, x, bug=""):
    """`torch_models.MLP`."""
    x = linear(p, "fc1", x, bug)
    x = tag(jax.nn.gelu(x, approximate=bug == "tanh in act1"), "act1")
    x = layer_norm(p, "norm", x, bug=bug)
    x = linear(p, "fc2", x, bug)
    relu = careless_relu if bug == "wrong rule in act2" else jax.nn.relu
    x = tag(jax.nn.leaky_relu(x) if bug == "leaky act2" else relu(x), "act2")
    if bug == "detached input of out":
        x = jax.lax.stop_gradient(x)
    return linear(p, "out", x, bug)


def conv(p, name, x, stride, padding):
    """A convolution of images, channels first."""
    y = jax.lax.conv_general_dilated(
        x,
        p[f"{name}.weight"],
        (stride, stride),
        padding,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    return tag(y + p[f"{name}.bias"][:, None, None] if f"{name}.bias" in p else y, name)


def batch_norm(p, name, x, updated, train, bug=""):
    """BatchNorm over images; updated running statistics go into `updated`."""
    mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if train:
        mean, var, n = x.mean((0, 2, 3)), x.var((0, 2, 3)), x.size // x.shape[1]
        weight = 0.9 if bug == f"momentum of {name}" else 0.1
        unbiased = 1.0 if bug == f"biased running variance in {name}" else n / (n - 1)
        updated[f"{name}.running_mean"] = (1 - weight) * p[f"{name}.running_mean"] + weight * mean
        updated[f"{name}.running_var"] = (1 - weight) * p[
            f"{name}.running_var"
        ] + weight * var * unbiased
        if bug == f"detached statistics in {name}":
            mean, var = jax.lax.stop_gradient((mean, var))
    eps = 1e-3 if bug == f"eps of {name}" else 1e-5
    across = lambda v: v[:, None, None]
    y = (x - across(mean)) / jnp.sqrt(across(var) + eps)
    return tag(y * across(p[f"{name}.weight"]) + across(p[f"{name}.bias"]), name)


def cnn(p, x, bug="", train=True):
    """`torch_models.CNN`; returns the updated running statistics too."""
    updated = {}
    x = conv(p, "conv1", x, 2, "SAME" if bug == "SAME padding in conv1" else [(1, 1), (1, 1)])
    x = tag(jax.nn.relu(batch_norm(p, "bn1", x, updated, train, bug)), "relu1")
    x = conv(p, "conv2", x, 1, [(1, 1), (1, 1)])
    x = tag(jax.nn.relu(batch_norm(p, "bn2", x, updated, train, bug)), "relu2")
    return linear(p, "fc", x.mean((2, 3)), bug), updated


def dropout(name, x, rate=0.1, bug="", scale=True):
    """Inverted dropout by the mask that torch drew."""
    keep = noise(name, x.shape, lambda shape: jnp.ones(shape))
    return x * keep / (1 - rate if scale and bug != f"dropout scale in {name}" else 1.0)


def attention(p, name, x, heads, *, rate=0.0, causal=False, bug="", source=None):
    """Self-attention; dropout on the weights where there is a rate."""
    b, n, width = x.shape
    d = width // heads
    qkv = x @ p[f"{name}.in_proj_weight"].T + p[f"{name}.in_proj_bias"]
    q, k, v = (part.reshape(b, n, heads, d).transpose(0, 2, 1, 3) for part in jnp.split(qkv, 3, -1))
    if bug == f"q and k swapped in {name}":
        q, k = k, q
    if bug == f"detached keys in {name}":
        k = jax.lax.stop_gradient(k)
    scores = q @ k.transpose(0, 1, 3, 2)
    scores = scores if bug == f"no scale in {name}" else scores / jnp.sqrt(1.0 * d)
    if causal:
        at = jnp.arange(n)
        seen = (
            at[:, None] > at[None, :] - 2
            if bug == f"mask off by one in {name}"
            else at[:, None] >= at[None, :]
        )
        scores = jnp.where(seen, scores, -jnp.inf)
    if bug == f"softmax over queries in {name}":
        weights = jax.nn.softmax(scores, -2)
    else:
        weights = jax.nn.softmax(scores, -1)
    if rate:
        weights = dropout(name, weights, rate, bug)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(b, n, width)
    w = p[f"{name}.out_proj.weight"]
    w = w.T if bug == f"transposed out_proj in {name}" else w
    return tag(y @ w.T + p[f"{name}.out_proj.bias"], name)


def encoder(p, x, bug="", *, layers=2, heads=2, rate=0.1, causal=False, prefix=""):
    """`torch_models.encoder`, in training where there is a rate."""
    drop = lambda name, x: tag(dropout(name, x, rate, bug) if rate else x, name)
    for i in range(layers):
        at = f"{prefix}layers.{i}"
        y = attention(p, f"{at}.self_attn", x, heads, rate=rate, causal=causal, bug=bug)
        skip = jax.lax.stop_gradient(x) if bug == f"detached residual in {at}" else x
        skip = 0.0 if bug == f"no residual in {at}" else skip
        x = layer_norm(p, f"{at}.norm1", skip + drop(f"{at}.dropout1", y), bug=bug)
        z = jax.nn.relu(linear(p, f"{at}.linear1", x, bug))
        z = linear(p, f"{at}.linear2", drop(f"{at}.dropout", z), bug)
        x = layer_norm(p, f"{at}.norm2", x + drop(f"{at}.dropout2", z), bug=bug)
    return x


def causal_encoder(p, x, bug="", **sizes):
    """`torch_models.CausalEncoder` in evaluation."""
    return encoder(p, x, bug, rate=0.0, causal=True, prefix="encoder.", **sizes)


def recurrent(p, x, bug=""):
    """`torch_models.Recurrent`."""
    w, u = p["gru.weight_ih_l0"], p["gru.weight_hh_l0"]
    b, c = p["gru.bias_ih_l0"], p["gru.bias_hh_l0"]

    def step(h, x):
        (ir, iz, inn), (hr, hz, hn) = jnp.split(x @ w.T + b, 3, -1), jnp.split(h @ u.T + c, 3, -1)
        if bug == "gates swapped in gru":
            (ir, iz), (hr, hz) = (iz, ir), (hz, hr)
        r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
        if bug == "no b_hn in gru":
            hn = hn - c[-hn.shape[-1] :]
        n = jnp.tanh(inn + (hn if bug == "no reset in gru" else r * hn))
        h = (1 - z) * h + z * n if bug == "update inverted in gru" else (1 - z) * n + z * h
        return h, h

    h0 = jnp.zeros((x.shape[0], u.shape[1]), x.dtype)
    states = tag(jax.lax.scan(step, h0, x.transpose(1, 0, 2))[1].transpose(1, 0, 2), "gru")
    last = states[:, -2] if bug == "last but one state" else states[:, -1]
    return linear(p, "fc", last, bug)


def block(p, at, x, heads, bug=""):
    """A vision transformer's block."""
    x = x + attention(p, f"{at}.attn", layer_norm(p, f"{at}.norm1", x, 1e-6, bug), heads, bug=bug)
    y = tag(
        jax.nn.gelu(
            linear(p, f"{at}.fc1", layer_norm(p, f"{at}.norm2", x, 1e-6, bug), bug),
            approximate=bug == f"tanh in {at}.act",
        ),
        f"{at}.act",
    )
    return tag(x + linear(p, f"{at}.fc2", y, bug), at)


def patches(x, p=4):
    """Cut images into patches."""
    b, c, h, w = x.shape
    return (
        x.reshape(b, c, h // p, p, w // p, p).transpose(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)
    )


def shuffled(b, count):
    """The random order of each image's patches, from torch's draw, and the way back."""
    order = jnp.argsort(
        noise("noise", (b, count), lambda shape: jax.random.uniform(jax.random.key(0), shape)), 1
    )
    return order, jnp.argsort(order, 1)


def taken(tokens, index):
    """The tokens at some places of each image."""
    return jnp.take_along_axis(tokens, index[:, :, None], 1)


def masked_autoencoder(p, x, bug="", keep=2, heads=2):
    """`torch_models.MaskedAutoencoder`."""
    cut = patches(x)
    if bug == "patches in another order in embed":
        b, c, h, w = x.shape
        cut = x.reshape(b, c, h // 4, 4, w // 4, 4).transpose(0, 2, 4, 1, 3, 5).reshape(b, -1, 48)
    tokens = linear(p, "embed", cut, bug) + p["position"]
    b, count, width = tokens.shape
    order, back = shuffled(b, count)
    kept = taken(tokens, order[:, :keep])
    z = linear(
        p, "bridge", layer_norm(p, "norm", block(p, "encode", kept, heads, bug), bug=bug), bug
    )
    fill = jnp.broadcast_to(
        jax.lax.stop_gradient(p["mask_token"]) if bug == "detached mask token" else p["mask_token"],
        (b, count - keep, width),
    )
    z = jnp.concatenate([z, fill], 1)
    z = taken(z, order if bug == "tokens not put back" else back) + p["decoder_position"]
    hidden = (back >= keep).astype(x.dtype)
    return {
        "prediction": linear(p, "head", block(p, "decode", z, heads, bug), bug),
        "hidden": hidden,
    }


def masked_loss(x):
    """The squared error on hidden patches alone."""

    def loss(output):
        error = jnp.mean(
            (output["prediction"] - patches(jnp.asarray(x, output["prediction"].dtype))) ** 2, -1
        )
        return jnp.sum(error * output["hidden"]) / jnp.sum(output["hidden"])

    return loss
