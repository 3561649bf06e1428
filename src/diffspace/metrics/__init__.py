"""Scores of samples, each beside what real data score: Fréchet distance and others, recognition, memorisation."""

from diffspace.metrics.comparison import ScoreRow as ScoreRow, compare as compare, is_worse as is_worse
from diffspace.metrics.evaluation import (
    FrechetScore as FrechetScore,
    RecognisedScore as RecognisedScore,
    Row as Row,
    Scores as Scores,
    Share as Share,
    evaluate as evaluate,
)
from diffspace.metrics.extractors import (
    default_extractor as default_extractor,
    default_word as default_word,
    make_extractor as make_extractor,
)
from diffspace.metrics.features import (
    PCA as PCA,
    FeatureExtractor as FeatureExtractor,
    FeatureStatistics as FeatureStatistics,
    Identity as Identity,
    NetworkClassifier as NetworkClassifier,
    NetworkExtractor as NetworkExtractor,
    frechet_distance as frechet_distance,
)
from diffspace.metrics.followed import ConditionScore as ConditionScore
from diffspace.metrics.neighbourhoods import density_coverage as density_coverage, precision_recall as precision_recall
from diffspace.metrics.neighbours import (
    Closeness as Closeness,
    Memorisation as Memorisation,
    memorisation as memorisation,
    nearest_neighbours as nearest_neighbours,
)
from diffspace.metrics.recognition import Classifier as Classifier, train_classifier as train_classifier
from diffspace.metrics.reference import load_statistics as load_statistics, save_statistics as save_statistics
from diffspace.metrics.scores import (
    Estimate as Estimate,
    Features as Features,
    frechet as frechet,
    frechet_infinity as frechet_infinity,
    inception_score as inception_score,
    kid as kid,
    mind as mind,
    sliced_wasserstein as sliced_wasserstein,
)
