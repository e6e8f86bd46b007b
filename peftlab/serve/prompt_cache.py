"""Keys and values of what was read before, by token ids: a radix tree, bounded in bytes.

As SGLang's RadixAttention (Zheng et al. 2024, arXiv:2312.07104, section 3): a node holds a run of
tokens, and what begins alike has its beginning in common. The least recently used leaf goes first.

There is a tree for every *holder* of keys and values, since the same tokens leave others in each:
the bare base, or an adapter by its edits' fingerprint; and so for every tenant, where these must
not notice each other's texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

Ids = tuple[int, ...]
Stacks = list[torch.Tensor]
"""Keys and values of a run of T tokens in all blocks, each [..., T, hd]; see
`KeyValueCache.copied`."""


class Holder(NamedTuple):
    """Whose keys and values: of which edits ("" are the bare base's), and of which tenant."""

    fingerprint: str = ""
    tenant: str = ""


@dataclass(eq=False)
class _Node:
    """A run of tokens after its parent's; a holder's root has none."""

    holder: Holder
    tokens: Ids = ()
    stacks: Stacks = field(default_factory=list)
    parent: _Node | None = None
    children: dict[int, _Node] = field(default_factory=dict)  # by their first token


class PromptCache:
    """All trees, under one limit.

    Args:
        limit: most bytes of keys and values. token_bytes: what one token takes.

    Attributes:
        bytes: of the keys and values that are held.
    """

    def __init__(self, limit: int, token_bytes: int) -> None:
        self.limit, self.token_bytes = limit, token_bytes
        self.bytes = 0
        self._roots: dict[Holder, _Node] = {}
        # The least recently used first. A node is used with all that lead to it, which come after
        # it here: so the first one is a leaf, always.
        self._order: OrderedDict[_Node, None] = OrderedDict()

    def match(self, holder: Holder, tokens: Ids, known: int = 0) -> list[Stacks]:
        """What is held of the longest known start of these tokens, from token `known` on.

        Returns:
            pieces end to end; views, so they are to be copied before anything is put.
        """
        pieces, node = list[Stacks](), self._roots.get(holder)
        if node is None:
            return []
        for at, child, same in self._walk(node, tokens):
            first = max(0, known - at)
            if first < same:
                pieces.append([stack[..., first:same, :] for stack in child.stacks])
            node = child
        self._touch(node)
        return pieces

    def put(self, holder: Holder, tokens: Ids, copied: Callable[[int, int], Stacks | None]) -> None:
        """Enter a row's start, or as much of it as there is room for.

        Args:
            copied: keys and values of tokens [first, stop), which have not been known before, in
                memory of their own; None: they cannot be kept.
        """
        root = self._roots.get(holder) or _Node(holder)
        node, at = root, 0
        for begun, child, same in self._walk(node, tokens):
            node = child if same == len(child.tokens) else self._split(child, same)
            at = begun + same
        self._touch(node)
        count = self._make_room(node, len(tokens) - at)
        stacks = copied(at, at + count) if count else None
        if stacks is not None:
            child = _Node(holder, tokens[at : at + count], stacks, node)
            node.children[tokens[at]] = child
            self.bytes += count * self.token_bytes
            self._touch(child)
            self._roots[holder] = root  # making room may have left it empty, and forgotten

    def retain(self, fingerprints: Collection[str]) -> None:
        """Drop the trees of all adapters but these; the bare base's stay."""
        gone = {it for it in self._roots if it.fingerprint and it.fingerprint not in fingerprints}
        for node in [node for node in self._order if gone and node.holder in gone]:
            self._forget(node)
        for holder in gone:
            del self._roots[holder]

    def clear(self) -> None:
        """Drop everything."""
        for node in list(self._order):
            self._forget(node)
        self._roots.clear()

    def _walk(self, node: _Node, tokens: Ids) -> Iterator[tuple[int, _Node, int]]:
        """The nodes that the tokens lead to: how many tokens come before, the node, how many of
        its tokens are theirs; only of the last one not all may be."""
        at = 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                return
            same = _common(child.tokens, tokens[at : at + len(child.tokens)])
            ends = same < len(child.tokens)  # now: it may be split meanwhile
            yield at, child, same
            if ends:
                return
            node, at = child, at + same

    def _split(self, node: _Node, count: int) -> _Node:
        """Make a node of its first tokens; copies, so that what one half takes can be freed."""
        assert node.parent is not None
        first = [stack[..., :count, :].clone() for stack in node.stacks]
        upper = _Node(node.holder, node.tokens[:count], first, node.parent)
        node.stacks = [stack[..., count:, :].clone() for stack in node.stacks]
        node.tokens, node.parent = node.tokens[count:], upper
        upper.children[node.tokens[0]] = node
        assert upper.parent is not None
        upper.parent.children[upper.tokens[0]] = upper
        self._order[upper] = None
        return upper

    def _touch(self, node: _Node) -> None:
        while node.parent is not None:
            self._order[node] = None
            self._order.move_to_end(node)
            node = node.parent

    def _make_room(self, end: _Node, count: int) -> int:
        """Evict until so many tokens can be put after a node that was just used; returns how many
        can be at most."""
        while self.bytes + count * self.token_bytes > self.limit:
            oldest = next(iter(self._order), None)
            if oldest is None or oldest is end:  # what leads to that node is all there is
                break
            self._evict(oldest)
        return min(count, (self.limit - self.bytes) // self.token_bytes)

    def _evict(self, leaf: _Node) -> None:
        assert leaf.parent is not None
        del leaf.parent.children[leaf.tokens[0]]
        self._forget(leaf)
        if not self._roots[leaf.holder].children:
            del self._roots[leaf.holder]

    def _forget(self, node: _Node) -> None:
        del self._order[node]
        node.stacks.clear()  # freed now; nodes hold each other until the garbage collector comes
        self.bytes -= len(node.tokens) * self.token_bytes


def _common(first: Ids, second: Ids) -> int:
    """How many tokens two runs begin with in common."""
    if first == second:
        return len(first)
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
