// Drives the endpoints with the official Node client: node suite.mjs BASE_URL API_KEY. Prints a line for each check, and
// exits with 1 if one failed.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
const RUNNING = ["validating_files", "queued", "running"];
const SHORT = { evaluation: { max_examples: 4, few_shot: 1, max_tokens: 8 } };
const unique = Math.random().toString(36).slice(2);

const rows = (count, salt) =>
  Array.from({ length: count }, (_, n) =>
    JSON.stringify({
      messages: [
        { role: "user", content: `${unique} ${salt}: what is ${n} plus ${n}?` },
        { role: "assistant", content: `It is ${n + n}.` },
      ],
    }) + "\n",
  ).join("");

async function all(page) {
  const found = [];
  for await (const item of page) found.push(item);
  return found;
}

async function end(id) {
  for (const deadline = Date.now() + 300_000; ; ) {
    const job = await client.fineTuning.jobs.retrieve(id);
    if (!RUNNING.includes(job.status)) return job;
    assert(Date.now() < deadline, JSON.stringify(job));
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

let job;
const checks = {
  async files() {
    const content = rows(12, "files");
    const file = await client.files.create({ file: await toFile(Buffer.from(content), "a.jsonl"), purpose: "fine-tune" });
    assert.equal(file.bytes, content.length);
    assert.equal(await (await client.files.content(file.id)).text(), content);
    assert((await all(client.files.list({ limit: 1 }))).some((each) => each.id === file.id));
    const remove = client.files.delete ?? client.files.del;
    assert((await remove.call(client.files, file.id)).deleted);
    await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
  },
  async uploads() {
    const content = rows(30, "upload");
    const upload = await client.uploads.create({
      bytes: content.length,
      filename: "u.jsonl",
      mime_type: "text/jsonl",
      purpose: "fine-tune",
    });
    const half = Math.floor(content.length / 2);
    const pieces = [content.slice(0, half), content.slice(half)];
    const parts = await Promise.all(
      pieces.map(async (piece) => client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(piece), "part") })),
    );
    const done = await client.uploads.complete(upload.id, { part_ids: parts.map((part) => part.id) });
    assert.equal(await (await client.files.content(done.file.id)).text(), content);
  },
  async a_job() {
    const file = await client.files.create({ file: await toFile(Buffer.from(rows(24, "job")), "t.jsonl"), purpose: "fine-tune" });
    job = await client.fineTuning.jobs.create({
      model: "gpt-4o-mini-2024-07-18",
      training_file: file.id,
      suffix: "node",
      method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 1, batch_size: 8 } } },
      ...SHORT,
    });
    assert((await all(client.fineTuning.jobs.list({ limit: 1 }))).some((each) => each.id === job.id));
    job = await end(job.id);
    assert.equal(job.status, "succeeded", JSON.stringify(job.error));
    const events = await all(client.fineTuning.jobs.listEvents(job.id, { limit: 3 }));
    assert.equal(events.at(-1).message, `Created fine-tuning job: ${job.id}`);
    assert((await (await client.files.content(job.result_files[0])).text()).startsWith("step,train_loss,train_accuracy"));
  },
  async chat() {
    const ask = { model: job.fine_tuned_model, messages: [{ role: "user", content: "What is 2 plus 2?" }], max_tokens: 4 };
    assert.equal((await client.chat.completions.create(ask)).model, job.fine_tuned_model);
    assert((await all(await client.chat.completions.create({ ...ask, stream: true }))).length > 0);
    for (const each of await all(client.fineTuning.jobs.checkpoints.list(job.id)))
      assert.equal((await client.chat.completions.create({ ...ask, model: each.fine_tuned_model_checkpoint })).model, each.fine_tuned_model_checkpoint);
    assert.equal((await client.models.retrieve(job.fine_tuned_model)).id, job.fine_tuned_model);
    await assert.rejects(client.models.retrieve("nobody/has-this"), OpenAI.NotFoundError);
  },
  async errors() {
    await assert.rejects(new OpenAI({ baseURL, apiKey: "sk-nobody" }).models.list(), OpenAI.AuthenticationError);
    await assert.rejects(client.fineTuning.jobs.cancel(job.id), OpenAI.BadRequestError);
    await assert.rejects(client.fineTuning.jobs.create({ model: "gpt-4o-mini", training_file: "file-nowhere" }), OpenAI.BadRequestError);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`${name.padEnd(32)} ok`);
  } catch (error) {
    failed += 1;
    console.log(`${name.padEnd(32)} FAILED\n${error.stack}`);
  }
}
console.log(`Node ${process.version}: ${Object.keys(checks).length} checks, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
