"""At which noise levels there is something to learn, measured from samples.

With the unit-variance target of Eq. 8 a network whose output is 0 has the loss 1 at every σ, and the best possible one
L*(σ) = m(σ)/c_out(σ)², m being the smallest mean squared error per element of any denoiser. r(σ) = 1 − L*(σ) is what
training can gain (Figure 5a of the paper draws it). It vanishes at high noise, where D is the mean, and at low noise,
where D ≈ x. Two denoisers that need no training bound m from above:

- the linear one: in uncorrelated coordinates of variances λ_i, m(σ) = mean_i λ_i·σ²/(λ_i + σ²);
- the ideal denoiser of the other samples (Appendix B.3), which knows their shape where samples are dense.
"""

from __future__ import annotations

import math

import torch

from diffspace._shapes import Float, Tensor

_PCA_LIMIT = 1024  # elements: beyond it the eigenvectors cost seconds
_WINDOW = 128  # elements along a side: structure that is hard to learn is finer than that
_NEIGHBOUR_LIMIT = 128  # elements: beyond it a few thousand samples are never dense
_QUERIES, _REFERENCES = 512, 2048
_SEED = 220600364  # unlikely to be the seed of data that are noise themselves


def coordinates(x: Float[Tensor, "n *dims"]) -> Float[Tensor, "n modes"]:
    """The samples less their mean, in an orthonormal basis in which they hardly correlate, in float64.

    The basis is that of the principal components of every other sample if these suffice to find it; otherwise, as for
    images, the cosine transform along all dimensions after the channels, and principal components over the channels. Of
    vectors of more than 1024 elements 1024 are used, evenly spaced; of images with sides longer than 128 the middle.
    """
    if x.ndim == 2 and x.shape[1] > _PCA_LIMIT:
        x = x[:, torch.linspace(0, x.shape[1] - 1, _PCA_LIMIT, dtype=torch.float32, device="cpu").long()]
    for dim in range(2, x.ndim):
        side = min(x.shape[dim], _WINDOW)
        x = x.narrow(dim, (x.shape[dim] - side) // 2, side)
    x = x.to(torch.float64)
    x = x - x.mean(0)
    size = x[0].numel()
    if x.ndim == 2 or (size <= _PCA_LIMIT and len(x) >= 4 * size):
        return x.flatten(1) @ _principal(x[0::2].flatten(1))
    for dim in range(2, x.ndim):
        x = (x.movedim(dim, -1) @ _cosines(x.shape[dim]).T).movedim(-1, dim)
    if x.shape[1] <= _PCA_LIMIT:
        x = x.movedim(1, -1) @ _principal(x[0::2].movedim(1, -1).flatten(0, -2))
    return x.flatten(1)


def _principal(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    return torch.linalg.eigh(x.T @ x).eigenvectors  # type: ignore[no-any-return]


def _cosines(n: int) -> Float[Tensor, "n n"]:
    """The orthonormal discrete cosine transform, type II."""
    k = torch.arange(n, dtype=torch.float64, device="cpu")
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * k[:, None] * (k + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix


def mode_variances(z: Float[Tensor, "n modes"]) -> Float[Tensor, "modes"]:
    """The variances λ_i of coordinates, from the samples that had no part in the choice of their basis.

    (Those that had would show variances spread out by chance, as are eigenvalues of few samples.)
    """
    return z[1::2].square().mean(0) * (len(z) / (len(z) - 1))


def learnable_share(z: Float[Tensor, "n modes"], sigmas: Float[Tensor, "levels"]) -> Float[Tensor, "levels"]:
    """r(σ) = 1 − m(σ)/c_out(σ)², at least 0, of samples in `coordinates`, whose mean square is σ_data²."""
    variances = mode_variances(z)
    error = torch.stack([(variances * sigma**2 / (variances + sigma**2)).mean() for sigma in sigmas])
    if z.shape[1] <= _NEIGHBOUR_LIMIT:
        error = error - _gain_by_neighbours(z, variances, sigmas).clamp_min(0)
    mean_square = variances.mean()
    return (1 - error * (mean_square + sigmas**2) / (mean_square * sigmas**2)).clamp_min(0)


def _gain_by_neighbours(z: Tensor, variances: Tensor, sigmas: Tensor) -> Tensor:
    """How much smaller the mean squared error of the ideal denoiser of the other samples is than the linear one's.

    Both denoise the same noise; two standard errors are subtracted, so that chance does not pass for structure. With
    x = y_i + σ·ε, ‖x − y_j‖²/(2σ²) = (‖y_i − y_j‖²/σ + 2·ε·(y_i − y_j))/(2σ) + const: distances are computed once.
    """
    others = z[:_REFERENCES]
    y = others[:_QUERIES]
    noise = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(_SEED), device="cpu")
    apart = torch.cdist(y, others, compute_mode="donot_use_mm_for_euclid_dist").square()
    apart.fill_diagonal_(math.inf)  # no sample is its own neighbour
    along = 2 * ((noise * y).sum(1, keepdim=True) - noise @ others.T)
    gains = []
    for sigma in sigmas:
        weights = torch.softmax(-(apart / sigma + along) / (2 * sigma), dim=1)
        linear = (y + sigma * noise) * (variances / (variances + sigma**2))
        gain = ((linear - y).square() - (weights @ others - y).square()).mean(1)
        gains.append(gain.mean() - 2 * gain.std() / math.sqrt(len(gain)))
    return torch.stack(gains)
