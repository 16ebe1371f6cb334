"""The verdict of `make audit`, without its database."""

from typing import Any

import pytest

from tests.image.audit import verdict

GOOD, BAD = {"name": "good", "vulns": []}, {"name": "bad", "vulns": [{"id": "PYSEC-1"}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("dependencies", "required", "allowed"),
    [([GOOD], 0, 0), ([GOOD, BAD], 1, 1), ([BAD, UNKNOWN], 1, 1), ([GOOD, UNKNOWN], 1, 0), ([], 1, 0)],
)
def test_a_package_that_was_not_looked_up_is_never_called_free_of_vulnerabilities(
    dependencies: list[dict[str, Any]], required: int, allowed: int
) -> None:
    for unreachable_is_ok, expected in ((False, required), (True, allowed)):
        status, message = verdict(dependencies, unreachable_is_ok)
        assert (status, message.startswith("none of")) == (expected, dependencies == [GOOD])
