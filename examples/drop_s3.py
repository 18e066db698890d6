"""Drop a dataset into the bucket, as any program that speaks S3 would: `python drop_s3.py rows.jsonl`.

Uses only boto3 and the usual variables: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION,
and AWS_CA_BUNDLE where the store's certificate is signed by a CA of its own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import boto3
from botocore.config import Config  # type: ignore[import-untyped]


def main() -> None:
    parser = argparse.ArgumentParser(description="Put a dataset into the bucket; the drop itself starts the job.")
    parser.add_argument("file", type=Path, help="the dataset, for example support.jsonl or tickets.csv")
    parser.add_argument("--key", help="name in the bucket (default: the name of the file)")
    parser.add_argument("--bucket", default="datasets")
    parser.add_argument("--job", type=Path, help="job settings in YAML; goes up first, as NAME.job.yaml")
    options = parser.parse_args()
    key = options.key or options.file.name
    s3 = boto3.client(
        "s3",
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
        region_name=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        config=Config(s3={"addressing_style": "path"}),
    )
    # The settings must be in the bucket when ingest sees the dataset, so they go first.
    if options.job:
        s3.upload_file(str(options.job), options.bucket, f"{key.removesuffix('.gz').rpartition('.')[0]}.job.yaml")
    s3.upload_file(str(options.file), options.bucket, key)
    print(f"s3://{options.bucket}/{key}")


if __name__ == "__main__":
    main()
