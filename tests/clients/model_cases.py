"""Every action of SQS's service model with every parameter missing, empty, over its limit and of a wrong type, over both
protocols; then random requests.

Usage: model_cases.py ENDPOINT [SECONDS]. The model is botocore's. Each request must get an answer that is no 5xx, in the form
of its protocol; a parameter that is missing, of a wrong type or beyond a documented limit must get AWS's code for that.
"""

import copy
import http.client
import json
import os
import random
import sys
import time
import urllib.parse
import xml.etree.ElementTree as ET

import botocore.session

ENDPOINT = urllib.parse.urlparse(sys.argv[1])
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0
MODEL = botocore.session.get_session().get_service_model("sqs")
connection = http.client.HTTPConnection(ENDPOINT.hostname, ENDPOINT.port, timeout=60)
codes = {}
sent = 0


def call(action, parameters):
    """The code of a JSON request; None when it succeeded."""
    global sent
    sent += 1
    headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
    connection.request("POST", "/", json.dumps(parameters), headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status < 500, (action, parameters, answer.status, body)
    assert answer.headers["x-amzn-RequestId"], (action, parameters)
    if answer.status == 200:
        json.loads(body)
        return None
    refusal = json.loads(body)
    assert refusal["__type"].split("#")[1] and refusal["message"], (action, parameters, body)
    code, fault = answer.headers["x-amzn-query-error"].split(";")
    assert fault == "Sender", (action, parameters, body)
    codes[code] = codes.get(code, 0) + 1
    return code


def query(form):
    """The code of a Query request; None when it succeeded."""
    global sent
    sent += 1
    body = urllib.parse.urlencode(form, errors="surrogatepass")
    connection.request("POST", "/", body, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status < 500, (form, answer.status, body)
    root = ET.fromstring(body)
    if answer.status == 200:
        return None
    found = [element.text for element in root.iter() if element.tag.endswith("Code")]
    assert found and found[0], body
    return found[0]


# What the Query protocol calls the items of lists and maps, and their keys and values.
LISTS = {"AttributeNames": "AttributeName", "MessageAttributeNames": "MessageAttributeName", "TagKeys": "TagKey",
         "MessageSystemAttributeNames": "MessageSystemAttributeName", "AWSAccountIds": "AWSAccountId", "Actions": "ActionName"}
MAPS = {"Attributes": ("Attribute", "Name", "Value"), "MessageAttributes": ("MessageAttribute", "Name", "Value"),
        "MessageSystemAttributes": ("MessageSystemAttribute", "Name", "Value"), "Tags": ("Tag", "Key", "Value"),
        "tags": ("Tag", "Key", "Value")}


def fields(action, parameters, above=""):
    """The parameters as the Query protocol writes them."""
    for name, value in parameters.items():
        if name in MAPS and isinstance(value, dict):
            item, key, of = MAPS[name]
            for number, (key_text, inner) in enumerate(value.items(), 1):
                yield f"{above}{item}.{number}.{key}", key_text
                yield from fields(action, {of: inner}, f"{above}{item}.{number}.")
        elif isinstance(value, dict):
            yield from fields(action, value, f"{above}{name}.")
        elif isinstance(value, list):
            item = f"{action}RequestEntry" if name == "Entries" else LISTS.get(name, name)
            for number, inner in enumerate(value, 1):
                yield from fields(action, {f"{item}.{number}": inner}, above)
        elif value is not None:
            yield above + name, value if isinstance(value, str) else json.dumps(value)


def call_query(action, parameters):
    """As `call`, over the Query protocol."""
    return query({"Action": action, "Version": "2012-11-05", **dict(fields(action, parameters))})


def make(name, **attributes):
    call("CreateQueue", {"QueueName": name, "Attributes": attributes})
    return f"/000000000000/{name}"


DEAD = make("model-dead")
POLICY = json.dumps({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:model-dead", "maxReceiveCount": 1})
URL = make("model", RedrivePolicy=POLICY)
VALUES = {
    "QueueUrl": URL,
    "QueueName": "model",
    "MessageBody": "body",
    "SourceArn": "arn:aws:sqs:us-east-1:000000000000:model-dead",
    "VisibilityTimeout": 1,
    "Label": "label",
    "AWSAccountIds": ["000000000000"],
    "Actions": ["SendMessage"],
    "Tags": {"key": "value"},
    "TagKeys": ["key"],
    "Id": "id",
    "DataType": "String",
    "Attributes": {"VisibilityTimeout": "30"},
}
# Values that no parameter of that type takes, or that are far over any limit.
ODD = {
    "string": ["", "x" * 100_000, "\u0000", "é\ud83e\udd89", "a b", "../..", "%00"],
    "integer": [-1, 10**6, 2**31, 2**63, -(2**63)],
    "long": [-1, 2**63],
    "list": [[], [""] * 50, [None]],
    "map": [{}, {"": ""}, {"x" * 300: "x" * 300}, {str(n): "x" for n in range(60)}],
    "structure": [{}],
    "blob": ["", "!"],
    "boolean": ["x"],
}
WRONG = {"string": [1, [], {}, True], "integer": ["x", [], {}, True, 1.5], "list": ["x", 1, {"a": 1}], "map": ["x", 1, [1]]}


def receipt():
    call("SendMessage", {"QueueUrl": URL, "MessageBody": "body"})
    connection.request("POST", "/", json.dumps({"QueueUrl": URL}), {"X-Amz-Target": "AmazonSQS.ReceiveMessage"})
    messages = json.loads(connection.getresponse().read()).get("Messages", [])
    return messages[0]["ReceiptHandle"] if messages else "none"


def sound(shape, name=""):
    """A value of the shape that the endpoint takes."""
    if name == "ReceiptHandle":
        return receipt()
    if name in VALUES:
        return VALUES[name]
    if shape.type_name == "structure":
        return {member: sound(shape.members[member], member) for member in shape.required_members}
    if shape.type_name == "list":
        return [sound(shape.member)]
    return {"string": "text", "integer": 1, "long": 1, "map": {}, "blob": "eA=="}[shape.type_name]


def paths(shape, above=()):
    """Every parameter of a shape, also those inside lists and maps, as a path."""
    for name, member in shape.members.items():
        yield above + (name,), member, name in shape.required_members
        inner = member.member if member.type_name == "list" else member
        if inner.type_name == "structure":
            yield from paths(inner, above + (name,) + ((0,) if member.type_name == "list" else ()))


def changed(parameters, path, value):
    parameters = copy.deepcopy(parameters)
    at = parameters
    for step in path[:-1]:
        at = at[step]
    if value is None:
        at.pop(path[-1], None)
    else:
        at[path[-1]] = value
    return parameters


MISSING = {"MissingParameter", "AWS.SimpleQueueService.EmptyBatchRequest", "InvalidParameterValue"}
for action in MODEL.operation_names:
    shape = MODEL.operation_model(action).input_shape
    if action in ("DeleteQueue", "PurgeQueue", "StartMessageMoveTask", "CancelMessageMoveTask"):
        base = {name: VALUES.get(name, "text") for name in shape.required_members}
        if action == "DeleteQueue":
            base["QueueUrl"] = make("model-gone")
    else:
        base = sound(shape)
    for path, member, required in list(paths(shape)):
        inside = len(path) > 1
        if required:
            for protocol in (call, call_query):
                code = protocol(action, changed(base, path, None))
                assert code in MISSING or inside, (action, path, "missing", code, protocol)
        for value in ODD[member.type_name]:
            call(action, changed(base, path, value))
            call_query(action, changed(base, path, value))
        for value in WRONG.get(member.type_name, []):
            code = call(action, changed(base, path, value))
            assert code == "MalformedInput", (action, path, value, code)
    print(f"{action}: fine", flush=True)

# What AWS documents or answered when it was recorded: the code of each limit, over both protocols.
VALUE, ATTRIBUTE = "InvalidParameterValue", "InvalidAttributeValue"
SYSTEM_NAMES = ("AttributeNames", "MessageSystemAttributeNames")
PREFIX = "AWS.SimpleQueueService."
TEXT = {"DataType": "String", "StringValue": "x"}
ARN = VALUES["SourceArn"]


def entries(count, **more):
    return [{"Id": str(number), "MessageBody": "x", **more} for number in range(count)]


def attribute(name, data_type="String", value="x"):
    return {"QueueUrl": URL, "MessageBody": "x", "MessageAttributes": {name: {"DataType": data_type, "StringValue": value}}}


LIMITS = [
    ("SendMessage", {"QueueUrl": URL, "MessageBody": ""}, "MissingParameter"),
    ("SendMessage", {"QueueUrl": URL, "MessageBody": "x" * ((1 << 20) + 1)}, VALUE),
    ("SendMessage", {"QueueUrl": URL, "MessageBody": "a\u0000b"}, "InvalidMessageContents"),
    ("SendMessage", {"QueueUrl": URL, "MessageBody": "\ufffe"}, "InvalidMessageContents"),
    ("SendMessage", {"QueueUrl": URL, "MessageBody": "x", "MessageDeduplicationId": "x"}, VALUE),
    *[("SendMessage", {"QueueUrl": URL, "MessageBody": "x", "DelaySeconds": n}, VALUE) for n in (-1, 901)],
    *[("SendMessage", {"QueueUrl": URL, "MessageBody": "x", "MessageGroupId": g}, VALUE) for g in ("", "a b", "x" * 129)],
    *[("SendMessage", attribute(name), VALUE) for name in ("AWS.x", "amazon.x", "a..b", ".a", "a.", "a b", "x" * 257)],
    ("SendMessage", attribute("a", value=""), VALUE),
    ("SendMessage", attribute("a", data_type=""), VALUE),
    ("SendMessage", attribute("a", data_type="Text"), VALUE),
    ("SendMessage", attribute("a", data_type="Number", value="x"), VALUE),
    ("SendMessage", attribute("a", data_type="Number", value="1" * 39), VALUE),
    ("SendMessage", {"QueueUrl": URL, "MessageBody": "x", "MessageAttributes": {f"a{n}": TEXT for n in range(11)}}, VALUE),
    ("SendMessage", {"QueueUrl": URL, "MessageBody": "x", "MessageSystemAttributes": {"Other": TEXT}}, VALUE),
    ("SendMessageBatch", {"QueueUrl": URL, "Entries": entries(11)}, PREFIX + "TooManyEntriesInBatchRequest"),
    ("SendMessageBatch", {"QueueUrl": URL, "Entries": entries(1) * 2}, PREFIX + "BatchEntryIdsNotDistinct"),
    ("SendMessageBatch", {"QueueUrl": URL, "Entries": []}, PREFIX + "EmptyBatchRequest"),
    ("SendMessageBatch", {"QueueUrl": URL, "Entries": [{"Id": "x" * 81, "MessageBody": "x"}]}, PREFIX + "InvalidBatchEntryId"),
    ("SendMessageBatch", {"QueueUrl": URL, "Entries": entries(3, MessageBody="x" * (1 << 19))}, PREFIX + "BatchRequestTooLong"),
    *[(f"{action}Batch", {"QueueUrl": URL, "Entries": [{"Id": i, "ReceiptHandle": "x", "VisibilityTimeout": 1}]},
       PREFIX + "InvalidBatchEntryId") for action in ("DeleteMessage", "ChangeMessageVisibility") for i in ("", "a b", "x" * 81)],
    *[("ReceiveMessage", {"QueueUrl": URL, "MaxNumberOfMessages": n}, VALUE) for n in (-1, 0, 11)],
    *[("ReceiveMessage", {"QueueUrl": URL, "VisibilityTimeout": n}, VALUE) for n in (-1, 43_201)],
    *[("ReceiveMessage", {"QueueUrl": URL, "WaitTimeSeconds": n}, VALUE) for n in (-1, 21)],
    ("ReceiveMessage", {"QueueUrl": URL, "ReceiveRequestAttemptId": "x" * 129}, VALUE),
    ("DeleteMessage", {"QueueUrl": URL, "ReceiptHandle": "x"}, "ReceiptHandleIsInvalid"),
    ("ChangeMessageVisibility", {"QueueUrl": URL, "ReceiptHandle": "x", "VisibilityTimeout": 1}, "ReceiptHandleIsInvalid"),
    *[("CreateQueue", {"QueueName": name}, VALUE) for name in ("", "a b", "x" * 81, "a.b", ".fifo", "é")],
    *[("CreateQueue", {"QueueName": "limits", "Attributes": {name: value}}, ATTRIBUTE) for name, values in {
        "DelaySeconds": ("-1", "901", "x", ""), "MaximumMessageSize": ("1023", "1048577"), "VisibilityTimeout": ("-1", "43201"),
        "MessageRetentionPeriod": ("59", "1209601"), "ReceiveMessageWaitTimeSeconds": ("-1", "21"), "Policy": ("x",),
        "KmsDataKeyReusePeriodSeconds": ("59", "86401"), "SqsManagedSseEnabled": ("x",)}.items() for value in values],
    ("CreateQueue", {"QueueName": "limits", "Attributes": {"Nonsense": "1"}}, "InvalidAttributeName"),
    ("CreateQueue", {"QueueName": "limits", "Attributes": {"QueueArn": "1"}}, "InvalidAttributeName"),
    ("CreateQueue", {"QueueName": "limits", "tags": {f"t{n}": "" for n in range(51)}}, VALUE),
    ("SetQueueAttributes", {"QueueUrl": URL, "Attributes": {"VisibilityTimeout": "43201"}}, ATTRIBUTE),
    ("SetQueueAttributes", {"QueueUrl": URL, "Attributes": {"Nonsense": "1"}}, "InvalidAttributeName"),
    ("GetQueueAttributes", {"QueueUrl": URL, "AttributeNames": ["Nonsense"]}, "InvalidAttributeName"),
    *[("ReceiveMessage", {"QueueUrl": URL, names: ["Nonsense"]}, "InvalidAttributeName") for names in SYSTEM_NAMES],
    ("ReceiveMessage", {"QueueUrl": URL, "MessageSystemAttributeNames": ["QueueArn"]}, "InvalidAttributeName"),
    *[("ListQueues", {"MaxResults": n}, VALUE) for n in (-1, 0, 1001)],
    *[("ListDeadLetterSourceQueues", {"QueueUrl": DEAD, "MaxResults": n}, VALUE) for n in (-1, 0, 1001)],
    ("ListQueues", {"MaxResults": 1, "NextToken": "!"}, VALUE),
    ("TagQueue", {"QueueUrl": URL, "Tags": {f"t{n}": "" for n in range(51)}}, VALUE),
    ("TagQueue", {"QueueUrl": URL, "Tags": {"x" * 129: "x"}}, VALUE),
    ("TagQueue", {"QueueUrl": URL, "Tags": {"x": "x" * 257}}, VALUE),
    ("AddPermission", {"QueueUrl": URL, "Label": "a b", "AWSAccountIds": ["000000000000"], "Actions": ["*"]}, VALUE),
    ("AddPermission", {"QueueUrl": URL, "Label": "x", "AWSAccountIds": ["1"], "Actions": ["*"]}, VALUE),
    ("AddPermission", {"QueueUrl": URL, "Label": "x", "AWSAccountIds": ["000000000000"], "Actions": ["Nonsense"]}, VALUE),
    ("AddPermission", {"QueueUrl": URL, "Label": "x", "AWSAccountIds": ["000000000000"], "Actions": ["*"] * 8}, "OverLimit"),
    ("RemovePermission", {"QueueUrl": URL, "Label": "nobody"}, VALUE),
    *[("StartMessageMoveTask", {"SourceArn": ARN, "MaxNumberOfMessagesPerSecond": n}, VALUE) for n in (-1, 0, 501)],
    ("StartMessageMoveTask", {"SourceArn": "x"}, VALUE),
    ("StartMessageMoveTask", {"SourceArn": ARN + "x"}, "ResourceNotFoundException"),
    ("StartMessageMoveTask", {"SourceArn": ARN, "DestinationArn": ARN + "x"}, "ResourceNotFoundException"),
    *[("ListMessageMoveTasks", {"SourceArn": ARN, "MaxResults": n}, VALUE) for n in (-1, 0, 11)],
    ("CancelMessageMoveTask", {"TaskHandle": "x"}, VALUE),
]
for action in MODEL.operation_names:
    shape = MODEL.operation_model(action).input_shape
    if "QueueUrl" in shape.members:
        missing = {**{name: VALUES.get(name, "x") for name in shape.required_members if name != "Entries"}, "QueueUrl": URL + "-none"}
        if "Entries" in shape.members:
            missing["Entries"] = [{"Id": "x", "MessageBody": "x", "ReceiptHandle": "x", "VisibilityTimeout": 1}]
        LIMITS.append((action, missing, PREFIX + "NonExistentQueue"))
for action, parameters, expected in LIMITS:
    for protocol in (call, call_query):
        code = protocol(action, parameters)
        assert code == expected, (action, str(parameters)[:300], protocol.__name__, code, expected)
print(f"{len(LIMITS)} limits: fine", flush=True)
assert call("NoSuchAction", {}) == "InvalidAction"
assert query({"Action": "NoSuchAction"}) == "InvalidAction"

SEED = int(os.environ.get("NIGHTMAIL_SEED", time.time()))
print(f"NIGHTMAIL_SEED={SEED}")
rng = random.Random(SEED)
NAMES = sorted({name for op in MODEL.operation_names for path, *_ in paths(MODEL.operation_model(op).input_shape) for name in path if name != 0})
FORMS = ["Attribute.1.Name", "Attribute.1.Value", "AttributeName.1", "MessageAttribute.1.Name", "Tag.1.Key", "Tag.1.Value",
         "MessageAttribute.1.Value.DataType", "MessageAttribute.1.Value.StringValue", "SendMessageBatchRequestEntry.1.Id",
         "SendMessageBatchRequestEntry.1.MessageBody", "DeleteMessageBatchRequestEntry.2.ReceiptHandle", "TagKey.1"]


def anything(depth=0):
    """A random JSON value."""
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return rng.choice([v for values in ODD.values() for v in values] + list(VALUES.values()))
    if kind == 2:
        return rng.randint(-(2**40), 2**40)
    if kind == 3:
        return "".join(chr(rng.choice([rng.randrange(1, 128), rng.randrange(0x100, 0xD7FF)])) for _ in range(rng.randrange(40)))
    if kind == 4:
        return rng.choice([None, True, 1.5, "", rng.choice(NAMES)])
    if kind < 7:
        return {rng.choice(NAMES): anything(depth + 1) for _ in range(rng.randrange(5))}
    return [anything(depth + 1) for _ in range(rng.randrange(12))]


until = time.monotonic() + SECONDS
while time.monotonic() < until:
    action = rng.choice(MODEL.operation_names)
    names = list(MODEL.operation_model(action).input_shape.members)
    parameters = {name: VALUES.get(name) if rng.random() < 0.6 else anything() for name in rng.sample(names, rng.randint(0, len(names)))}
    parameters.pop("WaitTimeSeconds", None)
    call(action, parameters)
    form = {"Action": action, "QueueUrl": URL}
    for _ in range(rng.randrange(8)):
        form[rng.choice(FORMS + NAMES)] = str(anything())
    form.pop("WaitTimeSeconds", None)
    query(form)
print(f"{sent} requests; refused with {codes}")
