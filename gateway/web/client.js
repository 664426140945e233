// Safelight for browsers and Node 20: submit a job, wait for it, show the picture. No dependency.
//
//   import { Safelight } from "https://images.example.com/client.js";
//   const safelight = new Safelight({ token: async () => (await fetch("/my-token")).text() });
//   const job = await safelight.wait(await safelight.submit({ prompt: "a lighthouse at dusk" }));
//
// What each call takes and gives is said in client.d.ts. Streams are read with fetch, since a token belongs
// into a header. Asked again is only what may be asked twice: reads, and a submit, which carries a key.

const HELD = 25; // seconds the server is asked to hold an answer
const FIRST_WORD = 8_000; // ms: a stream that has not said a word by then is held up on its way
const SILENCE = 40_000; // ms without a heartbeat (one is due every 15 s): the connection is dead
const FRUITLESS = 2; // streams without news, before long-polling takes over
const FAILURES = 6; // in a row, before following is given up

/** Every way a call can fail, but an abort, which rejects with the signal's reason. */
export class SafelightProblem extends Error {
  constructor({ code = "unknown", status = 0, title = "", detail = "", ...rest } = {}) {
    super(detail || title || `The server answered ${status} and gave no reason.`);
    Object.assign(this, { name: "SafelightProblem", code, status, title, detail: this.message, rule: rest.rule });
    this.retryable = rest.retryable ?? (status === 429 || status >= 500);
    this.retryAfter = rest.retry_after ?? null;
    this.requestId = rest.request_id ?? null;
    this.errors = rest.errors ?? [];
  }
}

export class Safelight {
  #base;
  #ask; // a callback for tokens, or null
  #token;
  #asking = null;
  #fetch;
  #retries;
  #patience;

  constructor({ baseUrl, token = null, retries = 2, patience = 30, fetch: via } = {}) {
    this.#base = new URL(`${baseUrl ?? new URL(".", import.meta.url)}`.replace(/\/*$/, "/"));
    this.#ask = typeof token === "function" ? token : null;
    this.#token = this.#ask ? null : token;
    this.#fetch = via ?? ((...all) => fetch(...all));
    this.#retries = retries;
    this.#patience = patience;
  }

  submit(request, { idempotencyKey = newKey(), signal } = {}) {
    const headers = { "idempotency-key": idempotencyKey };
    return this.#json("v1/jobs", { method: "POST", json: request, headers, signal, safe: true });
  }

  get(id, { signal } = {}) {
    return this.#json(`v1/jobs/${name(id)}`, { signal });
  }

  quote(request, { signal } = {}) {
    return this.#json("v1/quote", { method: "POST", json: request, signal });
  }

  cancel(id, { signal } = {}) {
    return this.#json(`v1/jobs/${name(id)}/cancel`, { method: "POST", signal });
  }

  async delete(id, { signal } = {}) {
    await this.#json(`v1/jobs/${name(id)}`, { method: "DELETE", signal });
  }

  list({ signal, metadata = {}, ...filters } = {}) {
    const pairs = Object.entries(filters).flatMap(([key, value]) => [value ?? []].flat().map((one) => [key, one]));
    pairs.push(...Object.entries(metadata).map(([key, value]) => [`metadata.${key}`, value]));
    const query = `${new URLSearchParams(pairs)}`;
    return this.#json(query ? `v1/jobs?${query}` : "v1/jobs", { signal });
  }

  async models({ signal } = {}) {
    return (await this.#json("v1/models", { signal })).data;
  }

  account({ signal } = {}) {
    return this.#json("v1/account", { signal });
  }

  async upload(file, { filename = file.name ?? "picture", signal } = {}) {
    const json = { filename, content_type: file.type, size: file.size };
    const place = await this.#json("v1/uploads", { method: "POST", json, signal });
    const { method = "PUT", headers } = place;
    const put = await this.#reach(place.url, { method, headers, body: file, signal });
    if (!put.ok) throw await refusal(put);
    await put.body?.cancel();
    return place;
  }

  /** Resumes dropped streams; where none can be had, the job is long-polled. */
  async wait(id, { signal, onUpdate } = {}) {
    let job = typeof id === "object" && id.version !== undefined ? id : null;
    const path = `v1/jobs/${name(id)}`;
    let streams = FRUITLESS;
    let failed = 0;
    while (!job?.ended) {
      const before = job?.version;
      try {
        for await (const { data } of this.#news(path, before, streams > 0, signal)) {
          if (data.version < before) continue;
          if (data.version !== job?.version) onUpdate?.(data);
          job = data;
        }
        failed = 0;
      } catch (problem) {
        if (streams > 0 && problem.status > 404) streams = 0; // none to be had: too many, or none on this way
        else failed = await this.#bear(problem, failed, signal);
      }
      if (job?.version === before) streams -= 1;
    }
    return job;
  }

  async *events({ jobs, lastEventId, onOpen, signal } = {}) {
    const path = jobs ? `v1/events?jobs=${jobs.map(name)}` : "v1/events";
    let failed = 0;
    for (;;) {
      try {
        for await (const event of this.#stream(path, lastEventId, signal, onOpen)) {
          failed = 0;
          lastEventId = event.id;
          yield event.data;
        }
      } catch (problem) {
        failed = await this.#bear(problem, failed, signal);
      }
    }
  }

  /** Pause after a failure that may pass, and return how many there were; throw one that will not. */
  async #bear(problem, failed, signal) {
    const later = problem.retryAfter ?? 0.5 * 2 ** failed;
    const passes = problem instanceof SafelightProblem && problem.retryable && (problem.retryAfter ?? 0) <= this.#patience;
    if (!passes || failed + 1 >= FAILURES) throw problem;
    await pause(1000 * later, signal);
    return failed + 1;
  }

