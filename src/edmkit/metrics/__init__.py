"""Scores of samples, each beside what real data score: Fréchet distance, recognition, memorisation.

And of solvers: how far from the end points of the ODE each ends, for its evaluations.
"""

from edmkit.metrics.classifier import Classifier as Classifier
from edmkit.metrics.classifier import train_classifier as train_classifier
from edmkit.metrics.evaluate import evaluate as evaluate
from edmkit.metrics.features import PCA as PCA
from edmkit.metrics.features import FeatureExtractor as FeatureExtractor
from edmkit.metrics.features import Identity as Identity
from edmkit.metrics.features import default_extractor as default_extractor
from edmkit.metrics.frechet import FeatureStatistics as FeatureStatistics
from edmkit.metrics.frechet import frechet_distance as frechet_distance
from edmkit.metrics.memorisation import Closeness as Closeness
from edmkit.metrics.memorisation import Memorisation as Memorisation
from edmkit.metrics.memorisation import memorisation as memorisation
from edmkit.metrics.memorisation import nearest_neighbours as nearest_neighbours
from edmkit.metrics.scores import FrechetScore as FrechetScore
from edmkit.metrics.scores import RecognisedScore as RecognisedScore
from edmkit.metrics.scores import Row as Row
from edmkit.metrics.scores import Scores as Scores
from edmkit.metrics.scores import Share as Share
from edmkit.metrics.solvers import BUDGETS as BUDGETS
from edmkit.metrics.solvers import STEP_FAMILIES as STEP_FAMILIES
from edmkit.metrics.solvers import Candidate as Candidate
from edmkit.metrics.solvers import Measurement as Measurement
from edmkit.metrics.solvers import Plan as Plan
from edmkit.metrics.solvers import Recommendation as Recommendation
from edmkit.metrics.solvers import Run as Run
from edmkit.metrics.solvers import SolverComparison as SolverComparison
from edmkit.metrics.solvers import compare_solvers as compare_solvers
from edmkit.metrics.solvers import default_candidates as default_candidates
from edmkit.metrics.solvers import moments as moments
from edmkit.metrics.solvers import pareto as pareto
from edmkit.metrics.solvers import plan_runs as plan_runs
from edmkit.metrics.solvers import recommend as recommend
