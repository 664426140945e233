// A program as its types are meant: what is right compiles, and each wrong line is known to be wrong.

import {
  Safelight,
  SafelightProblem,
  type Account,
  type Job,
  type JobRequest,
  type Model,
  type Quote,
} from "../../gateway/web/client.js";

const safelight = new Safelight({ baseUrl: new URL("https://images.example.com"), token: async () => "token" });
new Safelight();
new Safelight({ token: "fixed", retries: 0, patience: 5, fetch });

export async function run(signal: AbortSignal): Promise<string[]> {
  const request: JobRequest = { prompt: "a lighthouse", quality: "high", format: "a later one", metadata: { a: "b" } };
  const quote: Quote = await safelight.quote(request, { signal });
  if (!quote.allowed) return [quote.detail ?? ""];
  const submitted: Job = await safelight.submit(request, { idempotencyKey: "k", signal });
  const job = await safelight.wait(submitted, { signal, onUpdate: (news) => news.queue?.position });
  for await (const news of safelight.events({ jobs: [job, "job_x"], onOpen: () => {}, signal })) {
    if (news.state === "succeeded" && news.ended) break;
  }
  const page = await safelight.list({ state: ["queued", "running"], limit: 5, cursor: null, metadata: { a: "b" } });
  const upload = await safelight.upload(new Blob([]), { filename: "a.png" });
  await safelight.submit({ prompt: "b", operation: "edit", inputs: [{ upload: upload.id }], mask: { upload: upload.id } });
  const models: Model[] = await safelight.models();
  const account: Account = await safelight.account({ signal });
  await safelight.cancel(job.id);
  await safelight.delete(job);
  return [models[0]?.limits.inputs.toFixed() ?? "", account.plan ?? "", page.next ?? "", job.outputs[0]?.url ?? ""];
}

export function read(error: unknown): number | null {
  if (!(error instanceof SafelightProblem)) throw error;
  const words: string = error.code + error.detail + (error.requestId ?? "") + error.errors[0]?.pointer;
  return words && error.retryable ? error.retryAfter : error.status;
}

// @ts-expect-error - a prompt is required
void safelight.submit({ quality: "low" });
// @ts-expect-error - a misspelled field is found
void safelight.submit({ prompt: "a", qualty: "low" });
// @ts-expect-error - a count is a number
void safelight.submit({ prompt: "a", count: "2" });
// @ts-expect-error - an output has no such field
void safelight.wait("job_x").then((job) => job.outputs[0]?.href);
// @ts-expect-error - a token is a text, or asked for
new Safelight({ token: 7 });
// @ts-expect-error - what a problem says is not changed
void ((problem: SafelightProblem) => (problem.code = "x"));
