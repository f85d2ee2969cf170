"""Calls with right and wrong signatures, as boto3 makes them, and with keys of limited rights.

Usage: boto3_access.py ENDPOINT. The keys are those of `tests/it/sqs/access.rs`.
"""

import datetime
import sys

import boto3
import botocore
import botocore.auth
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = sys.argv[1]
IS_QUERY = botocore.__version__ < "1.31.81"


def client(key, secret, **config):
    return boto3.client(
        "sqs",
        endpoint_url=ENDPOINT,
        region_name="eu-central-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 1}, **config),
    )


def refused(call, **arguments):
    """Code and status of a call that must be refused."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError(f"{call.__name__}({arguments}) must be refused")


admin = client("AKIAADMIN", "admin's secret/+")
url = admin.create_queue(QueueName="orders-1")["QueueUrl"]
other = admin.create_queue(QueueName="other")["QueueUrl"]
# A body with every kind of character is signed as it is sent.
admin.send_message(QueueUrl=url, MessageBody="üñí & = + % / \r\n")
# The successor of the admin's key is valid beside it.
client("AKIANEXT", "next secret").send_message(QueueUrl=url, MessageBody="second")

assert refused(client("AKIAADMIN", "wrong").list_queues) == ("SignatureDoesNotMatch", 403)
assert refused(client("AKIANOBODY", "admin's secret/+").list_queues) == ("InvalidClientTokenId", 403)
assert refused(client("x", "x", signature_version=UNSIGNED).list_queues) == ("MissingAuthenticationToken", 403)


def tampering(change):
    """A client whose request is changed after it was signed."""
    tampered = client("AKIAADMIN", "admin's secret/+")
    tampered.meta.events.register("before-send.sqs.*", lambda request, **_: change(request))
    return tampered


def other_body(request):
    body = request.body if isinstance(request.body, bytes) else request.body.encode()
    request.body = body.replace(b"paid", b"free")


def other_header(name, value):
    def change(request):
        request.headers[name] = value

    return change


mismatch = ("SignatureDoesNotMatch", 403)
assert refused(tampering(other_body).send_message, QueueUrl=url, MessageBody="paid") == mismatch
assert refused(tampering(other_header("X-Amz-Extra", "unsigned")).list_queues) == mismatch
if not IS_QUERY:
    # The action is signed, too.
    assert refused(tampering(other_header("X-Amz-Target", "AmazonSQS.ListQueues")).purge_queue, QueueUrl=url) == mismatch
incomplete = refused(tampering(other_header("Authorization", "AWS4-HMAC-SHA256 Credential=x")).list_queues)
assert incomplete == ("IncompleteSignature", 400), incomplete

if not IS_QUERY:
    present = botocore.auth.get_current_datetime
    for minutes, expected in [(-16, "RequestExpired"), (16, "RequestExpired"), (-14, None), (14, None)]:
        botocore.auth.get_current_datetime = lambda *a, **k: present(*a, **k) + datetime.timedelta(minutes=minutes)
        if expected:
            assert refused(admin.list_queues) == (expected, 400), minutes
        else:
            admin.list_queues()
    botocore.auth.get_current_datetime = present

reader = client("AKIAREADER", "reader secret")
assert reader.list_queues()["QueueUrls"] == [url]
message = reader.receive_message(QueueUrl=url, AttributeNames=["SenderId"])["Messages"][0]
assert message["Attributes"]["SenderId"] == "admin", message
reader.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
denied = ("AccessDenied", 403)
assert refused(reader.send_message, QueueUrl=url, MessageBody="x") == denied
assert refused(reader.receive_message, QueueUrl=other) == denied
assert refused(reader.get_queue_url, QueueName="other") == denied
assert refused(reader.create_queue, QueueName="other-2") == denied
print("fine")
