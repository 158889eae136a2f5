"""The figures as Prometheus reads them: the only module that needs `prometheus_client`.

Must not know where the figures come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from asgi_comet.observe.figures import Figures, Row
from asgi_comet.observe.names import FIGURES, OF_BROKER, WORKER, Figure

try:
    from prometheus_client import generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
    from prometheus_client.registry import Collector, CollectorRegistry
    from prometheus_client.utils import floatToGoString
except ImportError:
    raise ImportError(
        "metrics need the library prometheus-client: pip install 'asgi_comet[metrics]'"
    ) from None

__all__ = ["FiguresCollector", "write"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class FiguresCollector(Collector):
    """Gives a registry of `prometheus_client` the figures of some workers.

    Args:
        read: Returns the figures of each worker.
        shared: Whether workers share a broker: each figure then has the number of its worker.
    """

    def __init__(self, read: Callable[[], Sequence[Figures]], *, shared: bool) -> None:
        self._read = read
        self._figures = FIGURES if shared else tuple(f for f in FIGURES if f not in OF_BROKER)
        self._more = (WORKER,) if shared else ()

    def collect(self) -> Iterable[Metric]:
        """Return all figures."""
        return self._make(self._read())

    def describe(self) -> Iterable[Metric]:
        """Return all figures without a value; for a registry that looks for double names."""
        return self._make([])

    def _make(self, every: Sequence[Figures]) -> list[Metric]:
        return [self._make_one(figure, every) for figure in self._figures]

    def _make_one(self, figure: Figure, every: Sequence[Figures]) -> Metric:
        labels = (*figure.labels, *self._more)
        family, add = _begin(figure, labels)
        for figures in every:
            number = figures["number"]
            more = ["" if number is None else str(number)] if self._more else []
            for row in figures["rows"].get(figure.name, ()):  # not there in an older version
                values = row[: len(figure.labels)]
                add([*values, *more], row[len(values) :])
        return family


Add = Callable[[list[str], Row], None]


def _begin(figure: Figure, labels: Sequence[str]) -> tuple[Metric, Add]:
    """Return the family of a figure without samples, and a function that adds one."""
    name, text = figure.name, figure.help
    if figure.type == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=labels)
        bounds = [*map(floatToGoString, figure.bounds), "+Inf"]

        def add(values: list[str], row: Row) -> None:
            counts, total = row
            histogram.add_metric(values, list(zip(bounds, accumulate(counts), strict=True)), total)

        return histogram, add
    kind = CounterMetricFamily if figure.type == "counter" else GaugeMetricFamily
    family = kind(name, text, labels=labels)
    return family, lambda values, row: family.add_metric(values, row[0])


def write(every: Sequence[Figures], *, shared: bool, accept: str = "") -> tuple[str, str]:
    """Return the content type, and the text.

    Args:
        every: The figures of each worker.
        shared: Whether workers share a broker.
        accept: The header `Accept`: OpenMetrics where it is named, otherwise version 0.0.4 of the
            text format of Prometheus.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FiguresCollector(lambda: every, shared=shared))
    if "application/openmetrics-text" in accept.lower():
        text: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]  # has no types
        return OPENMETRICS, text.decode()
    return TEXT, generate_latest(registry).decode()
