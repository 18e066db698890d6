// A headless Chrome that opens pages from files and uses them. Reads requests from standard input, a JSON object a line:
//   {"file", "width", "scheme": "light" or "dark", "steps": [[what, role, name, value], …], "looks": [name, …], "picture",
//   "headers": those of a server that sends the file; none: it is opened from the disk}
// and writes an answer for each: {"troubles": […], "seen": [the state before the steps, and after each], "looks": {…}}.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";
import * as inPage from "./looks.mjs";

const HEIGHT = 900;
// root has no sandbox for Chrome. The pages are our own, and requests are refused.
const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"];
const browser = await puppeteer.launch({ executablePath: await chromium.executablePath(), headless: "shell", args });

async function watched(address, served) {
  const page = await browser.newPage();
  const troubles = [];
  page.on("console", (said) => ["error", "warn"].includes(said.type()) && troubles.push(`console: ${said.text()}`));
  page.on("pageerror", (error) => troubles.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    troubles.push(`dialog: ${dialog.message()}`);
    return dialog.dismiss();
  });
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    if (request.url() === address) return served ? request.respond(served) : request.continue();
    if (request.url().startsWith("data:")) return request.continue();
    troubles.push(`request: ${request.url()}`);
    return request.abort();
  });
  await page.evaluateOnNewDocument(inPage.watchPolicy);
  return { page, troubles };
}

// by role and name, as a screen reader finds it
async function control(page, role, name) {
  const found = await page.$$(`::-p-aria([name="${name}"][role="${role}"])`);
  if (found.length !== 1) throw new Error(`${found.length} controls are ${role} "${name}"`);
  return found[0];
}

const steps = {
  click: async (page, role, name) => (await control(page, role, name)).click(),
  press: async (page, role, name, key) => (await control(page, role, name)).press(key),
  type: async (page, role, name, text) => {
    const field = await control(page, role, name);
    await field.click({ count: 3 });
    await (text ? field.type(text) : field.press("Backspace"));
  },
  choose: async (page, role, name, label) => {
    const field = await control(page, role, name);
    const value = await field.evaluate((node, text) => [...node.options].find((each) => each.text === text).value, label);
    await field.select(value);
  },
};

async function unnamed(page) {
  const roles = ["button", "link", "combobox", "searchbox", "textbox", "checkbox", "image", "img", "DisclosureTriangle", "region"];
  const found = [];
  const walk = (node) => {
    if (roles.includes(node.role) && !node.name?.trim()) found.push(node.role);
    (node.children ?? []).forEach(walk);
  };
  walk(await page.accessibility.snapshot({ interestingOnly: false }));
  return found;
}

// presses Tab until the focus leaves the page: what was not reached, and where one does not see the focus
async function keyboard(page) {
  const controls = await page.evaluate(inPage.markControls);
  for (let pressed = 0; pressed <= controls + 50; pressed += 1) {
    await page.keyboard.press("Tab");
    if (!(await page.evaluate(inPage.markFocus))) break;
  }
  return page.evaluate(inPage.notReached);
}

async function opened({ file, width, scheme, steps: wanted, looks, picture, headers }) {
  const served = headers && { body: readFileSync(file), contentType: "text/html; charset=utf-8", headers };
  const address = served ? "http://reports.test/report" : pathToFileURL(file).href;
  const { page, troubles } = await watched(address, served);
  try {
    await page.setViewport({ width, height: HEIGHT });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.goto(address, { waitUntil: "load" });
    const seen = [await page.evaluate(inPage.state)];
    for (const [what, role, name, value] of wanted) {
      await steps[what](page, role, name, value);
      seen.push(await page.evaluate(inPage.state));
    }
    const found = {};
    for (const look of looks) {
      if (look === "unnamed") found[look] = await unnamed(page);
      else if (look === "keyboard") found[look] = await keyboard(page);
      else found[look] = await page.evaluate(inPage[look]);
    }
    if (picture) await page.screenshot({ path: picture, fullPage: true });
    troubles.push(...(await page.evaluate(() => window.refusedByPolicy)));
    return { troubles, seen, looks: found };
  } finally {
    await page.close();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await opened(JSON.parse(line)).catch((error) => ({ error: error.stack }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
