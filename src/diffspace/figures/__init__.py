"""Pictures: each function draws on axes that the caller owns, from data that another function computed."""

from diffspace.figures.augmentation import (
    augmentation_figure as augmentation_figure,
    draw_augmentation as draw_augmentation,
)
from diffspace.figures.curves import Curves as Curves
from diffspace.figures.draw_curves import curves_figure as curves_figure
from diffspace.figures.errors import (
    draw_ema_sweep as draw_ema_sweep,
    draw_errors as draw_errors,
    draw_loss_by_sigma as draw_loss_by_sigma,
    draw_pareto as draw_pareto,
    draw_solver_error as draw_solver_error,
)
from diffspace.figures.guidance import (
    affine_ends as affine_ends,
    draw_normals as draw_normals,
    inpainted_normals as inpainted_normals,
    measured_errors as measured_errors,
    posterior_error as posterior_error,
)
from diffspace.figures.report import render_report as render_report
from diffspace.figures.samples import (
    draw_points as draw_points,
    draw_samples as draw_samples,
    grid as grid,
    is_image as is_image,
    save_image as save_image,
    save_samples as save_samples,
    to_pixels as to_pixels,
    trajectory_figure as trajectory_figure,
)
from diffspace.figures.sweep import (
    draw_distances as draw_distances,
    draw_quality as draw_quality,
    sweep_figure as sweep_figure,
)
