// What a program does with client.js, one case a run: `node client.mjs CASE FACTS`.
//
// Whoever runs it is told by lines of JSON what is to happen to the way or the clock (`{"do": …}`), answers
// each with a line, and reads the result from the last. Node's own `fetch` is used, and a real server.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , name, json] = process.argv;
const facts = JSON.parse(json);
const { Safelight, SafelightProblem } = await import(pathToFileURL(facts.client).href);
const said = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const client = (more = {}) => new Safelight({ baseUrl: facts.url, token: facts.token, ...more });

async function ask(what) {
  console.log(JSON.stringify({ do: what }));
  await said.next();
}

const caught = (promise) => promise.then((value) => ({ value }), (error) => error);
const told = ({ name, code, status, detail, retryable, retryAfter, requestId, errors, rule }) =>
  ({ name, code, status, detail, retryable, retryAfter, requestId, errors, rule });

/** A `fetch` that notes what it is asked, as `GET /v1/jobs`. */
function noting(notes) {
  return (url, options) => {
    notes.push(`${options.method ?? "GET"} ${new URL(url).pathname.replace(/job_\w+/, "ID")}`);
    return fetch(url, options);
  };
}

const cases = {
  async submit_and_wait() {
    const notes = [];
    const safelight = client({ fetch: noting(notes) });
    const submitted = await safelight.submit({ prompt: "a lighthouse", quality: "low", metadata: { for: "ann" } });
    const versions = [];
    const job = await safelight.wait(submitted.id, { onUpdate: ({ version }) => versions.push(version) });
    const picture = new Uint8Array(await (await fetch(job.outputs[0].url)).arrayBuffer());
    const same = await safelight.wait(job);
    return { notes, versions, state: job.state, magic: [...picture.slice(0, 4)], same: same === job };
  },

  async all_calls() {
    const safelight = client();
    const job = await safelight.wait(await safelight.submit({ prompt: "one", quality: "low", metadata: { a: "b" } }));
    const second = await safelight.wait(await safelight.submit({ prompt: "two", quality: "low" }));
    const quote = await safelight.quote({ prompt: "three", count: 2 });
    const [models, account] = [await safelight.models(), await safelight.account()];
    const page = await safelight.list({ limit: 1 });
    const rest = await safelight.list({ limit: 1, cursor: page.next });
    const marked = await safelight.list({ metadata: { a: "b" }, state: ["succeeded", "failed"] });
    const canceled = await safelight.cancel(second.id);
    await safelight.delete(job);
    const gone = await caught(safelight.get(job.id));
    return {
      ids: [job.id, second.id], price: quote.price, models: models.map(({ id }) => id), subject: account.subject,
      page: page.data.map(({ id }) => id), rest: rest.data.map(({ id }) => id), last: rest.next,
      marked: marked.data.map(({ id }) => id), canceled: canceled.state, gone: told(gone),
    };
  },

  async problems() {
    const safelight = client({ retries: 0 });
    const [flawed, blocked] = [
      await caught(safelight.submit({ prompt: "a", quality: "best", count: 99, extra: true })),
      await caught(safelight.submit({ prompt: "a safelight-blocked thing" })),
    ];
    const nobody = await caught(client({ baseUrl: "http://127.0.0.1:1", retries: 1 }).models());
    const stranger = await caught(client({ token: null }).models());
    const odd = client({ fetch: async () => new Response("<html>", { status: 502, headers: { "retry-after": "7" } }) });
    const broken = client({ retries: 0, fetch: async () => new Response("{", { status: 200 }) });
    return {
      flawed: told(flawed), blocked: told(blocked), nobody: told(nobody), stranger: told(stranger),
      odd: told(await caught(odd.account())), broken: told(await caught(broken.account())),
      typed: [flawed, nobody].every((one) => one instanceof SafelightProblem && one instanceof Error),
    };
  },

  async same_key_same_job() {
    const notes = [];
    let lose = 1;
    const safelight = client({
      fetch: async (url, options) => {
        notes.push(options.headers["idempotency-key"]);
        const response = await fetch(url, options);
        if (lose-- > 0) throw new TypeError("the answer was lost");
        return response;
      },
    });
    const job = await safelight.submit({ prompt: "once", quality: "low" });
    const again = await safelight.submit({ prompt: "once", quality: "low" }, { idempotencyKey: notes[0] });
    const { data } = await client().list();
    return { keys: notes, same: job.id === again.id, jobs: data.length };
  },

  async refused_token_is_renewed() {
    let asked = 0;
    const token = async () => [facts.expired, facts.token][Math.min(asked++, 1)];
    const safelight = client({ token });
    const both = await Promise.all([safelight.models(), safelight.account(), safelight.list()]);
    const never = client({ token: () => ((asked += 10), facts.expired) });
    const refused = await caught(never.account());
    const fixed = await caught(client({ token: facts.expired }).account());
    return { asked, answers: both.length, refused: told(refused), fixed: told(fixed) };
  },

  async expired_in_mid_wait() {
    let asked = 0;
    const safelight = client({ token: async () => ((asked += 1), asked === 1 ? facts.brief : facts.later) });
    const submitted = await safelight.submit({ prompt: "[hold]", quality: "low" });
    const waiting = safelight.wait(submitted, {
      onUpdate: ({ state }) => state === "running" && ask("expire").then(() => ask("release")),
    });
    return { state: (await waiting).state, asked };
  },

  async aborted() {
    const safelight = client();
    const submitted = await safelight.submit({ prompt: "[hold]", quality: "low" });
    const results = {};
    const early = AbortSignal.abort(new Error("early"));
    results.early = (await caught(safelight.get(submitted.id, { signal: early }))).message;
    const stop = new AbortController();
    const waiting = caught(safelight.wait(submitted, { signal: stop.signal, onUpdate: () => stop.abort() }));
    if (submitted.state === "running") stop.abort();
    results.wait = (await waiting).name;
    const polled = new AbortController();
    const noStream = client({ fetch: (url, options) => (url.includes("/events") ? none() : fetch(url, options)) });
    setTimeout(() => polled.abort(), 300);
    results.poll = (await caught(noStream.wait(submitted.id, { signal: polled.signal }))).name;
    const followed = new AbortController();
    results.events = (await caught((async () => {
      for await (const job of safelight.events({ signal: followed.signal })) followed.abort(new Error(job.id));
    })())).message === submitted.id;
    for await (const job of safelight.events()) { results.left = job.id === submitted.id; break; }
    results.still = (await safelight.get(submitted.id)).ended;
    await safelight.cancel(submitted.id);
    results.end = (await safelight.wait(submitted.id)).state;
    return results;
  },

  async dropped_stream_is_resumed() {
    const notes = [];
    const safelight = client({ fetch: noting(notes) });
    const submitted = await safelight.submit({ prompt: "[hold]", quality: "low" });
    const states = [];
    const job = await safelight.wait(submitted, {
      onUpdate: ({ state }) => {
        states.push(state);
        if (state === "running") ask("cut").then(() => ask("release"));
      },
    });
    return { state: job.state, states, notes };
  },

  async falls_back_to_polling() {
    const notes = [];
    const hurried = globalThis.setTimeout;
    globalThis.setTimeout = (then, delay, ...more) => hurried(then, more.length ? delay : delay / facts.hurry, ...more);
    const safelight = client({ fetch: noting(notes) });
    const submitted = await safelight.submit({ prompt: "a lighthouse", quality: "low" });
    const job = await safelight.wait(submitted.id);
    return { state: job.state, notes };
  },

  async one_stream_for_many() {
    const notes = [];
    const safelight = client({ fetch: noting(notes) });
    const stop = new AbortController();
    const ends = new Map();
    let opened = 0;
    const following = caught((async () => {
      const onOpen = async () => {
        if ((opened += 1) > 1) return ask("release");
        for (let n = 0; n < 5; n += 1) await safelight.submit({ prompt: `[hold] ${n}`, quality: "low" });
        await ask("cut");
      };
      for await (const job of safelight.events({ signal: stop.signal, onOpen })) {
        if (job.ended) ends.set(job.id, job.state);
        if (ends.size === 5) stop.abort();
      }
    })());
    return { end: (await following).name, states: [...ends.values()], opened, notes };
  },

  async limits_are_waited_for() {
    const waits = [];
    const hurried = globalThis.setTimeout;
    globalThis.setTimeout = (then, delay) => (waits.push(delay), hurried(then, 0)); // no socket is open here
    let left = 2;
    const busy = (status) => () =>
      Promise.resolve(left-- > 0
        ? Response.json({ code: "rate_limited", retry_after: 3 }, { status })
        : Response.json({ data: ["all"] }));
    const models = await client({ fetch: busy(429) }).models();
    left = 1;
    const account = await client({ fetch: busy(503) }).account();
    left = 9;
    const [long, tired, unsafe] = [
      await caught(client({ fetch: busy(429), patience: 2 }).models()),
      await caught(client({ fetch: busy(429), retries: 1 }).models()),
      await caught(client({ fetch: busy(503) }).cancel("job_x")),
    ];
    return { waits, models, account, left, codes: [long, tired, unsafe].map(({ code, retryAfter }) => [code, retryAfter]) };
  },

  async upload_and_edit() {
    const safelight = client();
    const picture = new Blob([Buffer.from(facts.picture, "base64")], { type: "image/png" });
    const { id } = await safelight.upload(picture, { filename: "harbor.png" });
    const job = await safelight.wait(await safelight.submit({
      prompt: "the same at night", operation: "edit", quality: "low", inputs: [{ upload: id }],
    }));
    const wrong = await caught(safelight.upload(new Blob(["GIF89a"], { type: "image/gif" })));
    return { state: job.state, error: job.error, inputs: job.inputs, id, wrong: told(wrong) };
  },
};

const none = async () => new Response("", { status: 501 });
console.log(JSON.stringify({ result: await cases[name]() }));
process.exit(0);
