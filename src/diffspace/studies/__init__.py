"""What the article and the paper show, as numbers: each function measures one statement on a small exact problem.

Pictures of them are in `diffspace.figures.article`.
"""

from diffspace.studies.along import LinesAlong as LinesAlong, lines_along as lines_along, plane_density as plane_density
from diffspace.studies.coefficients import (
    COLUMNS as COLUMNS,
    CoefficientCurves as CoefficientCurves,
    TargetCurves as TargetCurves,
    coefficient_curves as coefficient_curves,
    column as column,
    predictions as predictions,
    target_curves as target_curves,
    training_density as training_density,
)
from diffspace.studies.flows import (
    FlowLines as FlowLines,
    ScheduledLines as ScheduledLines,
    SteppedLines as SteppedLines,
    Tangents as Tangents,
    between as between,
    deviation as deviation,
    flow_lines as flow_lines,
    lines_under as lines_under,
    marginal as marginal,
    octave_errors as octave_errors,
    stepped_lines as stepped_lines,
    tangents as tangents,
)
from diffspace.studies.losses import (
    LossStages as LossStages,
    WeightedLoss as WeightedLoss,
    attainable_loss as attainable_loss,
    excess_loss as excess_loss,
    loss_stages as loss_stages,
)
from diffspace.studies.noise import (
    AlgorithmSteps as AlgorithmSteps,
    Diffused as Diffused,
    algorithm_steps as algorithm_steps,
    churning as churning,
    diffused as diffused,
    distances as distances,
    kolmogorov_smirnov as kolmogorov_smirnov,
)
from diffspace.studies.outputs import DenoiserOutputs as DenoiserOutputs, denoiser_outputs as denoiser_outputs
from diffspace.studies.pretrained import (
    DDPMComparison as DDPMComparison,
    UniformLevels as UniformLevels,
    classes_oracle as classes_oracle,
    compare_ddpm as compare_ddpm,
    ddpm_samplers as ddpm_samplers,
    ddpm_table as ddpm_table,
    exact_ddpm as exact_ddpm,
    trained_ddpm as trained_ddpm,
)
from diffspace.studies.problems import (
    log_space as log_space,
    processes as processes,
    quantiles as quantiles,
    strange_process as strange_process,
    three_modes as three_modes,
)
from diffspace.studies.profiles import ProfileCurve as ProfileCurve, profile_curve as profile_curve
from diffspace.studies.steps import (
    RHOS as RHOS,
    SOLVERS as SOLVERS,
    LocalErrors as LocalErrors,
    OneStep as OneStep,
    StepSizes as StepSizes,
    TruncationErrors as TruncationErrors,
    even_levels as even_levels,
    local_errors as local_errors,
    one_step as one_step,
    step_sizes as step_sizes,
    truncation_errors as truncation_errors,
)
from diffspace.studies.training import (
    Stages as Stages,
    small_network as small_network,
    train_small as train_small,
    training_stages as training_stages,
)
