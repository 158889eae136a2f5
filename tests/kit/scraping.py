"""A Prometheus that scrapes a server: what it reads, by name and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.samples import Sample

from tests.kit.serving import Address, Answer
from tests.kit.stage import TOKEN

BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"}


@dataclass(frozen=True)
class Scraped:
    """The figures of one scrape."""

    families: Sequence[Metric]

    @property
    def samples(self) -> list[Sample]:
        return [sample for family in self.families for sample in family.samples]

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of a name that have all these labels."""
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have all these labels; there is one."""
        found = self.find(name, **labels)
        assert found, (name, labels)
        return sum(sample.value for sample in found)

    def values(self, label: str) -> set[str]:
        """Return the values of a label."""
        return {s.labels[label] for s in self.samples if label in s.labels}

    @property
    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        """All series."""
        return {(sample.name, frozenset(sample.labels.items())) for sample in self.samples}


def understand(text: str) -> Scraped:
    """Read the text format of Prometheus."""
    return Scraped(list(read_text(text)))


def get(server: Address, query: str = "", **headers: str) -> Answer:
    """Ask for the metrics."""
    return server.request("GET", f"/comet/admin/metrics{query}", headers={**BEARER, **headers})


def scrape(server: Address, query: str = "?workers=all", **headers: str) -> Scraped:
    """Ask for the metrics, and read them in the form that they have."""
    answer = get(server, query, **headers)
    assert answer.status == 200, answer
    text = answer.body.decode()
    if answer.headers["content-type"].startswith("application/openmetrics-text;"):
        families = read_openmetrics(text)  # type: ignore[no-untyped-call]  # has no types
        return Scraped(list(families))
    return understand(text)


def scrape_until(server: Address, reached: Callable[[Scraped], object]) -> Scraped:
    """Ask again and again until the figures are as expected."""
    while not reached(found := scrape(server)):
        pass
    return found


def sums(found: Scraped, name: str, label: str) -> dict[str, float]:
    """Return the sums of a counter by the values of a label, without those that are zero."""
    values: Iterable[str] = {sample.labels[label] for sample in found.find(name)}
    every = {value: found.total(name, **{label: value}) for value in values}
    return {value: total for value, total in every.items() if total}
