"""Pictures: each function draws on axes that the caller owns, from data that another function computed."""

from edmkit.figures.augmentation import augmentation_figure as augmentation_figure
from edmkit.figures.curves import Curves as Curves
from edmkit.figures.draw_curves import curves_figure as curves_figure
from edmkit.figures.ema import draw_ema_sweep as draw_ema_sweep
from edmkit.figures.guidance import affine_ends as affine_ends
from edmkit.figures.guidance import draw_normals as draw_normals
from edmkit.figures.guidance import posterior_error as posterior_error
from edmkit.figures.loss import draw_loss_by_sigma as draw_loss_by_sigma
from edmkit.figures.report import render_report as render_report
from edmkit.figures.samples import draw_images as draw_images
from edmkit.figures.samples import draw_points as draw_points
from edmkit.figures.samples import draw_samples as draw_samples
from edmkit.figures.samples import grid as grid
from edmkit.figures.samples import is_image as is_image
from edmkit.figures.samples import save_grid as save_grid
from edmkit.figures.samples import save_image as save_image
from edmkit.figures.samples import save_samples as save_samples
from edmkit.figures.samples import to_pixels as to_pixels
from edmkit.figures.solver_error import draw_errors as draw_errors
from edmkit.figures.solver_error import draw_pareto as draw_pareto
from edmkit.figures.solver_error import draw_solver_error as draw_solver_error
from edmkit.figures.trajectory import trajectory_figure as trajectory_figure
