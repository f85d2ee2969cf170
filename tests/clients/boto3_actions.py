"""Calls every action of SQS with boto3, as its users do, and checks the answers.

Usage: boto3_actions.py ENDPOINT. It runs with today's boto3, which speaks the JSON protocol, and with 1.26, which speaks
Query. A failed check ends it with a traceback.
"""

import json
import sys
import time
import uuid

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = sys.argv[1]
IS_QUERY = botocore.__version__ < "1.31.81"
sqs = boto3.client(
    "sqs",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(retries={"max_attempts": 1}),
)


def name(suffix=""):
    return f"q{uuid.uuid4().hex[:12]}{suffix}"


def make(suffix="", **attributes):
    """A new queue; returns its URL."""
    return sqs.create_queue(QueueName=name(suffix), Attributes=attributes)["QueueUrl"]


def attribute(url, name):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]


def code(call, **arguments):
    """The code and the exception's class of a call that must be refused."""
    try:
        call(**arguments)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert 400 <= status < 500, error
        assert error.response["ResponseMetadata"]["RequestId"], error
        return error.response["Error"]["Code"]
    raise AssertionError(f"{call.__name__}({arguments}) must be refused")


def receive(url, count=1, **more):
    """Receives that many messages, however many receives it takes."""
    found = []
    until = time.monotonic() + 20
    while len(found) < count and time.monotonic() < until:
        left = count - len(found)
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=left, WaitTimeSeconds=1, **more)
        found += answer.get("Messages", [])
    assert len(found) == count, found
    return found


def queues():
    url = make(VisibilityTimeout="7")
    queue = url.rsplit("/", 1)[1]
    assert url == f"{ENDPOINT}/000000000000/{queue}", url
    # Only the attributes that are given are compared.
    assert sqs.create_queue(QueueName=queue)["QueueUrl"] == url
    assert sqs.create_queue(QueueName=queue, Attributes={"VisibilityTimeout": "7"})["QueueUrl"] == url
    assert code(sqs.create_queue, QueueName=queue, Attributes={"VisibilityTimeout": "8"}) == "QueueAlreadyExists"
    assert sqs.get_queue_url(QueueName=queue)["QueueUrl"] == url
    assert code(sqs.get_queue_url, QueueName=name()) == "AWS.SimpleQueueService.NonExistentQueue"
    try:
        sqs.get_queue_url(QueueName=name())
    except sqs.exceptions.QueueDoesNotExist:
        pass
    assert code(sqs.create_queue, QueueName="not a name") == "InvalidParameterValue"
    assert code(sqs.create_queue, QueueName=name(), Attributes={"Nonsense": "1"}) == "InvalidAttributeName"
    assert code(sqs.create_queue, QueueName=name(), Attributes={"DelaySeconds": "901"}) == "InvalidAttributeValue"
    assert code(sqs.create_queue, QueueName=name(), Attributes={"FifoQueue": "true"}) == "InvalidParameterValue"
    sqs.delete_queue(QueueUrl=url)
    assert code(sqs.delete_queue, QueueUrl=url) == "AWS.SimpleQueueService.NonExistentQueue"
    assert code(sqs.create_queue, QueueName=queue) == "AWS.SimpleQueueService.QueueDeletedRecently"


def lists():
    prefix = name("-")
    made = sorted(sqs.create_queue(QueueName=f"{prefix}{number}")["QueueUrl"] for number in range(5))
    assert sqs.list_queues(QueueNamePrefix=prefix)["QueueUrls"] == made
    assert "NextToken" not in sqs.list_queues(QueueNamePrefix=prefix)
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=name())
    pages = sqs.get_paginator("list_queues").paginate(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 2})
    pages = [page["QueueUrls"] for page in pages]
    assert [len(page) for page in pages] == [2, 2, 1] and sum(pages, []) == made, pages
    assert code(sqs.list_queues, MaxResults=1001) == "InvalidParameterValue"


