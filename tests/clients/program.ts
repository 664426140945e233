/* A program over the types that openapi-typescript makes: submit, wait, say the picture's size and bytes. */
import createClient from "openapi-fetch";

import type { components, paths } from "./api.js";

declare const process: { argv: string[]; exitCode: number };

const [baseUrl = "", token = ""] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${token}` } });

async function made(request: components["schemas"]["JobRequest"]): Promise<components["schemas"]["JobView"]> {
  const { data: job, error } = await client.POST("/v1/jobs", {
    body: request,
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
  });
  if (error) throw new Error(error.code);
  let found = job;
  while (!found.ended) {
    const { data, error: trouble } = await client.GET("/v1/jobs/{job_id}", {
      params: { path: { job_id: found.id }, query: { wait: 20 } },
    });
    if (trouble) throw new Error(trouble.code);
    found = data;
  }
  return found;
}

const job = await made({ prompt: "a lighthouse at dusk", size: "1536x1024", quality: "low" });
const [output] = job.outputs;
if (!output) throw new Error(job.error?.code ?? job.state);
const bytes = await (await fetch(output.url)).arrayBuffer();
console.log(`${job.id} ${output.width}x${output.height} ${bytes.byteLength}`);

const refused = await client.POST("/v1/jobs", { body: { prompt: "a thing", count: 99 } });
console.log(refused.error?.code);
