"""Gives the two accounts in moto an alarm and a metric each: `AWS_ENDPOINT_URL=… python seed.py`."""

import boto3

for account in ("111111111111", "222222222222"):
    own = boto3.client("sts", aws_access_key_id="any", aws_secret_access_key="any").assume_role(
        RoleArn=f"arn:aws:iam::{account}:role/operator", RoleSessionName="seed"
    )["Credentials"]
    cloudwatch = boto3.client(
        "cloudwatch",
        aws_access_key_id=own["AccessKeyId"],
        aws_secret_access_key=own["SecretAccessKey"],
        aws_session_token=own["SessionToken"],
    )
    for state in ("ALARM", "OK"):
        name = f"{state.lower()}-of-{account}"
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="Shop", MetricName="Errors", ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1, Period=60, Statistic="Sum", Threshold=1,
        )  # fmt: skip
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="seeded")
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": "Errors", "Value": float(account[0])}])
