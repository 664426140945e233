const create = await fetch("https://gptimage2.ai/api/generate", {
  method: "POST",
  headers: {
    Authorization: `Bearer ${process.env.GPTIMAGE2_API_KEY}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify({
    mode: "text-to-image",
    prompt: "An editorial product photo of a matte black camera on red lacquer",
    ratio: "1:1",
    count: 1,
  }),
});
const job = await create.json();
if (!create.ok) throw new Error(job.error ?? `HTTP ${create.status}`);
let result = job;
while (result.status === "pending" || result.status === "running") {
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const poll = await fetch(`https://gptimage2.ai/api/generate/${job.jobId}`, {
    headers: { Authorization: `Bearer ${process.env.GPTIMAGE2_API_KEY}` },
  });
  result = await poll.json();
}
console.log(result.results?.[0]?.imageUrl ?? result.error);
