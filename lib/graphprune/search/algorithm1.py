"""SACP, structure-aware automatic channel pruning: Algorithm 1 of Liu et al., entire.

    1      the network as a graph                                     graphprune.trace
    2-7    an encoder trained by contrast on pruned configurations    `trained_encoder`
    8-13   candidates ranked by their likeness to the whole network   `sacp`, `funnel.rank_draws`
    14     the m most alike lightly fine-tuned                        `funnel.tune`
    15     the k best of them retrained                               `funnel.finish`
    16     the best one                                               `funnel.choose`

Each stage stores what it made and loads it when nothing it came from has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from graphprune.encoders import contrast
from graphprune.encoders.encoder import GraphEncoder
from graphprune.encoders.ranker import Ranker, RankFunction, check_ranker, prepare
from graphprune.encoders.scorer import Scorer
from graphprune.graph.channel_graph import ChannelGraph
from graphprune.pruning.criterion import Criterion
from graphprune.pruning.rates import RATES, Rate, exact_rates
from graphprune.pruning.window import Score
from graphprune.runs import runtime, store
from graphprune.runs.checkpoint import Checkpoint, Clock
from graphprune.runs.description import described, modules
from graphprune.search.funnel import Funnel, SearchResult, run_ranking
from graphprune.training.data import Dataset
from graphprune.training.train import Recipe

ENCODER_OPTIONS = ("kind", "hidden", "layers", "undirected")
CONTRAST_OPTIONS = ("triads", "loss", "temperature", "batch_size", "lr")

__all__ = ["SearchResult", "sacp", "trained_encoder"]


def sacp(
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    *,
    min_ratio: float,
    light: Recipe,
    full: Recipe,
    folder: str | Path,
    n_train: int = 10_000,
    n_candidates: int = 1_000_000,
    m: int = 150,
    k: int = 10,
    epochs: int = 15,
    encoder_options: Mapping[str, Any] | None = None,
    contrast_options: Mapping[str, Any] | None = None,
    constrained: bool = False,
    macs_window: tuple[float, float] = (0.0, 1.0),
    criterion: Literal["accuracy", "loss"] = "accuracy",
    inherit: bool = True,
    ranker: Ranker | RankFunction | None = None,
    seed: int = 0,
    n_jobs: int = -1,
    threads: int = 1,
    rates: Sequence[Rate] = RATES,
    tested: bool = False,
    clock: Clock | None = None,
    importance: Criterion = None,
) -> SearchResult:
    """Prune a trained network by SACP's Algorithm 1 (Liu et al., sections 3.3-3.5); the defaults are the paper's sizes.

    Training is on the train split and every choice on the validation split; the test split is read once, for the one
    network chosen (the paper chooses by test accuracy).

    Args:
        model, graph, data: the trained base network, its trace, the data.
        min_ratio: tau, candidates have R(r) >= tau (eq. 4).
        light, full: recipes of the light fine-tuning of the m and of the retraining of the k.
        folder: where everything is stored; a killed search called again goes on where it stopped.
        n_train: N, configurations the encoder is trained on.
        n_candidates: candidates ranked.
        m, k: how many are fine-tuned, how many retrained.
        epochs: of the encoder's training.
        encoder_options: those of `GraphEncoder` named in `ENCODER_OPTIONS`.
        contrast_options: those of `contrast.fit` named in `CONTRAST_OPTIONS`: the readings of anchor and loss among them.
        constrained: train the encoder on configurations with R(r) >= tau too (Algorithm 1, line 2), not on the
            whole space (section 3.3) [our reading].
        ranker: who ranks the candidates in place of SACP's similarity, e.g.
            `distilled.Distilled(class_means.ClassMeans(data))`, which ranks far better (notebook 05), or a function
            (graph, model, indices) -> scores; `n_train` to `constrained` are then not used.
        macs_window, criterion, inherit, seed, n_jobs, threads, tested, clock, importance: as in `Funnel`.
        rates: the pruning granularity, as in `Funnel`; such as (0, 0.25, 0.5, 0.75) or eighths. Other rankers than
            similarity know the default ones only.

    Raises:
        ValueError, TypeError: an argument is out of its range or out of reach, before any work.

    >>> import tempfile, graphprune
    >>> from graphprune import data, models
    >>> digits, model = data.load("digits", device="cpu"), models.seeded("tiny_cnn", 0, in_channels=1)
    >>> light, full = (graphprune.train.Recipe(epochs=epochs, lr=0.05, batch_size=64) for epochs in (0.5, 1))
    >>> sizes = {"n_train": 64, "epochs": 1, "n_candidates": 100, "m": 3, "k": 1, "n_jobs": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     graph = graphprune.trace(model, digits.example())
    ...     result = sacp(model, graph, digits, min_ratio=0.3, light=light, full=full, folder=folder, **sizes)
    >>> len(result.trials), bool(result.best["ratio"] >= 0.3)
    (4, True)
    """
    funnel = Funnel(
        *(model, graph, data, m, k, light, full, folder, min_ratio, macs_window, criterion, inherit, seed, n_jobs, threads),
        rates=tuple(rates),
        tested=tested,
        clock=clock or Clock(),
        importance=importance,
    )
    if n_train < 1 or epochs < 1:
        raise ValueError(f"n_train={n_train}, epochs={epochs}: the encoder needs at least 1 of each")
    _check_options("encoder_options", encoder_options or {}, ENCODER_OPTIONS)
    _check_options("contrast_options", contrast_options or {}, CONTRAST_OPTIONS)
    if ranker is not None and exact_rates(rates) != exact_rates(RATES):
        raise ValueError(f"rates={tuple(rates)}: a ranker reads indices as 0, 0.1, ..., 0.9; leave rates or ranker as it is")
    if ranker is not None:
        check_ranker(ranker)
        return _by_ranker(funnel, ranker, n_candidates)
    training: dict[str, Any] = {
        "n_train": n_train,
        "min_ratio": min_ratio if constrained else 0,
        "epochs": epochs,
        "encoder_options": dict(encoder_options or {}),
        "contrast_options": dict(contrast_options or {}),
    }

    used = ("encoders.contrast", "encoders.scorer", *modules(training))

    @cache
    def scorer() -> Scorer:
        return Scorer(trained_encoder(funnel, **training), graph, funnel.scores, funnel.rates)

    def similarity(indices: Tensor) -> Tensor:
        score = scorer()
        with runtime.threads(threads):
            return score(indices)

    return run_ranking(
        funnel, similarity, n_candidates=n_candidates, ranking={**described(training), "threads": threads}, modules=used
    )


def _by_ranker(funnel: Funnel, ranker: Ranker | RankFunction, n_candidates: int) -> SearchResult:
    """The funnel, with the candidates ranked by another than similarity."""

    @cache
    def prepared() -> Score:
        return prepare(ranker, funnel.graph, funnel.model, funnel.stage)

    def score(indices: Tensor) -> Tensor:
        with runtime.threads(funnel.threads):
            return prepared()(indices)

    ranking = {"ranker": described(ranker), "threads": funnel.threads}
    return run_ranking(funnel, score, n_candidates=n_candidates, ranking=ranking, modules=modules(ranker))


def trained_encoder(
    funnel: Funnel,
    *,
    n_train: int,
    min_ratio: float,
    epochs: int,
    encoder_options: Mapping[str, Any],
    contrast_options: Mapping[str, Any],
) -> GraphEncoder:
    """The encoder of Algorithm 1, lines 2-7: trained by contrast on n_train configurations, without any accuracy."""
    parameters: dict[str, Any] = {"n_train": n_train, "min_ratio": min_ratio, "epochs": epochs}
    parameters |= {"encoder_options": encoder_options, "contrast_options": contrast_options, "threads": funnel.threads}
    used = ("encoders.contrast", "pruning.rates", *modules(parameters))
    encoder_seed, width = (
        runtime.seed_generator(funnel.seed, "encoder").initial_seed(),
        funnel.graph.feature_index.shape[1],
    )
    encoder = GraphEncoder.seeded(encoder_seed, width, **encoder_options)
    known = store.digest([funnel.base, funnel.seed, described(parameters), store.sources(used)])
    point = Checkpoint(Path(funnel.folder) / f"encoder-{known[:12]}.training", funnel.clock, "contrastive training", known)

    def fit() -> dict[str, Tensor]:
        generator = runtime.seed_generator(funnel.seed, "training configurations")
        indices = funnel.window.space.sample(n_train, min_ratio, generator)
        options = {"epochs": epochs, "seed": funnel.seed, "rates": funnel.rates, "checkpoint": point, **contrast_options}
        with runtime.threads(funnel.threads):
            contrast.fit(encoder, funnel.graph, funnel.model, indices=indices, **options)
        return encoder.state_dict()

    encoder.load_state_dict(funnel.stage("encoder.safetensors", fit, used, **described(parameters)))
    point.clear()
    return encoder


def _check_options(argument: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in options if name not in known]:
        raise ValueError(f"{argument}: {unknown[0]!r} is unknown; choose from {', '.join(known)}")
