// The tray: every job as a card, newest first, and earlier pictures small below.
//
// A card shows what it was told last. News comes from submits, from the one stream and from lists, in any
// order: what is older than what is shown says nothing.

import { client, local } from "./session.js";
import { STATES, capital, credits, kilobytes, plain, reason, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);
const cards = new Map(); // job id -> {job, card, clock}
const past = new Map(); // job id -> its row among the earlier ones
const LARGE = 3; // ended jobs that are shown large on arrival
let acts = {};
let cursor = null;

/** Begin. `acts` is what a card's buttons do: `reuse(job)`, `edit(job, output)`, `failed(problem)`, `ended()`. */
export function begin(given) {
  acts = given;
  $("older").addEventListener("click", older);
}

/** Show a job as it is now. One not seen before gets a card. */
export function take(job) {
  const entry = cards.get(job.id);
  if (!entry) return lay(job);
  if (job.version < entry.job.version) return entry.card;
  const ends = job.ended && !entry.job.ended;
  entry.job = job;
  show(entry);
  if (ends) acts.ended();
  return entry.card;
}

/** Show the newest jobs: open ones and a few more large, the others small. */
export async function fill() {
  const { data, next } = await client.list({ limit: 20 });
  let large = LARGE - cards.size;
  for (const job of data) {
    if (cards.has(job.id) || !job.ended || (!past.has(job.id) && large-- > 0)) take(job);
    else remember(job);
  }
  if (cursor === null) page(next);
  $("empty").hidden = cards.size + past.size > 0;
}

async function older() {
  $("older").disabled = true;
  try {
    const { data, next } = await client.list({ limit: 40, cursor });
    for (const job of data) if (!cards.has(job.id)) remember(job);
    page(next);
  } catch (problem) {
    acts.failed(problem);
  }
  $("older").disabled = false;
}

function page(next) {
  cursor = next;
  $("older").hidden = next === null;
  $("earlier").hidden = past.size === 0 && next === null;
}

/** Put a job among the earlier ones: its picture small, or a word in its place. */
function remember(job) {
  if (past.has(job.id)) return;
  const row = $("past").content.firstElementChild.cloneNode(true);
  const [button, picture, word] = [row.firstElementChild, row.querySelector("img"), row.querySelector("span")];
  const [first] = job.outputs;
  const state = STATES[job.state] ?? job.state;
  button.setAttribute("aria-label", `${first ? "Show" : state}: ${job.prompt.slice(0, 200)}`);
  button.title = job.prompt.slice(0, 200);
  if (first) picture.src = local(first.variants.thumb ?? first.url);
  picture.hidden = !first;
  word.textContent = first ? "" : state;
  button.onclick = async () => {
    const now = await client.get(job).catch((problem) => acts.failed(problem));
    if (now) bring(now);
  };
  past.set(job.id, row);
  place($("history"), row, job.id);
  $("earlier").hidden = false;
}

/** Show an earlier job large. */
function bring(job) {
  const card = take(job);
  card.scrollIntoView({ block: "nearest" });
  card.querySelector(".reuse").focus({ preventScroll: true });
}

function forget(id) {
  past.get(id)?.remove();
  if (past.delete(id) && !past.size && cursor === null) $("earlier").hidden = true;
}

/** Put a row where its job belongs: ids of jobs sort by time. */
function place(list, row, id) {
  row.dataset.id = id;
  list.insertBefore(row, [...list.children].find((other) => other.dataset.id < id) ?? null);
}

function lay(job) {
  const card = $("job").content.firstElementChild.cloneNode(true);
  const entry = { job, card, clock: 0 };
  cards.set(job.id, entry);
  forget(job.id);
  place($("jobs"), card, job.id);
  $("empty").hidden = true;
  card.querySelector(".words").textContent = job.prompt;
  card.querySelector(".reuse").onclick = () => acts.reuse(entry.job);
  card.querySelector(".cancel").onclick = async ({ target }) => {
    target.disabled = true;
    await client.cancel(job).then(take, acts.failed);
  };
  sheets(entry);
  show(entry);
  return card;
}

