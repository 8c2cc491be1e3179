"""Writes the files of this folder: python3 make.py, with Equinox (0.13.8 was used)."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

ramp = lambda shape, add: (np.arange(np.prod(shape, dtype=int), dtype=np.float32) / 8 - 1 + add).reshape(shape)


def filled(module):
    """The module with leaf i = ramp + i."""
    leaves, tree = jax.tree_util.tree_flatten(eqx.filter(module, eqx.is_array))
    leaves = [jnp.asarray(ramp(x.shape, i)) for i, x in enumerate(leaves)]
    return eqx.combine(jax.tree_util.tree_unflatten(tree, leaves), module)


hyper = dict(in_size=2, out_size=2, width_size=3, depth=2)
mlp = filled(eqx.nn.MLP(**hyper, activation=jnp.tanh, key=jax.random.key(0)))
eqx.tree_serialise_leaves("mlp.eqx", mlp)
with open("hyper.eqx", "wb") as f:
    f.write((json.dumps(hyper | {"activation": "tanh"}) + "\n").encode())
    eqx.tree_serialise_leaves(f, mlp)


class Func(eqx.Module):
    """As in diffrax's examples: a scale in front of the MLP."""

    scale: jax.Array
    mlp: eqx.nn.MLP


eqx.tree_serialise_leaves("func.eqx", Func(jnp.asarray(0.5), mlp))

with open("arrays.eqx", "wb") as f:  # what Equinox itself does not write, but NumPy does
    np.save(f, np.asfortranarray(ramp((2, 3), 0)))
    np.save(f, ramp((2, 2), 0).astype(np.float64))
    np.save(f, ramp((3,), 0).astype(np.float16))
    np.lib.format.write_array(f, ramp((1, 2, 2), 0), version=(2, 0))

np.save("integers.npy", np.arange(3))
np.save("bigendian.npy", np.arange(3).astype(">f4"))
