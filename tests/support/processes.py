"""Processes on which solvers are tested."""

import torch

from diffspace import CosineSchedule, FlowSchedule, Process, VESchedule, VPSchedule

PROCESSES = {
    "EDM": Process(),
    "VP": Process(VPSchedule()),
    "VE": Process(VESchedule()),
    "cosine": Process(CosineSchedule()),
    "flow": Process(FlowSchedule()),
    "strange": Process(sigma=lambda t: 80 * t**3 * (0.6 + 0.4 * t), s=lambda t: 1 + 0.4 * torch.sin(5 * t)),
}