def attributes():
    url = make(DelaySeconds="1")
    arn = f"arn:aws:sqs:us-east-1:000000000000:{url.rsplit('/', 1)[1]}"
    every = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    expected = {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "DelaySeconds": "1",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "QueueArn": arn,
        "ReceiveMessageWaitTimeSeconds": "0",
        "VisibilityTimeout": "30",
    }
    assert {name: every.get(name) for name in expected} == expected, every
    assert abs(int(every["CreatedTimestamp"]) - time.time()) < 300, every
    assert "FifoQueue" not in every, every
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "11", "ReceiveMessageWaitTimeSeconds": "1"})
    assert (attribute(url, "VisibilityTimeout"), attribute(url, "DelaySeconds")) == ("11", "1")
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url)
    assert code(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["Nonsense"]) == "InvalidAttributeName"
    changed = code(sqs.set_queue_attributes, QueueUrl=url, Attributes={"FifoQueue": "true"})
    assert changed == "InvalidAttributeName", changed
    over = code(sqs.set_queue_attributes, QueueUrl=url, Attributes={"VisibilityTimeout": "43201"})
    assert over == "InvalidAttributeValue", over


def tags():
    url = sqs.create_queue(QueueName=name(), tags={"team": "mail"})["QueueUrl"]
    sqs.tag_queue(QueueUrl=url, Tags={"cost": "1", "team": "post"})
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"cost": "1", "team": "post"}
    sqs.untag_queue(QueueUrl=url, TagKeys=["cost", "unknown"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "post"}
    many = {f"tag{number}": "" for number in range(51)}
    assert code(sqs.tag_queue, QueueUrl=url, Tags=many) == "InvalidParameterValue"


def policies():
    """What is kept for clients and means nothing here."""
    url = make(KmsMasterKeyId="alias/own")
    queue = url.rsplit("/", 1)[1]
    assert attribute(url, "KmsMasterKeyId") == "alias/own" and attribute(url, "SqsManagedSseEnabled") == "false"
    assert code(sqs.create_queue, QueueName=queue, Attributes={"KmsMasterKeyId": "other"}) == "QueueAlreadyExists"
    sqs.add_permission(QueueUrl=url, Label="team", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    two = {"AWSAccountIds": ["111111111111", "222222222222"], "Actions": ["ReceiveMessage", "DeleteMessage"]}
    sqs.add_permission(QueueUrl=url, Label="others", **two)
    statements = json.loads(attribute(url, "Policy"))["Statement"]
    assert [statement["Sid"] for statement in statements] == ["team", "others"], statements
    assert statements[0]["Principal"] == {"AWS": "arn:aws:iam::111111111111:root"}, statements
    assert statements[1]["Action"] == ["SQS:ReceiveMessage", "SQS:DeleteMessage"], statements
    assert statements[1]["Resource"] == attribute(url, "QueueArn"), statements
    assert code(sqs.add_permission, QueueUrl=url, Label="team", **two) == "InvalidParameterValue"
    assert code(sqs.remove_permission, QueueUrl=url, Label="nobody") == "InvalidParameterValue"
    sqs.remove_permission(QueueUrl=url, Label="team")
    sqs.remove_permission(QueueUrl=url, Label="others")
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": '{"Statement":[]}', "KmsMasterKeyId": ""})
    assert attribute(url, "Policy") == '{"Statement":[]}'
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["KmsMasterKeyId"])
    assert code(sqs.set_queue_attributes, QueueUrl=url, Attributes={"Policy": "x"}) == "InvalidAttributeValue"
    both = {"KmsMasterKeyId": "alias/own", "SqsManagedSseEnabled": "true"}
    assert code(sqs.set_queue_attributes, QueueUrl=url, Attributes=both) == "InvalidAttributeName"


def messages():
    url = make()
    # boto3 compares the MD5 of the body, and the text must come back as it was: white space, markup, another script.
    body = "first\r\n<b>&amp;</b>\tüñí \U0001f989"
    sent = sqs.send_message(
        QueueUrl=url,
        MessageBody=body,
        MessageAttributes={
            "City": {"DataType": "String", "StringValue": "Any City"},
            "Count": {"DataType": "Number.int", "StringValue": "42"},
            "Blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        },
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988"}},
    )
    assert uuid.UUID(sent["MessageId"]) and sent["MD5OfMessageAttributes"] and sent["MD5OfMessageSystemAttributes"]
    (message,) = receive(url, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert (message["Body"], message["MessageId"]) == (body, sent["MessageId"]), message
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"], message
    assert message["MessageAttributes"]["Blob"]["BinaryValue"] == b"\x00\xff", message
    assert message["MessageAttributes"]["Count"] == {"DataType": "Number.int", "StringValue": "42"}, message
    system = message["Attributes"]
    assert system["ApproximateReceiveCount"] == "1" and system["AWSTraceHeader"] == "Root=1-5759e988", system
    assert abs(int(system["SentTimestamp"]) / 1000 - time.time()) < 300 and system["SenderId"], system
    assert code(sqs.send_message, QueueUrl=url, MessageBody="\x00") == "InvalidMessageContents"
    large = "x" * (1 << 20)
    assert code(sqs.send_message, QueueUrl=url, MessageBody=large + "x") == "InvalidParameterValue"
    assert code(sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=11) == "InvalidParameterValue"
    assert code(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=21) == "InvalidParameterValue"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert code(sqs.delete_message, QueueUrl=url, ReceiptHandle="nonsense") == "ReceiptHandleIsInvalid"
    other = make()
    theirs = code(sqs.delete_message, QueueUrl=other, ReceiptHandle=message["ReceiptHandle"])
    assert theirs == "ReceiptHandleIsInvalid", theirs
    # Attributes are answered only when they are asked for.
    sqs.send_message(QueueUrl=url, MessageBody=large, DelaySeconds=0)
    (message,) = receive(url)
    assert len(message["Body"]) == 1 << 20 and "Attributes" not in message and "MessageAttributes" not in message
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def batches():
    url = make()
    entries = [{"Id": f"m{number}", "MessageBody": f"body {number}"} for number in range(10)]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert len(answer["Successful"]) == 10 and "Failed" not in answer, answer
    found = receive(url, 10)
    changes = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 0} for m in found]
    answer = sqs.change_message_visibility_batch(QueueUrl=url, Entries=changes)
    assert len(answer["Successful"]) == 10, answer
    found = receive(url, 10)
    deletes = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in found]
    deletes[3]["ReceiptHandle"] = "nonsense"
    answer = sqs.delete_message_batch(QueueUrl=url, Entries=deletes)
    (failed,) = answer["Failed"]
    assert len(answer["Successful"]) == 9 and failed["Id"] == deletes[3]["Id"], answer
    assert failed["Code"] == "ReceiptHandleIsInvalid" and failed["SenderFault"], answer
    assert attribute(url, "ApproximateNumberOfMessagesNotVisible") == "1"
    mixed = [{"Id": "good", "MessageBody": "a"}, {"Id": "bad", "MessageBody": "b", "DelaySeconds": 901}]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=mixed)
    assert [done["Id"] for done in answer["Successful"]] == ["good"], answer
    assert [(fail["Id"], fail["Code"]) for fail in answer["Failed"]] == [("bad", "InvalidParameterValue")], answer
    prefix = "AWS.SimpleQueueService."
    send = sqs.send_message_batch
    assert code(send, QueueUrl=url, Entries=[]) in (prefix + "EmptyBatchRequest", "MissingParameter")
    assert code(send, QueueUrl=url, Entries=entries + mixed) == prefix + "TooManyEntriesInBatchRequest"
    assert code(send, QueueUrl=url, Entries=[entries[0], entries[0]]) == prefix + "BatchEntryIdsNotDistinct"
    assert code(send, QueueUrl=url, Entries=[{"Id": "a b", "MessageBody": "c"}]) == prefix + "InvalidBatchEntryId"
    half = [{"Id": str(number), "MessageBody": "x" * (1 << 19)} for number in range(3)]
    assert code(send, QueueUrl=url, Entries=half) == prefix + "BatchRequestTooLong"


