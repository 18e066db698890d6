// What the checks share: the client, its addresses, and small helpers.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import OpenAI, { toFile } from "openai";

const string = { type: "string" };
const { values } = parseArgs({
  options: { "base-url": string, "api-key": string, "api-url": string, "lossy-url": string, base: string },
});
export const apiURL = values["api-url"];
export const lossyURL = values["lossy-url"];
export const base = values.base; // the id of the base, which holds a slash: it is %2F in paths
export const unique = randomBytes(4).toString("hex"); // of this run, so that its data are nobody else's

// this client sends the adminAPIKey where OpenAI asks for one: with the permissions of checkpoints
export function connect({ apiKey = values["api-key"], ...options } = {}) {
  return new OpenAI({ baseURL: values["base-url"], apiKey, adminAPIKey: apiKey, ...options });
}
export const client = connect();

// a training file of `count` chats, different for each `salt`
export const rows = (count, salt) =>
  Array.from({ length: count }, (_, n) =>
    JSON.stringify({
      messages: [
        { role: "user", content: `${unique} ${salt}: what is ${n} plus ${n}?` },
        { role: "assistant", content: `It is ${n + n}.` },
      ],
    }) + "\n",
  ).join("");

export const jsonl = (text, name) => toFile(Buffer.from(text), name);

export const upload = async (text, name = "t.jsonl") =>
  client.files.create({ file: await jsonl(text, name), purpose: "fine-tune" });

// every item of a list, page by page to the end, each of them once
export async function all(page) {
  const found = [];
  for await (const item of page) found.push(item);
  const ids = found.map((item) => item.id);
  assert.equal(new Set(ids).size, ids.length, ids.join());
  return found;
}

// the error of this class, with a message, that `call` must raise
export async function refused(kind, call) {
  try {
    await call();
  } catch (error) {
    assert(error instanceof kind, error.stack);
    assert(error.error?.message, JSON.stringify(error.error));
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

// what `condition` gives, once that is true
export async function until(condition, what, seconds = 60) {
  for (const deadline = Date.now() + seconds * 1000; ; ) {
    const found = await condition();
    if (found) return found;
    assert(Date.now() < deadline, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

// an HTTP server that keeps what it is sent
export async function receiver() {
  const taken = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    taken.push({ headers: request.headers, body });
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { taken, url: `http://127.0.0.1:${server.address().port}/hook`, close: () => server.close() };
}
