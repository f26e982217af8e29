"""What `evs up` decides to start, and what it tells them."""

from pathlib import Path

import pytest

from cli_proj.supervise.plan import UpOptions, make_plan


def environments(data: Path, **given: str) -> list[dict[str, str]]:
    plan = make_plan(UpOptions(data=data), environment=given)
    return [dict(service.environment) for stage in plan.stages for service in stage]


def test_where_traces_go_is_told_to_every_service(tmp_path):
    told = environments(tmp_path / "data", OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318")
    assert {service["OTEL_EXPORTER_OTLP_ENDPOINT"] for service in told} == {"http://collector:4318"}


@pytest.mark.parametrize(
    ("given", "attributes"),
    [
        ({}, None),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b"}, "a=b"),
        ({"OTEL_SERVICE_NAME": "shop, test"}, "service.namespace=shop%2C%20test"),
        ({"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}, "service.namespace=shop,a=b"),
    ],
)
def test_each_service_has_a_name_of_its_own_in_traces(tmp_path, given, attributes):
    for told in environments(tmp_path / "data", **given):
        assert "OTEL_SERVICE_NAME" not in told
        assert told.get("OTEL_RESOURCE_ATTRIBUTES") == attributes
