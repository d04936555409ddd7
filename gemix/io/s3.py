"""S3: the connection, with bounded retries of what fails or hangs.

Two layers. The AWS SDK retries a request, so that a listing of many pages or a large file does not
start over for one of them. An operation that still fails is retried as a whole, after longer waits.
A refusal (no permission, no such bucket) is raised at once.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow.fs as pafs

from gemix.core.errors import DataError, StoreAccessError, StoreError

T = TypeVar("T")

SDK_RETRIES = 5  # of a request, 1.6 s in all; if one request in five fails, 6 in 100,000 still do
RETRY_DELAYS = (2.0, 8.0, 30.0)  # seconds before an operation is retried
CONNECT_TIMEOUT = 5.0  # seconds
SILENCE_TIMEOUT = 10.0  # seconds without a byte; a busy store may take some for the first

_FIX_PERMISSION = (
    "the credentials that the standard AWS chain finds (environment, ~/.aws, the machine's role) "
    "must be valid and allow s3:ListBucket, GetObject, PutObject and DeleteObject there"
)
_FIX_BUCKET = "no such bucket: create it or correct the URL"
_REFUSALS = {
    "ACCESS_DENIED": _FIX_PERMISSION,
    "INVALID_ACCESS_KEY_ID": _FIX_PERMISSION,
    "INVALID_CLIENT_TOKEN_ID": _FIX_PERMISSION,
    "SIGNATURE_DOES_NOT_MATCH": _FIX_PERMISSION,
    "EXPIRED_TOKEN": _FIX_PERMISSION,
    "HTTP status 401": _FIX_PERMISSION,
    "HTTP status 403": _FIX_PERMISSION,
    "NO_SUCH_BUCKET": _FIX_BUCKET,
    "Bucket '": _FIX_BUCKET,  # of Arrow, which found no region for it
    "HTTP status 301": "the bucket lies in another region: set AWS_REGION to that one",
}


class S3Bucket(pafs.S3FileSystem):
    """The file system of a bucket: credentials of the standard AWS chain, requests retried.

    A pickle holds the bucket's name alone: each process looks credentials up anew, which a pickled
    S3FileSystem would carry along until they expire. The endpoint is ``AWS_ENDPOINT_URL_S3`` or
    ``AWS_ENDPOINT_URL``, else AWS itself in the bucket's region.
    """

    def __init__(self, bucket: str):
        self.bucket = bucket
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        scheme, _, host = (endpoint or "").rpartition("://")
        super().__init__(
            region=None if endpoint else pafs.resolve_s3_region(bucket),
            scheme=scheme or "https",
            endpoint_override=host.rstrip("/") or None,
            connect_timeout=CONNECT_TIMEOUT,
            request_timeout=SILENCE_TIMEOUT,
            # waits of 50, 100, 200 ms, …; those of the "standard" strategy begin at up to 1 s,
            # too much for one failed request of many
            retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=SDK_RETRIES),
            # a small object is one request, not the three of an upload in parts
            allow_delayed_open=True,
        )

    def __reduce__(self):
        return S3Bucket, (self.bucket,)


def bucket_and_path(url: str) -> tuple[str, str]:
    """Return the bucket's name, and ``bucket/prefix`` as Arrow expects it.

    Raises:
        DataError: if there is no bucket, or more than its name.
    """
    path = url.removeprefix("s3://")
    bucket = path.partition("/")[0]
    if "@" in bucket or ":" in bucket:  # the message must not repeat what may be a secret
        raise DataError(
            "s3://…: an S3 URL holds a bucket and a path alone, this one has @ or : before them; "
            "credentials come from the standard AWS chain, the endpoint from AWS_ENDPOINT_URL"
        )
    if not bucket:
        raise DataError(f"{url}: no bucket; an S3 URL is s3://bucket/path")
    return bucket, path


def create_object(bucket: str, key: str, data: bytes) -> bool:
    """Write an object if there is none of that key, by a conditional request.

    Returns:
        Whether the object now holds `data`.

    Raises:
        OSError: if S3 fails, in Arrow's words, for :func:`retry`.
    """
    import boto3  # takes a while to load, and most processes do without
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=SILENCE_TIMEOUT,
        retries={"total_max_attempts": 1 + SDK_RETRIES, "mode": "standard"},
    )
    try:
        client = boto3.client("s3", config=config)
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
                raise
            return client.get_object(Bucket=bucket, Key=key)["Body"].read() == data
    except ClientError as error:
        code = re.sub(r"(?<!^)(?=[A-Z])", "_", error.response["Error"]["Code"]).upper()
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise OSError(f"AWS Error {code}: {error} (HTTP status {status})") from error
    except NoCredentialsError as error:
        raise OSError(f"AWS Error ACCESS_DENIED: {error}") from error
    except BotoCoreError as error:
        raise OSError(f"AWS Error NETWORK_CONNECTION: {error}") from error
    return True


def retry(operation: Callable[[], T], what: str) -> T:
    """Return the result of `operation`; retry it after each of `RETRY_DELAYS` while S3 fails.

    Args:
        operation: idempotent, since the answer alone may have been lost.
        what: for the message, as in "s3://bucket/x cannot be read".

    Raises:
        StoreAccessError: if S3 refuses it.
        StoreError: if S3 has failed each time.
        OSError: of `operation` as it is, if S3 is not its cause: no such file, say, or damage.
    """
    # a body that ends early is such an error too: the SDK checks Content-Length
    began = time.monotonic()
    for wait in (*RETRY_DELAYS, None):
        try:
            return operation()
        except OSError as error:
            text = " ".join(str(error).split())
            ours = "AWS Error" in text or text.startswith("Bucket '")
            if not ours or "NO_SUCH_KEY" in text:
                raise
            for sign, remedy in _REFUSALS.items():
                if sign in text:
                    raise StoreAccessError(f"{what}: {remedy} ({text})") from None
            if wait is None:
                raise StoreError(
                    f"{what}: S3 failed {len(RETRY_DELAYS) + 1} times in "
                    f"{time.monotonic() - began:.0f} s, each time after {SDK_RETRIES} retries "
                    f"of the request ({text}); see whether the store is up and AWS_ENDPOINT_URL is "
                    "right, and run again"
                ) from None
        # spread the retries of workers that failed together
        time.sleep(wait * random.uniform(0.5, 1))
    raise AssertionError("unreachable")
