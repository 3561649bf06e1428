"""Pictures: each function draws on axes that the caller owns, from data that another function computed."""

from diffspace.figures.augmentation import augmentation_figure as augmentation_figure
from diffspace.figures.curves import Curves as Curves
from diffspace.figures.draw_curves import curves_figure as curves_figure
from diffspace.figures.ema import draw_ema_sweep as draw_ema_sweep
from diffspace.figures.guidance import affine_ends as affine_ends
from diffspace.figures.guidance import draw_normals as draw_normals
from diffspace.figures.guidance import posterior_error as posterior_error
from diffspace.figures.loss_curve import draw_loss_by_sigma as draw_loss_by_sigma
from diffspace.figures.report import render_report as render_report
from diffspace.figures.samples import draw_images as draw_images
from diffspace.figures.samples import draw_points as draw_points
from diffspace.figures.samples import draw_samples as draw_samples
from diffspace.figures.samples import grid as grid
from diffspace.figures.samples import is_image as is_image
from diffspace.figures.samples import save_grid as save_grid
from diffspace.figures.samples import save_image as save_image
from diffspace.figures.samples import save_samples as save_samples
from diffspace.figures.samples import to_pixels as to_pixels
from diffspace.figures.solver_error import draw_errors as draw_errors
from diffspace.figures.solver_error import draw_pareto as draw_pareto
from diffspace.figures.solver_error import draw_solver_error as draw_solver_error
from diffspace.figures.trajectory import trajectory_figure as trajectory_figure