def visibility():
    url = make(VisibilityTimeout="1")
    sqs.send_message(QueueUrl=url, MessageBody="again")
    (first,) = receive(url)
    (second,) = receive(url, AttributeNames=["ApproximateReceiveCount"])
    assert first["ReceiptHandle"] != second["ReceiptHandle"]
    assert second["Attributes"] == {"ApproximateReceiveCount": "2"}, second
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=43_000)
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2)
    over = code(
        sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=43_201
    )
    assert over == "InvalidParameterValue", over
    sqs.delete_message(QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    gone = code(
        sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=1
    )
    assert gone == "InvalidParameterValue", gone


def long_polls():
    url = make()
    began = time.monotonic()
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
    assert time.monotonic() - began >= 0.9
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=1)
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]
    assert message["Body"] == "later" and time.monotonic() - began < 15


def fifo():
    url = make(".fifo", FifoQueue="true", ContentBasedDeduplication="true")
    assert attribute(url, "FifoQueue") == "true"
    ids = []
    for number in range(3):
        sent = sqs.send_message(QueueUrl=url, MessageBody=f"{number}", MessageGroupId="a")
        assert len(sent["SequenceNumber"]) == 20, sent
        ids.append(sent["MessageId"])
    again = sqs.send_message(QueueUrl=url, MessageBody="2", MessageGroupId="a")
    assert again["MessageId"] == ids[2], again
    attempt = {"ReceiveRequestAttemptId": "attempt-1"}
    first = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2, AttributeNames=["All"], **attempt)["Messages"]
    assert [message["Body"] for message in first] == ["0", "1"], first
    system = first[0]["Attributes"]
    assert system["MessageGroupId"] == "a" and len(system["SequenceNumber"]) == 20, system
    assert len(system["MessageDeduplicationId"]) == 64, system
    replayed = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2, **attempt)["Messages"]
    assert [m["ReceiptHandle"] for m in replayed] == [m["ReceiptHandle"] for m in first], replayed
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    for message in first:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    (last,) = receive(url)
    assert last["Body"] == "2", last
    send = sqs.send_message
    assert code(send, QueueUrl=url, MessageBody="x") == "MissingParameter"
    assert code(send, QueueUrl=url, MessageBody="x", MessageGroupId="a", DelaySeconds=1) == "InvalidParameterValue"
    strict = make(".fifo", FifoQueue="true")
    assert code(send, QueueUrl=strict, MessageBody="x", MessageGroupId="a") == "InvalidParameterValue"
    assert code(send, QueueUrl=make(), MessageBody="x", MessageDeduplicationId="d") == "InvalidParameterValue"


