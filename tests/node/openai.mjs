// What a program does with OpenAI's own npm package, one case a run: `node openai.mjs CASE FACTS`.
//
// The package is the one tests/node pins; it finds the house by its base URL and key, and nothing else. A case
// that needs something done says so in a line of JSON (`{"do": …}`) and waits for a line; the last is the result.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , name, json] = process.argv;
const facts = JSON.parse(json);
const { default: OpenAI, toFile } = await import(pathToFileURL(facts.package).href);
const said = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const client = (more = {}) => new OpenAI({ baseURL: `${facts.url}/v1`, apiKey: facts.token, maxRetries: 0, ...more });

async function ask(what) {
  console.log(JSON.stringify({ do: what }));
  await said.next();
}

const hashes = ({ data }) => data.map(({ b64_json }) => createHash("sha256").update(b64_json, "base64").digest("hex"));
const file = (text, at) => toFile(Buffer.from(text, "base64"), `${at}.png`, { type: "image/png" });
const told = (promise) => promise.then(
  () => null,
  (error) => ({ kind: error.constructor.name, status: error.status, code: error.code, param: error.param }),
);

const cases = {
  async generate() {
    const made = await client().images.generate({ model: "gpt-image-2", prompt: "a lighthouse", n: 2, quality: "low" });
    const models = [];
    for await (const model of client().models.list()) models.push(model.id);
    const { id } = await client().models.retrieve("quick");
    return { hashes: hashes(made), size: made.size, quality: made.quality, models, id };
  },

  async edit() {
    const [first, second] = await Promise.all(facts.images.map(file));
    const mask = await file(facts.mask, "mask");
    const one = await client().images.edit({ image: first, mask, prompt: "one" });
    const both = await client().images.edit({ image: [first, second], prompt: "both" });
    return { one: hashes(one), both: hashes(both) };
  },

  async errors() {
    const { images } = client();
    return {
      blocked: await told(images.generate({ prompt: "a safelight-blocked thing" })),
      option: await told(images.generate({ prompt: "a hat", size: "256x256" })),
      model: await told(images.generate({ prompt: "a hat", model: "gpt-5" })),
      key: await told(client({ apiKey: "sk-nobody" }).images.generate({ prompt: "a hat" })),
      limit: await told(images.generate({ prompt: "a hat" }).then(() => images.generate({ prompt: "two" }))),
    };
  },

  async impatient() {
    let sends = 0;
    const counting = async (url, options) => {
      sends += 1;
      if (sends === 2) await ask("release");
      return fetch(url, options);
    };
    const made = await client({ maxRetries: undefined, timeout: 900, fetch: counting }).images.generate({ prompt: "[hold]" });
    return { sends, hashes: hashes(made) };
  },
};

console.log(JSON.stringify({ result: await cases[name]() }));
process.exit(0);
