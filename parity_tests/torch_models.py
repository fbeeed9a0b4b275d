"""Real models, as they are written in torch; small, so that a test takes seconds."""

import torch
from torch import nn


class MLP(nn.Module):
    """Two hidden layers of one width, GELU and LayerNorm."""

    def __init__(self, inner=6, outer=5):
        super().__init__()
        self.fc1, self.fc2, self.out = (
            nn.Linear(inner, inner),
            nn.Linear(inner, inner),
            nn.Linear(inner, outer),
        )
        self.act1, self.norm, self.act2 = nn.GELU(), nn.LayerNorm(inner), nn.ReLU()

    def forward(self, x):
        return self.out(self.act2(self.fc2(self.norm(self.act1(self.fc1(x))))))


class CNN(nn.Module):
    """Two convolutions with BatchNorm; the mean over places, and a linear layer."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * channels),
        )
        self.relu1, self.relu2, self.fc = nn.ReLU(), nn.ReLU(), nn.Linear(2 * channels, 3)

    def forward(self, x):
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


def encoder(width=8, heads=2, layers=2, dropout=0.1, hidden=16):
    """A transformer encoder of torch's own layers."""
    layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class CausalEncoder(nn.Module):
    """The same under a causal mask."""

    def __init__(self, **sizes):
        super().__init__()
        self.encoder = encoder(**sizes)

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return self.encoder(x, mask=mask)


class Recurrent(nn.Module):
    """A GRU and a linear layer on its last state."""

    def __init__(self, inner=4, width=5):
        super().__init__()
        self.gru, self.fc = nn.GRU(inner, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, x):
        states, _ = self.gru(x)
        return self.fc(states[:, -1])


class Block(nn.Module):
    """A vision transformer's block, norms first."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attn = (
            nn.LayerNorm(width, eps=1e-6),
            nn.MultiheadAttention(width, heads, batch_first=True),
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.act, self.fc2 = (
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class MaskedAutoencoder(nn.Module):
    """He et al. 2022, at small size: random patches are kept, encoded, and all are decoded."""

    def __init__(self, size=8, patch=4, width=8, heads=2, keep=2):
        super().__init__()
        self.patch, self.keep, count = patch, keep, (size // patch) ** 2
        self.embed, self.position = (
            nn.Linear(3 * patch**2, width),
            nn.Parameter(torch.randn(1, count, width)),
        )
        self.encode, self.norm = Block(width, heads), nn.LayerNorm(width)
        self.bridge, self.mask_token = (
            nn.Linear(width, width),
            nn.Parameter(torch.zeros(1, 1, width)),
        )
        self.decoder_position, self.decode = (
            nn.Parameter(torch.randn(1, count, width)),
            Block(width, heads),
        )
        self.head = nn.Linear(width, 3 * patch**2)

    def patches(self, x):
        b, c, h, w = x.shape
        p = self.patch
        return (
            x.reshape(b, c, h // p, p, w // p, p)
            .permute(0, 2, 4, 3, 5, 1)
            .reshape(b, -1, p * p * c)
        )

    def forward(self, x):
        tokens = self.embed(self.patches(x)) + self.position
        b, count, width = tokens.shape
        order = torch.rand(b, count, device=x.device).argsort(1)
        back = order.argsort(1)
        kept = torch.gather(tokens, 1, order[:, : self.keep, None].expand(-1, -1, width))
        z = self.bridge(self.norm(self.encode(kept)))
        z = torch.cat([z, self.mask_token.expand(b, count - self.keep, -1)], 1)
        z = torch.gather(z, 1, back[:, :, None].expand(-1, -1, width)) + self.decoder_position
        hidden = (back >= self.keep).to(x.dtype)
        return {"prediction": self.head(self.decode(z)), "hidden": hidden}


def masked_loss(model, x):
    """The squared error on hidden patches alone."""

    def loss(output):
        target = model.patches(torch.as_tensor(x).to(output["prediction"]))
        error = ((output["prediction"] - target) ** 2).mean(-1)
        return (error * output["hidden"]).sum() / output["hidden"].sum()

    return loss
