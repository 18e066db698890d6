// Drives the endpoints with the official Node client: node suite.mjs --base-url URL --api-key KEY --api-url URL
// --lossy-url URL --base ID. Prints a line for each check, and exits with 1 if one failed.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { all, apiURL, base, client, connect, jsonl, lossyURL, receiver, refused, rows, unique, until, upload } from "./support.mjs";

const MODEL = "gpt-4o-mini-2024-07-18";
const RUNNING = ["validating_files", "queued", "running"];
const SHORT = { evaluation: { max_examples: 2, few_shot: 0, max_tokens: 1 }, gate: { promote: "never" } };
const SUCCEEDED = "fine_tuning.job.succeeded";
const { jobs, checkpoints } = client.fineTuning;
const hooks = await receiver();
let job, endpoint;

const end = (id) =>
  until(async () => {
    const found = await jobs.retrieve(id);
    return !RUNNING.includes(found.status) && found;
  }, `${id} ends`, 900);

// a long job, which the caller cancels
async function another(salt, options = {}, from = client, model = MODEL) {
  const file = await upload(rows(24, salt));
  const body = { model, training_file: file.id, hyperparameters: { n_epochs: 50 }, ...SHORT };
  return from.fineTuning.jobs.create(body, options);
}

async function ask(model, from = client) {
  const answer = await from.chat.completions.create({
    model,
    messages: [{ role: "user", content: "What is 2 plus 2?" }],
    max_tokens: 2,
  });
  assert.equal(answer.model, model);
}

