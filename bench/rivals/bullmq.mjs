// All producers and consumers of BullMQ: node bullmq.mjs REDIS_SOCKET
//
// A line of JSON in, {"what": "produce" | "consume", "callers", "first", "end"}; a line out, {"seconds"}. Anything that is
// lost, doubled or unknown ends the script with an error.

import { createInterface } from "node:readline";
import { Queue, Worker } from "bullmq";

const connection = { path: process.argv[2], maxRetriesPerRequest: null };
const queue = new Queue("bench", { connection });
const padding = "a".repeat(1024 - 20);

async function produce({ callers, first, end }) {
  await queue.waitUntilReady();
  let next = first;
  const one = async () => {
    while (next < end) {
      const body = String(next++).padStart(20, "0") + padding;
      await queue.add("message", body, { removeOnComplete: true });
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: callers }, one));
  return performance.now() - began;
}

async function consume({ callers, first, end }) {
  const seen = new Set();
  let began;
  const took = await new Promise((resolve, reject) => {
    const worker = new Worker("bench", async (message) => Number(message.data.slice(0, 20)), {
      connection,
      concurrency: callers,
      autorun: false,
    });
    worker.on("error", reject);
    worker.on("failed", (_, error) => reject(error));
    // Comes after the acknowledgement.
    worker.on("completed", (_, number) => {
      if (seen.has(number) || number < first || number >= end) {
        reject(new Error(`message ${number} came twice or was never sent`));
      }
      seen.add(number);
      if (seen.size === end - first) {
        const took = performance.now() - began;
        worker.close().then(() => resolve(took), reject);
      }
    });
    worker.waitUntilReady().then(() => {
      began = performance.now();
      worker.run().catch(reject);
    }, reject);
  });
  return took;
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const took = await (order.what === "produce" ? produce(order) : consume(order));
  console.log(JSON.stringify({ seconds: took / 1000 }));
}
process.exit(0);
