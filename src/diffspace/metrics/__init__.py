"""Scores of samples, each beside what real data score: Fréchet distance, recognition, memorisation."""

from diffspace.metrics.evaluation import (
    FrechetScore as FrechetScore,
    RecognisedScore as RecognisedScore,
    Row as Row,
    Scores as Scores,
    Share as Share,
    evaluate as evaluate,
)
from diffspace.metrics.features import (
    PCA as PCA,
    FeatureExtractor as FeatureExtractor,
    FeatureStatistics as FeatureStatistics,
    Identity as Identity,
    default_extractor as default_extractor,
    frechet_distance as frechet_distance,
)
from diffspace.metrics.followed import ConditionScore as ConditionScore
from diffspace.metrics.neighbours import (
    Closeness as Closeness,
    Memorisation as Memorisation,
    memorisation as memorisation,
    nearest_neighbours as nearest_neighbours,
)
from diffspace.metrics.recognition import Classifier as Classifier, train_classifier as train_classifier