const checks = {
  async webhooks() {
    const make = (name) => client.webhooks.create({ name, url: hooks.url, event_types: [SUCCEEDED] });
    const second = await make(`${unique} b`);
    endpoint = await make(`${unique} a`);
    const listed = (await all(client.webhooks.list({ limit: 1 }))).map((each) => each.id);
    assert(listed.indexOf(endpoint.id) < listed.indexOf(second.id));
    assert.equal((await client.webhooks.retrieve(second.id)).url, hooks.url);
    assert.equal((await client.webhooks.update(second.id, { name: "changed" })).name, "changed");
    assert((await client.webhooks.eventTypes.list()).data.includes(SUCCEEDED));
    assert((await client.webhooks.delete(second.id)).deleted);
    await refused(OpenAI.NotFoundError, () => client.webhooks.retrieve(second.id));

    const sample = async () => {
      const known = hooks.taken.length;
      await client.webhooks.test(endpoint.id, { event_type: SUCCEEDED });
      return hooks.taken[known];
    };
    const first = await sample();
    assert.equal((await client.webhooks.unwrap(first.body, first.headers, endpoint.signing_secret)).type, SUCCEEDED);
    const old = endpoint.signing_secret;
    endpoint = await client.webhooks.rotateSecret(endpoint.id);
    const next = await sample();
    await client.webhooks.unwrap(next.body, next.headers, endpoint.signing_secret);
    await assert.rejects(client.webhooks.unwrap(next.body, next.headers, old), OpenAI.InvalidWebhookSignatureError);
  },

  // created, paused, resumed; the other checks go on while it trains
  async own_job() {
    const file = await upload(rows(24, "job"));
    const validation = await upload(rows(10, "valid"));
    job = await jobs.create({
      model: MODEL,
      training_file: file.id,
      validation_file: validation.id,
      suffix: "node",
      metadata: { suite: unique },
      method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 2, batch_size: 8 } } },
      ...SHORT,
    });
    assert.equal(job.metadata.suite, unique);
    assert.equal((await jobs.pause(job.id)).status, "paused");
    assert(RUNNING.includes((await jobs.resume(job.id)).status));
  },

  async files() {
    const content = rows(12, "files");
    const unnamed = await upload(content, undefined);
    const file = await upload(content, "a.jsonl");
    assert.deepEqual([file.bytes, file.filename, unnamed.bytes], [content.length, "a.jsonl", content.length]);
    assert.equal((await client.files.waitForProcessing(file.id, { pollInterval: 100 })).status, "processed");
    assert.equal(await (await client.files.content(file.id)).text(), content);
    const listed = (await all(client.files.list({ purpose: "fine-tune", limit: 5 }))).map((each) => each.id);
    assert(listed.indexOf(file.id) < listed.indexOf(unnamed.id));
    for (const { id } of [file, unnamed]) assert((await client.files.delete(id)).deleted);
    await refused(OpenAI.NotFoundError, () => client.files.retrieve(file.id));
    const odd = async () => client.files.create({ file: await jsonl("{}", "a"), purpose: "no-purpose" });
    assert.equal((await refused(OpenAI.BadRequestError, odd)).param, "purpose");
  },

  // three megabytes in parts that are sent at once; `part_ids` gives their order, and md5 proves it
  async uploads() {
    const piece = rows(10, "upload" + "x".repeat(1000));
    const content = piece.repeat(Math.ceil((3 * 2 ** 20) / piece.length));
    const about = { filename: "u.jsonl", mime_type: "text/jsonl", purpose: "fine-tune" };
    const begun = await client.uploads.create({ bytes: content.length, ...about });
    const size = Math.ceil(content.length / 4);
    const pieces = [0, 1, 2, 3].map((n) => content.slice(n * size, (n + 1) * size)).reverse();
    const parts = await Promise.all(
      pieces.map(async (data) => client.uploads.parts.create(begun.id, { data: await jsonl(data, "part") })),
    );
    const ids = parts.map((part) => part.id);
    const md5 = createHash("md5").update(content).digest("hex");
    const wrong = () => client.uploads.complete(begun.id, { part_ids: ids, md5 });
    assert.equal((await refused(OpenAI.BadRequestError, wrong)).param, "md5");
    const done = await client.uploads.complete(begun.id, { part_ids: [...ids].reverse(), md5 });
    assert.equal(await (await client.files.content(done.file.id)).text(), content);
    await client.files.delete(done.file.id);
    const other = await client.uploads.create({ bytes: 3, ...about });
    assert.equal((await client.uploads.cancel(other.id)).status, "cancelled");
  },

  async wrong_keys_and_empty_bodies() {
    const stranger = connect({ apiKey: "sk-nobody", maxRetries: 0 });
    for (const call of [
      () => stranger.models.list(),
      () => stranger.files.list(),
      () => stranger.fineTuning.jobs.list(),
      () => stranger.webhooks.list(),
      () => ask(base, stranger),
    ])
      assert.equal((await refused(OpenAI.AuthenticationError, call)).code, "invalid_api_key");
    const needing = ["/files", "/uploads", "/fine_tuning/jobs", "/chat/completions", "/webhook_endpoints"];
    for (const path of needing)
      assert([400, 422].includes((await refused(OpenAI.APIError, () => client.post(path))).status), path);
  },

  async graders() {
    const { graders } = client.fineTuning.alpha;
    const texts = { input: "{{sample.output_text}}", reference: "{{item.answer}}" };
    const grader = { type: "string_check", name: "sum", operation: "eq", ...texts };
    assert.equal((await graders.validate({ grader })).grader.type, "string_check");
    for (const [model_sample, reward] of [["four", 1], ["five", 0]])
      assert.equal((await graders.run({ grader, model_sample, item: { answer: "four" } })).reward, reward);
    const wrong = () => graders.validate({ grader: { ...grader, operation: "is" } });
    assert.equal((await refused(OpenAI.BadRequestError, wrong)).param, "grader.operation");
  },

  async bad_jobs() {
    const nothing = () => jobs.create({ model: MODEL, training_file: "file-nowhere" });
    assert.equal((await refused(OpenAI.BadRequestError, nothing)).param, "training_file");
    await refused(OpenAI.NotFoundError, () => jobs.retrieve("ftjob-nowhere"));
    const few = await upload(rows(7, "few"));
    const ended = await end((await jobs.create({ model: MODEL, training_file: few.id })).id);
    assert.equal(ended.status, "failed");
    assert.match(ended.error.message, /7 example\(s\).*at least 10/);
  },

  async cancel() {
    const { id } = await another("cancel");
    assert.equal((await jobs.cancel(id)).id, id);
    assert.equal((await end(id)).status, "cancelled");
  },

  // every first answer is lost, the client waits in vain and asks again; what it asks for is done once
  async timeouts() {
    const lossy = connect({ baseURL: lossyURL, timeout: 2000, maxRetries: 4 });
    let lost = 0;
    const once = () => ({ headers: { "x-lose-first-answer": `${unique}-${lost++}` } });
    const calls = lossy.fineTuning.jobs;
    const file = await upload(rows(10, "lost"));
    const [found, gone, made] = await Promise.all([
      calls.retrieve(job.id, once()),
      lossy.files.delete(file.id, once()),
      another("lost", once(), lossy),
    ]);
    assert(found.id === job.id && gone.deleted);
    const listed = await all(jobs.list({ limit: 50 }));
    assert.equal(listed.filter((each) => each.training_file === made.training_file).length, 1);
    assert.equal((await calls.pause(made.id, once())).status, "paused");
    assert(RUNNING.includes((await calls.resume(made.id, once())).status));
    await calls.cancel(made.id, once());
    assert.equal((await end(made.id)).status, "cancelled");
  },

  async own_job_ends() {
    job = await end(job.id);
    assert.equal(job.status, "succeeded", JSON.stringify(job.error));
    const events = await all(jobs.listEvents(job.id, { limit: 3 }));
    assert.equal(events.at(-1).message, `Created fine-tuning job: ${job.id}`);
    const result = await (await client.files.content(job.result_files[0])).text();
    assert(result.startsWith("step,train_loss,train_accuracy"));
    const mine = await all(jobs.list({ metadata: { suite: unique } }));
    assert.deepEqual(mine.map((each) => each.id), [job.id]);
    assert((await all(jobs.list({ limit: 2 }))).some((each) => each.id === job.id));
    await refused(OpenAI.BadRequestError, () => jobs.cancel(job.id));
    const taken = await until(
      () => hooks.taken.find(({ body }) => JSON.parse(body).data.id === job.id),
      "a webhook of the job",
    );
    await client.webhooks.unwrap(taken.body, taken.headers, endpoint.signing_secret);
    await client.webhooks.delete(endpoint.id);
  },

  async chat() {
    const model = job.fine_tuned_model;
    await ask(model);
    const request = { model, messages: [{ role: "user", content: "Hello" }], max_tokens: 2, stream: true };
    let chunks = 0;
    for await (const _ of await client.chat.completions.create(request)) chunks += 1;
    assert(chunks > 0);
    assert.equal((await client.completions.create({ model, prompt: "2 plus 2 is", max_tokens: 2 })).model, model);
    const found = await all(jobs.checkpoints.list(job.id, { limit: 1 }));
    assert.equal(found.length, 2);
    for (const each of found) await ask(each.fine_tuned_model_checkpoint);
    const from = await another("from", {}, client, found[0].fine_tuned_model_checkpoint);
    await jobs.cancel(from.id);
  },

  async models() {
    const listed = (await all(client.models.list())).map((each) => each.id);
    for (const id of [base, job.fine_tuned_model]) {
      assert(listed.includes(id));
      assert.equal((await client.models.retrieve(id)).id, id);
    }
    await refused(OpenAI.NotFoundError, () => client.models.retrieve("nobody/has-this"));
  },

  // another project may use a checkpoint while it is permitted
  async permissions() {
    const checkpoint = `${job.fine_tuned_model}:ckpt-step-3`;
    const project = `other-${unique}`;
    const body = { name: "other", project, rights: ["train", "serve"] };
    const key = await client.post(`${apiURL}/keys`, { body });
    const other = connect({ apiKey: key.secret });
    const { permissions } = checkpoints;
    await refused(OpenAI.NotFoundError, () => other.models.retrieve(checkpoint));
    await refused(OpenAI.PermissionDeniedError, () => other.fineTuning.checkpoints.permissions.list(checkpoint));
    const given = await all(permissions.create(checkpoint, { project_ids: [project, `${project}-2`, `${project}-3`] }));
    assert.equal(given.length, 3);
    assert.equal((await all(permissions.list(checkpoint, { limit: 2 }))).length, 3);
    await until(async () => (await all(other.models.list())).some((each) => each.id === checkpoint), "it is seen");
    await ask(checkpoint, other);
    for (const { id } of given)
      assert((await permissions.delete(id, { fine_tuned_model_checkpoint: checkpoint })).deleted);
    await client.delete(`${apiURL}/keys/${key.id}`);
  },

  async delete_model() {
    const model = job.fine_tuned_model;
    await refused(OpenAI.PermissionDeniedError, () => client.models.delete(base));
    assert((await client.models.delete(model)).deleted);
    await refused(OpenAI.NotFoundError, () => client.models.retrieve(model));
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  const began = Date.now();
  const say = (what) => console.log(`${name.padEnd(32)} ${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${what}`);
  try {
    await check();
    say("ok");
  } catch (error) {
    failed += 1;
    say(`FAILED\n${error.stack}`);
  }
}
hooks.close();
const { version } = JSON.parse(readFileSync(new URL("node_modules/openai/package.json", import.meta.url), "utf8"));
console.log(`openai ${version}, Node ${process.version}: ${Object.keys(checks).length} checks, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
