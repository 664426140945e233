// A request as a program: what the page does, in three languages, ready to be pasted.

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const pretty = (body) => JSON.stringify(body, null, 2);

const TONGUES = {
  curl: (base, token, body) =>
    [
      `curl ${shell(`${base}/v1/jobs`)}`,
      `-H ${shell(`Authorization: Bearer ${token}`)}`,
      `-H 'Content-Type: application/json'`,
      `-d ${shell(JSON.stringify(body))}`,
    ].join(" \\\n  "),

  javascript: (base, token, body) => `// In a page. In Node: save ${base}/client.js beside this, import "./client.js".
import { Safelight } from "${base}/client.js";

const safelight = new Safelight({ baseUrl: "${base}", token: "${token}" });
const submitted = await safelight.submit(${pretty(body)});
const job = await safelight.wait(submitted);
console.log(job.state, ...job.outputs.map(({ url }) => url));
`,

  python: (base, token, body) => `import json
from urllib.request import Request, urlopen

def call(path, body=None):
    headers = {"Authorization": "Bearer ${token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request("${base}" + path, data, headers)) as answer:
        return json.load(answer)

job = call("/v1/jobs", ${pretty(body)})
while not job["ended"]:
    job = call(f"/v1/jobs/{job['id']}?wait=25")
print(job["state"], *(output["url"] for output in job["outputs"]))
`,
};

/** Return a request as a program in a language. */
export const sample = (tongue, base, token, body) => TONGUES[tongue](base, token, body);