/** Lay out one sheet of the right shape for each picture asked for. */
function sheets({ job, card }) {
  const [width, height] = job.size.split("x");
  const prints = Array.from({ length: job.count }, () => {
    const print = $("print").content.firstElementChild.cloneNode(true);
    Object.assign(print.querySelector("img"), { width, height });
    print.style.setProperty("--ratio", width / height);
    return print;
  });
  card.querySelector(".prints").replaceChildren(...prints);
  card.firstElementChild.classList.toggle("several", job.count > 1);
}

function show(entry) {
  const { job, card } = entry;
  const part = (name) => card.querySelector(`.${name}`);
  card.firstElementChild.dataset.state = job.state;
  part("said").textContent = said(job);
  part("cancel").hidden = job.ended;
  part("cancel").disabled = job.cancel_requested_at != null;
  const facts = [plain(job.size), job.quality, job.model];
  if (job.operation === "edit") facts.unshift("edit");
  if (job.ended) facts.push(job.cost.charged ? credits(job.cost.charged) : "nothing\u00a0charged");
  part("facts").textContent = facts.join(" · ");
  const short = job.shortfall.length && job.outputs.length;
  const error = job.error ?? (short ? { detail: "Not all came out; the others were refunded." } : null);
  part("reason").hidden = error == null || job.state === "canceled";
  part("reason").replaceChildren(...(error ? reason(error) : []));
  for (const output of job.outputs) expose(entry, output);
  for (const print of card.querySelectorAll(".print")) {
    print.hidden = job.ended && !print.classList.contains("exposed");
  }
  part("prints").hidden = job.ended && !job.outputs.length;
  run(entry);
}

function said(job) {
  if (job.cancel_requested_at && !job.ended) return "Canceling";
  const ahead = job.queue?.position;
  return job.state === "queued" && ahead ? `Waiting, ${ahead} before it` : (STATES[job.state] ?? capital(job.state));
}

/** Let a card's clock run while its job does. */
function run(entry) {
  const { job, card } = entry;
  const begun = Date.parse(job.created_at);
  const tick = (now) => (card.querySelector(".clock").textContent = seconds(Math.max(0, now - begun)));
  clearInterval(entry.clock);
  if (job.ended) return tick(Date.parse(job.ended_at));
  tick(Date.now());
  entry.clock = setInterval(() => tick(Date.now()), 100);
}

/** Put a delivered picture onto its sheet. A link that died is read again, once. */
function expose(entry, output) {
  const { job, card } = entry;
  const print = card.querySelectorAll(".print")[output.index];
  if (!print || print.classList.contains("exposed")) return;
  const [open, save] = print.querySelectorAll("a");
  const [picture, edit] = [print.querySelector("img"), print.querySelector(".edit")];
  const link = ({ url }) => {
    open.href = picture.src = local(url);
    save.href = `${local(url)}${url.includes("?") ? "&" : "?"}download=1`;
  };
  picture.alt = job.count > 1 ? `${job.prompt} (${output.index + 1} of ${job.count})` : job.prompt;
  picture.onload = () => print.classList.add("seen");
  picture.onerror = async () => {
    picture.onerror = null;
    const now = await client.get(job).catch(() => null);
    if (now) link(now.outputs.find(({ index }) => index === output.index));
  };
  const kind = output.media_type.replace("image/", "").toUpperCase();
  print.querySelector("span").textContent = `${kind}, ${kilobytes(output.bytes)}`;
  save.setAttribute("aria-label", `Save picture ${output.index + 1}`);
  edit.setAttribute("aria-label", `Edit picture ${output.index + 1}`);
  edit.hidden = false;
  edit.onclick = () => acts.edit(open.href, `picture-${output.index + 1}`);
  print.classList.add("exposed");
  link(output);
}