def dead_letters():
    dead = make()
    policy = json.dumps({"deadLetterTargetArn": attribute(dead, "QueueArn"), "maxReceiveCount": "1"})
    url = make(RedrivePolicy=policy, VisibilityTimeout="0")
    assert json.loads(attribute(url, "RedrivePolicy"))["maxReceiveCount"] == 1
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=f"{number}")
    receive(url, 3)
    assert "Messages" not in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    letters = receive(dead, 3, AttributeNames=["All"], VisibilityTimeout=1)
    assert {m["Attributes"]["DeadLetterQueueSourceArn"] for m in letters} == {attribute(url, "QueueArn")}, letters
    time.sleep(1.1)
    moves(url, dead)
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
    assert not sqs.list_dead_letter_source_queues(QueueUrl=dead).get("queueUrls")


def moves(url, dead):
    source = attribute(dead, "QueueArn")
    slow = sqs.start_message_move_task(SourceArn=source, MaxNumberOfMessagesPerSecond=1)
    (running,) = sqs.list_message_move_tasks(SourceArn=source)["Results"]
    assert running["Status"] == "RUNNING" and running["TaskHandle"] == slow["TaskHandle"], running
    assert running["MaxNumberOfMessagesPerSecond"] == 1 and running["ApproximateNumberOfMessagesToMove"] == 3, running
    assert code(sqs.start_message_move_task, SourceArn=source) == "InvalidParameterValue"
    moved = sqs.cancel_message_move_task(TaskHandle=slow["TaskHandle"])["ApproximateNumberOfMessagesMoved"]
    cancelled = code(sqs.cancel_message_move_task, TaskHandle=slow["TaskHandle"])
    assert cancelled == "ResourceNotFoundException", cancelled
    sqs.start_message_move_task(SourceArn=source, DestinationArn=attribute(url, "QueueArn"))
    until = time.monotonic() + 30
    while True:
        done, earlier = sqs.list_message_move_tasks(SourceArn=source, MaxResults=10)["Results"]
        if done["Status"] == "COMPLETED":
            break
        assert time.monotonic() < until, done
        time.sleep(0.05)
    assert earlier["Status"] == "CANCELLED" and "TaskHandle" not in done, (done, earlier)
    assert done["ApproximateNumberOfMessagesMoved"] + moved == 3, (done, moved)
    assert done["DestinationArn"] == attribute(url, "QueueArn"), done
    assert int(attribute(url, "ApproximateNumberOfMessages")) == 3
    assert code(sqs.start_message_move_task, SourceArn=attribute(make(), "QueueArn")) == "InvalidParameterValue"
    # A destination that is deleted while the task runs.
    gone, dead_again = make(), attribute(url, "QueueArn")
    policy = {"deadLetterTargetArn": dead_again, "maxReceiveCount": "1"}
    make(RedrivePolicy=json.dumps(policy))
    slow = {"DestinationArn": attribute(gone, "QueueArn"), "MaxNumberOfMessagesPerSecond": 1}
    sqs.start_message_move_task(SourceArn=dead_again, **slow)
    sqs.delete_queue(QueueUrl=gone)
    until = time.monotonic() + 30
    while (task := sqs.list_message_move_tasks(SourceArn=dead_again)["Results"][0])["Status"] == "RUNNING":
        assert time.monotonic() < until, task
        time.sleep(0.05)
    assert task["Status"] == "FAILED", task
    assert task["FailureReason"] == "AWS.SimpleQueueService.NonExistentQueue", task
    # A task that failed for another reason keeps it, also when its queue is deleted later.
    policy = {"deadLetterTargetArn": attribute(sourceless := make(), "QueueArn"), "maxReceiveCount": "1"}
    parent = make(RedrivePolicy=json.dumps(policy))
    sqs.send_message(QueueUrl=sourceless, MessageBody="sent here directly")
    sqs.start_message_move_task(SourceArn=policy["deadLetterTargetArn"])
    until = time.monotonic() + 30
    listed = {"SourceArn": policy["deadLetterTargetArn"]}
    while (task := sqs.list_message_move_tasks(**listed)["Results"][0])["Status"] == "RUNNING":
        assert time.monotonic() < until, task
        time.sleep(0.05)
    sqs.delete_queue(QueueUrl=parent)
    reason = sqs.list_message_move_tasks(**listed)["Results"][0]["FailureReason"]
    assert "has no source queue" in reason, reason
    nobody = source + "x"
    assert code(sqs.start_message_move_task, SourceArn=nobody) == "ResourceNotFoundException"
    assert code(sqs.list_message_move_tasks, SourceArn=nobody) == "ResourceNotFoundException"
    assert code(sqs.cancel_message_move_task, TaskHandle="nonsense") == "InvalidParameterValue"


def purge():
    url = make()
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=f"{number}")
    receive(url, 1)
    sqs.purge_queue(QueueUrl=url)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    assert attribute(url, "ApproximateNumberOfMessagesNotVisible") == "0"
    sqs.send_message(QueueUrl=url, MessageBody="after")
    assert receive(url)[0]["Body"] == "after"
    assert code(sqs.purge_queue, QueueUrl=url) == "AWS.SimpleQueueService.PurgeQueueInProgress"


def configured():
    """The queues of config.toml: clients use them, and cannot change or delete them."""
    url = sqs.get_queue_url(QueueName="statements")["QueueUrl"]
    unsupported = "AWS.SimpleQueueService.UnsupportedOperation"
    assert code(sqs.delete_queue, QueueUrl=url) == unsupported
    assert code(sqs.set_queue_attributes, QueueUrl=url, Attributes={"DelaySeconds": "5"}) == unsupported
    sqs.tag_queue(QueueUrl=url, Tags={"team": "mail"})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": '{"Statement":[]}'})


for check in [
    queues, lists, attributes, tags, policies, messages, batches, visibility, long_polls, fifo, dead_letters, purge, configured
]:
    check()
    print(f"{check.__name__}: fine", flush=True)
