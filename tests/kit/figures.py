"""Figures as a scraper reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from asgi_comet import Comet


def figure(comet: Comet, name: str, **labels: str) -> float:
    """Return the sum of the samples with that name and these labels."""
    wanted = labels.items()
    return sum(
        sample.value
        for family in text_string_to_metric_families(comet.metrics())
        for sample in family.samples
        if sample.name == name and wanted <= sample.labels.items()
    )
