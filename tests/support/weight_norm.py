"""A measurement of one's own: one class in one file."""

from diffspace.train import Measurement


class WeightNorm(Measurement):
    """The norm of the averaged weights."""

    name = "weight_norm"

    def measure(self, model):
        return sum(float(p.double().square().sum()) for p in model.denoiser.parameters()) ** 0.5