  async *#news(path, version, streaming, signal) {
    if (streaming) return yield* this.#stream(`${path}/events`, version, signal);
    const held = version === undefined ? "" : `?wait=${HELD}&after=${version}`;
    const data = await this.#json(path + held, { signal });
    yield { data };
    if (data.version === version) await pause(1000, signal); // a server that stops holds no read
  }

  async *#stream(path, lastEventId, signal, onOpen) {
    signal?.throwIfAborted();
    const stop = new AbortController();
    const leave = () => stop.abort();
    signal?.addEventListener("abort", leave);
    const begun = Date.now();
    let timer = setTimeout(() => stop.abort(), FIRST_WORD);
    const heard = () => (clearTimeout(timer), (timer = setTimeout(() => stop.abort(), SILENCE)));
    const headers = { accept: "text/event-stream" };
    if (lastEventId !== undefined) headers["last-event-id"] = `${lastEventId}`;
    try {
      const response = await this.#known(path, { headers, signal: stop.signal, cache: "no-store" });
      if (!/^text\/event-stream/.test(response.headers.get("content-type") ?? "")) return;
      onOpen?.();
      for await (const event of parsed(response.body, heard)) {
        if (event.event === "job") yield { id: event.id, data: JSON.parse(event.data) };
      }
      signal?.throwIfAborted();
    } catch (problem) {
      signal?.throwIfAborted();
      if (!stop.signal.aborted) throw problem; // else it was silent for too long
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", leave);
      stop.abort();
    }
    await pause(Date.now() - begun < 5_000 ? 1000 : 250, signal); // do not knock at once where it ends early
  }

  /** Return what a good answer holds, or throw; a safe call is repeated where that may help. */
  async #json(path, { json, safe, ...options }) {
    options.headers = { accept: "application/json", ...options.headers };
    if (json !== undefined) options.headers["content-type"] = "application/json";
    if (json !== undefined) options.body = JSON.stringify(json);
    const again = safe ?? (options.method ?? "GET") === "GET";
    for (let tried = 0; ; tried += 1) {
      try {
        const response = await this.#known(path, { ...options, cache: "no-store" });
        return response.status === 204 ? null : await response.json().catch((error) => lost(error, options.signal));
      } catch (problem) {
        const wait = problem.retryAfter ?? 0.25 * 2 ** tried;
        const passes = [0, 429, 503].includes(problem.status) && wait <= this.#patience;
        if (!again || !passes || tried >= this.#retries) throw problem;
        await pause(1000 * wait, options.signal);
      }
    }
  }

  /** Ask with the token, and once more with a fresh one where it is refused. */
  async #known(path, options) {
    for (let fresh = !this.#ask; ; fresh = true) {
      const token = await this.#bearer();
      const headers = token ? { ...options.headers, authorization: `Bearer ${token}` } : options.headers;
      const response = await this.#reach(new URL(path, this.#base), { ...options, headers });
      if (response.ok) return response;
      if (response.status === 401 && this.#token === token && this.#ask) this.#token = null;
      if (response.status !== 401 || fresh) throw await refusal(response);
      await response.body?.cancel();
    }
  }

  /** Return the token; whoever needs one while it is being asked for shares the answer. */
  async #bearer() {
    if (this.#token || !this.#ask) return this.#token;
    this.#asking ??= Promise.resolve(this.#ask()).finally(() => (this.#asking = null));
    return (this.#token = await this.#asking);
  }

  #reach(url, options) {
    return this.#fetch(`${url}`, options).catch((error) => lost(error, options.signal));
  }
}

/** Read the problem an answer holds, or make one of an answer that holds none. */
async function refusal(response) {
  const given = { status: response.status, request_id: response.headers.get("x-request-id") };
  const later = response.headers.get("retry-after") ?? "";
  if (/^\d+$/.test(later)) given.retry_after = Number(later);
  const body = await response.json().catch(() => null); // a proxy's page, an object store's XML
  return new SafelightProblem({ ...given, ...body, status: response.status });
}

/** Throw what became of a call that got no whole answer. */
function lost(cause, signal) {
  signal?.throwIfAborted();
  const fields = { code: "unreachable", detail: "The server does not answer.", retryable: true };
  throw Object.assign(new SafelightProblem(fields), { cause });
}

/** Read server-sent events off a body of bytes (WHATWG HTML, 9.2.6). */
async function* parsed(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true })); // cut off
    if (done) return;
    heard();
    const blocks = (text + value).split(/\r?\n\r?\n/);
    text = blocks.pop();
    yield* blocks.map(event);
  }
}

function event(block) {
  const event = { event: "message", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, key, value] = /^([^:]*): ?(.*)$/.exec(line) ?? [null, line, ""];
    if (key === "data") event.data += (event.data && "\n") + value;
    else if (key) event[key] = value;
  }
  return event;
}

const name = (job) => encodeURIComponent(typeof job === "object" ? job.id : job);

function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID(); // browsers have it on https and localhost only
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => (256 + byte).toString(16).slice(1)).join("");
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const leave = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", leave), resolve()), milliseconds);
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { once: true });
  });
}
