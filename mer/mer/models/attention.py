"""Cross-modal attention: its scores (``ia``) or a whole transformer block (``it``, ``lt``)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

MLP_RATIO = 2


class CrossAttention(nn.Module):
    """Multi-head attention from one modality to the other (paper, section 5.2).

    Keys and values come from one sequence, queries from the other. Without projection biases,
    as in the published weights; ``kv`` holds keys first, then values.
    """

    def __init__(self, key_dim: int, query_dim: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (out_dim // num_heads) ** -0.5
        self.q = nn.Linear(query_dim, out_dim, bias=False)
        self.kv = nn.Linear(key_dim, 2 * out_dim, bias=False)
        self.proj = nn.Linear(out_dim, out_dim)

    def scores(self, keys: Tensor, queries: Tensor) -> Tensor:
        """(B, Nk, key_dim), (B, Nq, query_dim) to softmax weights (B, heads, Nq, Nk)."""
        # Half of ``kv`` at a time, for ``ia`` never uses the values.
        k = self._heads(functional.linear(keys, self.kv.weight[: self.kv.out_features // 2]))
        q = self._heads(self.q(queries))
        similarity: Tensor = (q @ k.transpose(-2, -1)) * self.scale
        return similarity.softmax(dim=-1)

    def forward(self, keys: Tensor, queries: Tensor) -> Tensor:
        """(B, Nk, key_dim), (B, Nq, query_dim) to (B, Nq, out_dim)."""
        values = self._heads(functional.linear(keys, self.kv.weight[self.kv.out_features // 2 :]))
        mixed = self.scores(keys, queries) @ values
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)


class TransformerBlock(nn.Module):
    """Normalise, attend, then an MLP with a residual around it.

    There is no residual around the attention: the queries and the output may differ in width,
    and the published code has none.
    """

    def __init__(self, key_dim: int, query_dim: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1_q = nn.LayerNorm(query_dim)
        self.norm1_k = nn.LayerNorm(key_dim)
        self.attn = CrossAttention(key_dim, query_dim, out_dim, num_heads)
        self.norm2 = nn.LayerNorm(out_dim)
        self.mlp = Mlp(out_dim, MLP_RATIO * out_dim)

    def forward(self, keys: Tensor, queries: Tensor) -> Tensor:
        """(B, Nk, key_dim), (B, Nq, query_dim) to (B, Nq, out_dim)."""
        x = self.attn(self.norm1_k(keys), self.norm1_q(queries))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU between; shape unchanged."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out
