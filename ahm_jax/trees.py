"""Nested dicts of arrays as flat ones, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

SEPARATOR = '/'


def flatten(tree: Any) -> dict[str, Any]:
  """{'a': {'b': x}} as {'a/b': x}."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator=SEPARATOR): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for path, leaf in flat.items():
    *nodes, last = path.split(SEPARATOR)
    node = tree
    for name in nodes:
      node = node.setdefault(name, {})
    node[last] = leaf
  return tree


def replaced(tree: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
  """`tree` with copies of the leaves that `parts`, a tree of some of its paths, has in their place."""
  result = dict(tree)
  for name, part in parts.items():
    result[name] = replaced(tree[name], part) if isinstance(part, Mapping) else jnp.array(part)
  return result
