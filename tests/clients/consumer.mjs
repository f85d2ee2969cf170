// AWS's SDK for JavaScript and sqs-consumer: work through a queue, with failures that end in the dead-letter queue, and a
// move task that brings them back.
//
// Usage: node consumer.mjs ENDPOINT

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { SQSClient } from '@aws-sdk/client-sqs';
import * as sqs from '@aws-sdk/client-sqs';
import { Consumer } from 'sqs-consumer';

const endpoint = process.argv[2];
const credentials = { accessKeyId: 'any', secretAccessKey: 'any' };
const client = new SQSClient({ endpoint, region: 'us-east-1', credentials, maxAttempts: 1 });
const send = (command) => client.send(command);
const attribute = async (QueueUrl, name) =>
  (await send(new sqs.GetQueueAttributesCommand({ QueueUrl, AttributeNames: [name] }))).Attributes[name];
const make = async (Attributes) =>
  (await send(new sqs.CreateQueueCommand({ QueueName: `js-${randomUUID()}`, Attributes }))).QueueUrl;
const until = async (what, look) => {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((done) => setTimeout(done, 50))) {
    if (await look()) return;
  }
  throw new Error(`waited too long for ${what}`);
};

await assert.rejects(send(new sqs.GetQueueUrlCommand({ QueueName: 'none' })), (error) => {
  assert.equal(error.name, 'QueueDoesNotExist');
  assert.equal(error.$metadata.httpStatusCode, 400);
  return true;
});

const dead = await make();
const deadLetterTargetArn = await attribute(dead, 'QueueArn');
const queue = await make({
  VisibilityTimeout: '30',
  RedrivePolicy: JSON.stringify({ deadLetterTargetArn, maxReceiveCount: 2 }),
});
for (let batch = 0; batch < 5; batch++) {
  const Entries = Array.from({ length: 10 }, (_, n) => ({
    Id: `m${n}`,
    MessageBody: JSON.stringify({ number: batch * 10 + n }),
    MessageAttributes: { Kind: { DataType: 'String', StringValue: n === 7 ? 'poison' : 'plain' } },
  }));
  const answer = await send(new sqs.SendMessageBatchCommand({ QueueUrl: queue, Entries }));
  assert.equal(answer.Successful.length, 10);
}

let mended = false;
const done = new Map();
const consumer = Consumer.create({
  queueUrl: queue,
  sqs: client,
  batchSize: 10,
  waitTimeSeconds: 1,
  visibilityTimeout: 30,
  terminateVisibilityTimeout: true,
  messageAttributeNames: ['All'],
  handleMessage: async (message) => {
    if (message.MessageAttributes.Kind.StringValue === 'poison' && !mended) throw new Error('poison');
    const { number } = JSON.parse(message.Body);
    done.set(number, (done.get(number) ?? 0) + 1);
    return message;
  },
});
consumer.on('error', (error) => { throw error; });
consumer.on('processing_error', () => {});
consumer.start();
await until('45 messages', () => done.size === 45);
await until('5 letters', async () => (await attribute(dead, 'ApproximateNumberOfMessages')) === '5');
mended = true;
await send(new sqs.StartMessageMoveTaskCommand({ SourceArn: deadLetterTargetArn }));
await until('all messages', () => done.size === 50);
consumer.stop();
assert.deepEqual([...done.values()], Array(50).fill(1), 'each message once');
await until('an empty queue', async () => (await attribute(queue, 'ApproximateNumberOfMessagesNotVisible')) === '0');
assert.equal(await attribute(dead, 'ApproximateNumberOfMessages'), '0');
console.log('50 messages, each once');
process.exit(0);
