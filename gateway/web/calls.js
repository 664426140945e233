// What the page asks of the API. No element of the page is known here.
//
// The token comes from /dev/token and is fetched anew when the API no longer takes it. A job is followed
// by its event stream, read with fetch because a stream needs the token in a header and never in a URL;
// where a stream cannot be had, the same is asked by `?wait=`.

const BASE = new URL(".", document.baseURI);
const STREAMS = 3; // that may end without news before waiting takes over
const FAILURES = 6; // in a row, before following is given up
let token = null;

/** An answer that is a problem (RFC 9457), or none at all (code `unreachable`). */
export class Problem extends Error {
  constructor(body) {
    super(body.detail || body.title || "The server gave no reason.");
    this.code = body.code || "unknown";
    this.rule = body.rule;
    this.retryAfter = body.retry_after;
    this.errors = body.errors || [];
  }
}

/** The address of an API path, wherever the page is mounted. */
export const address = (path) => new URL(path, BASE).href;

/** A link of the API as one of this page's own origin, which may be another name of the same host. */
export function local(link) {
  const url = new URL(link, BASE);
  return url.pathname + url.search;
}

/** The token, fetched when there is none. */
export async function bearer() {
  token ??= (await read(await reach("dev/token", { cache: "no-store" }))).token;
  return token;
}

async function reach(path, options) {
  try {
    return await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "unreachable", detail: "The server does not answer. Is it still running?" });
  }
}

async function read(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(body);
  return body;
}

/** Ask with the token, and once more with a fresh one where it was refused. */
async function ask(path, options = {}) {
  const send = async () => {
    const headers = { ...options.headers, authorization: `Bearer ${await bearer()}` };
    return reach(path, { ...options, headers, cache: "no-store" });
  };
  const first = await send();
  if (first.status !== 401) return first;
  token = null;
  return send();
}

const post = (path, body, headers = {}) =>
  ask(path, {
    method: "POST",
    headers: body ? { "content-type": "application/json", ...headers } : headers,
    body: body && JSON.stringify(body),
  });

export const models = async () => (await read(await ask("v1/models"))).data;
export const account = async () => read(await ask("v1/account"));
export const recent = async (limit) => (await read(await ask(`v1/jobs?limit=${limit}`))).data;
export const quote = async (body) => read(await post("v1/quote", body));
export const job = async (id) => read(await ask(`v1/jobs/${id}`));
export const cancel = async (id) => read(await post(`v1/jobs/${id}/cancel`));

/** Submit a job. The key makes a second try safe, so an answer that got lost is asked for again. */
export async function submit(body) {
  const headers = { "idempotency-key": crypto.randomUUID() };
  try {
    return await read(await post("v1/jobs", body, headers));
  } catch (problem) {
    if (problem.code !== "unreachable") throw problem;
    return read(await post("v1/jobs", body, headers));
  }
}

/** Yield the job whenever it changed, until it ended. Streams that bring nothing give way to waiting. */
export async function* follow(job) {
  let streams = STREAMS;
  let failed = 0;
  while (!job.ended) {
    const before = job.version;
    try {
      for await (const news of streams > 0 ? stream(job) : wait(job)) yield (job = news);
      failed = 0;
    } catch (problem) {
      if (problem.code === "not_found" || ++failed > FAILURES) throw problem;
      await pause((problem.retryAfter ?? failed) * 1000);
    }
    if (job.version === before) streams -= 1;
  }
}

async function* wait(job) {
  const news = await read(await ask(`v1/jobs/${job.id}?wait=25&after=${job.version}`));
  if (news.version === job.version) await pause(1000); // a server that stops holds no read
  yield news;
}

async function* stream(job) {
  const headers = { accept: "text/event-stream", "last-event-id": String(job.version) };
  const stop = new AbortController();
  const response = await ask(`v1/jobs/${job.id}/events`, { headers, signal: stop.signal });
  if (!response.ok) await read(response);
  try {
    for await (const event of events(response.body)) {
      if (event.event === "job") yield JSON.parse(event.data);
    }
  } finally {
    stop.abort();
  }
  await pause(200); // the server ends streams when it stops; do not knock at once
}

/** Read server-sent events off a body of bytes. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const blocks = (text + value).split(/\r?\n\r?\n/);
    text = blocks.pop();
    yield* blocks.map(parse);
  }
}

function parse(block) {
  const event = { event: "message", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*): ?(.*)$/.exec(line) ?? [null, line, ""];
    if (name === "data") event.data += (event.data && "\n") + value;
    else if (name) event[name] = value;
  }
  return event;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
