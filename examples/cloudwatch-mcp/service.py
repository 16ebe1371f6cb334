"""CloudWatch over MCP: alarms and metrics of the account that the caller's role belongs to.

The server has no long-lived key. With AssumeRole, the only credentials in its environment are those of its Pod, which
AWS renews; with AssumeRoleWithWebIdentity it has none at all.

    python service.py PORT PUBLIC_HOST assume-role|web-identity
"""

import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import boto3
import uvicorn
from botocore import UNSIGNED
from botocore.config import Config
from credentials import Caller, RoleCredentials, by_assume_role, by_web_identity
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field

MAX_ALARMS, MAX_POINTS = 200, 500
TIMES = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 3}}

server = MCPServer("cloudwatch")
session, making = boto3.Session(), threading.Lock()  # a session makes one client at a time
MODES = {
    "assume-role": lambda: by_assume_role(session.client("sts", config=Config(**TIMES))),
    "web-identity": lambda: by_web_identity(session.client("sts", config=Config(signature_version=UNSIGNED, **TIMES))),
}


def client_of(context: Context, service: str) -> Any:
    """A boto3 client with the credentials of the request's caller."""
    own = credentials.of(Caller.of(context.headers))
    keys = {"aws_access_key_id": own.access_key, "aws_secret_access_key": own.secret_key}
    with making:
        return session.client(service, aws_session_token=own.session_token, config=Config(**TIMES), **keys)


@server.tool()
def whoami(context: Context) -> dict[str, str]:
    """The account and the session that the caller's requests are made with, as CloudTrail records them."""
    identity = client_of(context, "sts").get_caller_identity()
    return {"account": identity["Account"], "arn": identity["Arn"]}


@server.tool()
def active_alarms(context: Context, prefix: Annotated[str, Field(max_length=255)] = "") -> list[dict[str, str]]:
    """The alarms in state ALARM whose names begin with a prefix, at most 200."""
    pages = client_of(context, "cloudwatch").get_paginator("describe_alarms")
    only = {"AlarmNamePrefix": prefix} if prefix else {}
    found = pages.paginate(StateValue="ALARM", PaginationConfig={"MaxItems": MAX_ALARMS}, **only)
    return [
        {
            "name": alarm["AlarmName"],
            "metric": f"{alarm.get('Namespace', '')}/{alarm.get('MetricName', '')}",
            "reason": alarm.get("StateReason", ""),
            "since": alarm["StateUpdatedTimestamp"].isoformat(),
        }
        for page in found
        for alarm in page["MetricAlarms"]
    ]


@server.tool()
def query_metric(
    context: Context,
    namespace: Annotated[str, Field(max_length=255)],
    metric: Annotated[str, Field(max_length=255)],
    statistic: Literal["Average", "Sum", "Minimum", "Maximum", "SampleCount"] = "Average",
    dimensions: Annotated[dict[str, str] | None, Field(max_length=30)] = None,
    minutes: Annotated[int, Field(ge=1, le=14 * 24 * 60)] = 60,
) -> list[tuple[str, float]]:
    """The values of a metric in the last minutes, oldest first: time and value, at most 500 of them."""
    period = 60 * -(-minutes // MAX_POINTS)  # whole minutes
    named = [{"Name": name, "Value": value} for name, value in (dimensions or {}).items()]
    of = {"Namespace": namespace, "MetricName": metric, "Dimensions": named}
    until = datetime.now(UTC)
    [result] = client_of(context, "cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": {"Metric": of, "Period": period, "Stat": statistic}}],
        StartTime=until - timedelta(minutes=minutes),
        EndTime=until,
        ScanBy="TimestampAscending",
        MaxDatapoints=MAX_POINTS,
    )["MetricDataResults"]
    return [(time.isoformat(), value) for time, value in zip(result["Timestamps"], result["Values"])]


if __name__ == "__main__":
    port, host, mode = sys.argv[1:]
    credentials = RoleCredentials(MODES[mode]())
    security = TransportSecuritySettings(allowed_hosts=[host], allowed_origins=[f"https://{host}"])
    address = "127.0.0.1" if host.startswith("127.") else "0.0.0.0"  # in a Pod, nginx comes from outside
    uvicorn.run(server.streamable_http_app(transport_security=security), host=address, port=int(port))
