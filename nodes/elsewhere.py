"""Types that editors' drawings name, that are not here under any name, and what there is in their place."""

from __future__ import annotations

from collections.abc import Mapping

INSTEAD: Mapping[str, str] = {
    "ConditionalNode": "use a Switch: each of its 'cases' is a port, taken under a condition",
    "ParallelNode": "leave it out: steps to which arrows lead from one step run at the same time",
    "KafkaConsumer": "start the run by a WebhookTrigger, or over HTTP",
    "KafkaProducer": "use an HttpRequest to a bridge that speaks HTTP",
    "MySQL": "use an HttpRequest to a service in front of the database",
}
"""Type -> the way out, as a hint."""
