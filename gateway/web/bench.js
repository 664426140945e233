// The bench: what is asked for, what it would cost, and the same as a program.

import * as references from "./references.js";
import { sample } from "./samples.js";
import { BASE, bearer, client } from "./session.js";
import { capital, credits, plain, reason } from "./words.js";

const $ = (id) => document.getElementById(id);
const QUOTE_EVERY = 1200; // milliseconds: below the quote's own limit of 60 a minute
const QUIET = 400; // milliseconds without a key pressed
const WORDS = ["style", "lighting", "camera", "negative"];
const PLAIN = { quality: "medium", count: "1", format: "png", background: "auto" };
let known = [];
let left = null;
let quoting = { timer: 0, due: 0, asked: "" };
let counting = 0;
let failing = () => {};

/** Begin: `submitted` is given each new job, `failed` a problem that is not about the request. */
export function begin(submitted, failed) {
  failing = failed;
  references.begin(changed);
  const make = (event) => (event.preventDefault(), send(submitted));
  $("form").addEventListener("submit", make);
  $("form").addEventListener("input", changed);
  $("model").addEventListener("change", () => (showModel(), changed()));
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) make(event);
  });
  $("copy").addEventListener("click", copy);
}

/** Show what may be asked for. */
export function offer(models) {
  known = models;
  options($("model"), models.map(({ id }) => [id, id]), true);
  $("model-field").hidden = models.length < 2;
  if (models.length) showModel();
  changed();
}

/** Know how many credits are left, to say so when they are too few. */
export const purse = (available) => (left = available);

/** Take over what a job asked for. */
export function reuse(job) {
  $("prompt").value = job.prompt;
  for (const name of WORDS) $(name).value = job[name] ?? "";
  if (WORDS.some((name) => job[name])) $("more").open = true;
  choose("model", job.model);
  showModel();
  for (const name of ["size", ...Object.keys(PLAIN)]) choose(name, String(job[name]));
  $("prompt").focus();
  changed();
}

function choose(name, value) {
  if ([...$(name).options].some((one) => one.value === value)) $(name).value = value;
}

function options(select, rows, keep) {
  const before = keep && select.options.length ? select.value : PLAIN[select.id];
  select.replaceChildren(...rows.map(([value, text]) => new Option(text, value)));
  if (rows.some(([value]) => value === before)) select.value = before;
}

function showModel() {
  const model = known.find(({ id }) => id === $("model").value) ?? known[0];
  const tiers = new Map();
  for (const row of model.sizes) tiers.set(row.tier, [...(tiers.get(row.tier) ?? []), row]);
  const before = $("size").value;
  $("size").replaceChildren(
    ...[...tiers].map(([tier, rows]) => {
      const group = Object.assign(document.createElement("optgroup"), { label: tier });
      group.append(...rows.map(({ size, ratio }) => new Option(`${plain(size)}  (${ratio})`, size)));
      return group;
    }),
  );
  if (model.sizes.some(({ size }) => size === before)) $("size").value = before;
  const named = (words) => words.map((word) => [word, capital(word)]);
  options($("quality"), named(model.qualities), true);
  options($("format"), model.formats.map((word) => [word, word.toUpperCase()]), true);
  options($("background"), named(model.backgrounds), true);
  const counts = Array.from({ length: model.limits.count }, (_, n) => String(n + 1));
  options($("count"), counts.map((n) => [n, n]), true);
  references.allow(model.limits);
}

function request() {
  const body = { prompt: $("prompt").value.trim(), size: $("size").value, quality: $("quality").value };
  if (known.length > 1) body.model = $("model").value;
  if ($("count").value !== "1") body.count = Number($("count").value);
  for (const name of ["format", "background"]) if ($(name).value !== PLAIN[name]) body[name] = $(name).value;
  for (const name of WORDS) if ($(name).value.trim()) body[name] = $(name).value.trim();
  if (body.style) body.style = body.style.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return { ...body, ...references.chosen() };
}

function program(token) {
  const body = request();
  body.prompt ||= $("prompt").placeholder;
  return sample($("form").elements.tongue.value, BASE, token, body);
}

function changed() {
  if (!known.length) return;
  $("sample").textContent = program("TOKEN");
  $("copied").textContent = "";
  clearTimeout(quoting.timer);
  quoting.timer = setTimeout(quote, Math.max(QUIET, quoting.due - Date.now()));
}

async function quote() {
  if (references.waiting()) return; // it is called again when they are there
  const body = request();
  const asked = JSON.stringify(body);
  if (asked === quoting.asked) return;
  quoting = { ...quoting, due: Date.now() + QUOTE_EVERY, asked };
  const typed = body.prompt !== "";
  body.prompt ||= $("prompt").placeholder;
  try {
    const answer = await client.quote(body);
    if (quoting.asked !== asked) return;
    $("price").textContent = answer.price == null ? "" : credits(answer.price);
    judged(answer.allowed || (!typed && answer.code === "prompt_blocked") ? null : answer);
  } catch (problem) {
    quoting = { ...quoting, due: Date.now() + 1000 * (problem.retryAfter ?? 0), asked: "" };
    $("price").textContent = "";
    if (["unreachable", "unauthenticated"].includes(problem.code)) failing(problem);
    else if (problem.code === "rate_limited") changed();
    else if (!references.refused(problem)) judged(problem);
  }
}

/** Say kindly why something is not made; nothing to say clears it. */
function judged(answer) {
  const line = $("verdict");
  clearInterval(counting);
  $("prompt").setAttribute("aria-invalid", String(answer?.code === "prompt_blocked"));
  line.classList.toggle("told", answer != null);
  line.replaceChildren(...(answer ? reason(answer, { price: answer.price, left }) : []));
  const clock = line.querySelector(".countdown");
  if (clock) countDown(clock, answer.retryAfter ?? answer.retry_after);
}

/** Count the seconds down, unheard, and say when it may be tried again. */
function countDown(clock, wait) {
  const due = Date.now() + 1000 * wait;
  $("verdict").setAttribute("aria-live", "off");
  counting = setInterval(() => {
    clock.textContent = String(Math.max(1, Math.ceil((due - Date.now()) / 1000)));
    if (Date.now() < due) return;
    clearInterval(counting);
    $("verdict").setAttribute("aria-live", "polite");
    $("verdict").replaceChildren("It may work now: send it again.");
  }, 1000);
}

async function send(submitted) {
  if (!$("prompt").value.trim()) return $("prompt").focus();
  $("make").disabled = true;
  try {
    await references.arrived();
    const job = await client.submit(request());
    judged(null);
    submitted(job);
  } catch (problem) {
    if (["unreachable", "unauthenticated"].includes(problem.code)) failing(problem);
    else if (!references.refused(problem)) judged(problem);
  } finally {
    $("make").disabled = false;
    if (document.activeElement === document.body) $("make").focus();
  }
}

async function copy() {
  try {
    const text = program(await bearer());
    $("sample").textContent = text;
    getSelection().selectAllChildren($("sample"));
    const copied = await navigator.clipboard.writeText(text).then(() => true, () => false);
    $("copied").textContent = copied ? "Copied." : "Press Ctrl + C to copy.";
  } catch (problem) {
    failing(problem);
  }
}
