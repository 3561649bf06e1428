"""Three-dimensional volumes: a U-Net learns soft balls of any radius and place in 8×8×8 voxels.

    python examples/volumes.py --out volumes.png

A ball is tanh(2·(r − distance to its centre)), with a radius r uniform in [1.5, 3] voxels and a centre uniform among
those that keep it inside. To measure whether a sample is a ball, r and the centre are computed from its mass and
centroid; the root mean square difference from that ball is 0 for a ball, and large for samples of a Gaussian with the
covariance of balls.
"""

import torch

import diffspace as ds
from shared import print_errors, read_options, train

SIDE = 8
RADII = (1.5, 3.0)
PLACES = torch.stack(torch.meshgrid(*[torch.arange(SIDE) + 0.5] * 3, indexing="ij"))


def balls(radii: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Volumes (n, 1, 8, 8, 8) of balls with radii (n,) and centres (n, 3)."""
    distance = (PLACES - centres[:, :, None, None, None]).square().sum(1, keepdim=True).sqrt()
    return torch.tanh(2 * (radii[:, None, None, None, None] - distance))


def draw(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """n random balls."""
    radii = RADII[0] + (RADII[1] - RADII[0]) * torch.rand(n, generator=generator)
    room = SIDE - 2 * radii[:, None]
    return balls(radii, radii[:, None] + room * torch.rand(n, 3, generator=generator))


def fitted(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each volume, the radius of the ball with its mass and centroid, and the RMS difference from that ball."""
    inside = (x + 1).clamp(0, 2) / 2
    mass = inside.sum((1, 2, 3, 4)).clamp(min=1e-3)
    centres = (inside * PLACES).sum((2, 3, 4)) / mass[:, None]
    radii = torch.linspace(0.5, 5, 451)
    # the mass of a soft ball differs from 4πr³/3, so it is looked up in a table
    masses = (balls(radii, torch.full((len(radii), 3), SIDE / 2)) + 1).sum((1, 2, 3, 4)) / 2
    radius = radii[torch.searchsorted(masses, mass).clamp(max=len(radii) - 1)]
    return radius, (x - balls(radius, centres)).square().mean((1, 2, 3, 4)).sqrt()


def train_balls(steps: int, batch: int = 8) -> ds.Preconditioned:
    """A U-Net in three dimensions, trained on steps·batch balls."""
    torch.manual_seed(0)
    network = ds.networks.DDPMpp(
        (1, SIDE, SIDE, SIDE),
        model_channels=16,
        channel_mult=(1, 2),
        num_blocks=1,
        attn_resolutions=(4,),  # attention between all 512 voxels would take most of the time
        dropout=0.0,
    )
    denoiser = ds.Preconditioned(network, ds.EDMPreconditioning(sigma_data=float(draw(1000).std())))
    return train(denoiser, ds.LogNormal(P_mean=-0.4, P_std=1.4), lambda: (draw(batch), None), steps)


def save_picture(path: str, rows: dict[str, torch.Tensor], count: int = 6) -> None:
    """A row of slices, from front to back, for each volume."""
    from matplotlib.figure import Figure

    figure = Figure((4.2 * len(rows), 0.55 * count), layout="constrained")
    for ax, (name, x) in zip(figure.subplots(1, len(rows)), rows.items(), strict=True):
        tiles = torch.nn.functional.pad(x[:count, 0], (0, 1, 0, 1), value=1.0)
        picture = torch.cat([torch.cat(list(volume), dim=1) for volume in tiles])
        ax.imshow(picture.numpy(), cmap="gray", vmin=-1, vmax=1)
        ax.set(title=name, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, draw, print and return the figures."""
    options = read_options(arguments, steps=900, samples=100)
    denoiser = train_balls(options.steps)

    held_out = draw(options.samples, torch.Generator().manual_seed(1))
    found = ds.loss_by_sigma(denoiser, held_out, sigmas=torch.tensor([0.2, 0.5, 1.0, 2.0, 5.0]))
    print_errors(found)

    samples = ds.sample(denoiser, seeds=range(options.samples), steps=ds.EDMSteps(18)).x
    flat = draw(4000, torch.Generator().manual_seed(2)).flatten(1).double()
    gaussian = ds.oracles.Gaussian(flat.mean(0).reshape(1, SIDE, SIDE, SIDE), flat.T.cov())
    from_gaussian = gaussian.sample(options.samples, generator=torch.Generator().manual_seed(3)).float()
    figures = {}
    for name, x in (("data", held_out), ("samples", samples), ("Gaussian", from_gaussian)):
        radius, difference = fitted(x)
        figures[name] = float(difference.mean())
        print(f"{name}: difference from a ball {figures[name]:.3f}, radii {radius.mean():.2f} ± {radius.std():.2f}")
    if options.out:
        save_picture(options.out, {"data": held_out, "samples": samples})
    return figures | {"error at 1": float(found.mse[2]), "trivial": float(found.trivial[2])}


if __name__ == "__main__":
    main()
