"""Which solver for how many evaluations, and solvers that are found: references, comparison, searches."""

from diffspace.solverlab.compare import (
    BUDGETS as BUDGETS,
    STEP_FAMILIES as STEP_FAMILIES,
    Measurement as Measurement,
    Plan as Plan,
    PlannedRun as PlannedRun,
    Recommendation as Recommendation,
    SolverComparison as SolverComparison,
    compare_solvers as compare_solvers,
    default_samplers as default_samplers,
    moments as moments,
    pareto as pareto,
    plan_runs as plan_runs,
    recommend as recommend,
)
from diffspace.solverlab.end_points import (
    REFERENCE_SAMPLER as REFERENCE_SAMPLER,
    EndPointError as EndPointError,
    Reference as Reference,
    end_point_error as end_point_error,
    reference as reference,
)
from diffspace.solverlab.fit import fit_multistep as fit_multistep, optimize_steps as optimize_steps
from diffspace.solverlab.search import (
    SolverSearch as SolverSearch,
    calibration_seeds as calibration_seeds,
    fit_solver as fit_solver,
    judging_seeds as judging_seeds,
    search_cost as search_cost,
    search_solver as search_solver,
)
