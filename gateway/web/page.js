// The page: a bench on which a picture is asked for, a tray in which it comes up.
//
// What is asked of the API stands in calls.js. Text from outside becomes text, never markup.

import * as api from "./calls.js";

const $ = (id) => document.getElementById(id);
const shown = new Map(); // job id -> its card
const KEPT = 12;
const QUOTE_EVERY = 1200; // milliseconds: below the quote's own limit of 60 a minute
let known = [];
let quoting = { timer: 0, at: 0, asked: "" };

const number = new Intl.NumberFormat();
const credits = (n) => `${number.format(n)}\u00a0credit${n === 1 ? "" : "s"}`;
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)}\u00a0s`;
const plain = (size) => size.replace("x", "\u00a0×\u00a0");

// ---- the bench -----------------------------------------------------------------------------------

function options(select, rows, keep) {
  const before = keep ? select.value : "";
  select.replaceChildren(...rows.map(([value, text]) => new Option(text, value)));
  if (rows.some(([value]) => value === before)) select.value = before;
}

function showModel(keep = true) {
  const model = known.find(({ id }) => id === $("model").value) ?? known[0];
  const tiers = new Map();
  for (const row of model.sizes) tiers.set(row.tier, [...(tiers.get(row.tier) ?? []), row]);
  const before = $("size").value;
  $("size").replaceChildren(
    ...[...tiers].map(([tier, rows]) => {
      const group = document.createElement("optgroup");
      group.label = tier;
      group.append(...rows.map(({ size, ratio }) => new Option(`${plain(size)}  (${ratio})`, size)));
      return group;
    }),
  );
  if (keep && model.sizes.some(({ size }) => size === before)) $("size").value = before;
  const words = model.qualities.map((word) => [word, word[0].toUpperCase() + word.slice(1)]);
  options($("quality"), words, keep);
  if (!keep && model.qualities.includes("medium")) $("quality").value = "medium";
  const most = model.limits?.count ?? 1;
  options($("count"), Array.from({ length: most }, (_, n) => [String(n + 1), String(n + 1)]), keep);
}

function request() {
  const body = { prompt: $("prompt").value.trim(), size: $("size").value, quality: $("quality").value };
  if (known.length > 1) body.model = $("model").value;
  if ($("count").value !== "1") body.count = Number($("count").value);
  return body;
}

function command(token) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const body = request();
  body.prompt ||= $("prompt").placeholder;
  return [
    `curl ${quoted(api.address("v1/jobs"))}`,
    `-H ${quoted(`Authorization: Bearer ${token}`)}`,
    `-H 'Content-Type: application/json'`,
    `-d ${quoted(JSON.stringify(body))}`,
  ].join(" \\\n  ");
}

function changed() {
  $("command").textContent = command("TOKEN");
  clearTimeout(quoting.timer);
  const due = Math.max(400, quoting.at + QUOTE_EVERY - Date.now());
  quoting.timer = setTimeout(quote, due);
}

async function quote() {
  const body = request();
  const asked = JSON.stringify(body);
  if (!known.length || asked === quoting.asked) return;
  quoting.at = Date.now();
  quoting.asked = asked;
  const typed = body.prompt !== "";
  body.prompt ||= $("prompt").placeholder;
  try {
    const answer = await api.quote(body);
    if (quoting.asked !== asked) return;
    const blocked = typed && !answer.allowed;
    $("price").textContent = answer.price == null ? "" : credits(answer.price);
    judged(blocked ? answer : null);
  } catch (problem) {
    quoting.asked = "";
    $("price").textContent = "";
    if (problem.code === "unreachable") trouble(problem);
  }
}

/** Say kindly why something is not made; nothing to say clears it. */
function judged(answer) {
  const line = $("verdict");
  $("prompt").setAttribute("aria-invalid", String(answer?.code === "prompt_blocked"));
  line.classList.toggle("told", answer != null);
  line.replaceChildren(...(answer ? reason(answer) : []));
}

function reason({ code, rule, detail, message, errors, retryAfter, retry_after: later = retryAfter }) {
  const parts = [];
  if (code === "prompt_blocked") parts.push("These words cannot be used here. Nothing was spent; other words may do.");
  else parts.push(detail || message || "This cannot be made now.");
  for (const flaw of errors ?? []) parts.push(` ${flaw.pointer || "The request"}: ${flaw.detail}.`);
  if (later) parts.push(` Again in ${number.format(later)} s.`);
  if (rule) {
    const name = document.createElement("code");
    name.textContent = rule;
    parts.push(" The rule is ", name, ".");
  }
  return parts;
}

async function make(event) {
  event?.preventDefault();
  const body = request();
  if (!body.prompt) return $("prompt").focus();
  $("make").disabled = true;
  try {
    const job = await api.submit(body);
    judged(null);
    trouble(null);
    develop(job, "first");
    balance();
  } catch (problem) {
    if (problem.code === "unreachable") trouble(problem);
    else judged(problem);
  } finally {
    $("make").disabled = false;
  }
}

async function balance() {
  const { tenant, subject, credits: purse } = await api.account();
  $("who").textContent = `${subject} of ${tenant}`;
  $("credits").textContent = `${credits(purse.available)} left`;
  $("account").hidden = false;
}

async function copy() {
  try {
    const text = command(await api.bearer());
    $("command").textContent = text;
    getSelection().selectAllChildren($("command"));
    const copied = await navigator.clipboard.writeText(text).then(() => true, () => false);
    $("copied").textContent = copied ? "Copied." : "Press Ctrl + C to copy.";
  } catch (problem) {
    trouble(problem);
  }
}

// ---- the tray ------------------------------------------------------------------------------------

const WORDS = {
  queued: "Waiting",
  running: "Developing",
  succeeded: "Done",
  failed: "It did not come out",
  blocked: "The provider would not make this",
  canceled: "Canceled",
};

/** Put a job into the tray and follow it to its end. */
async function develop(job, place = "last") {
  const card = $("job").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  shown.set(job.id, card);
  $("jobs")[place === "first" ? "prepend" : "append"](card);
  if (shown.size > KEPT) forget();
  $("empty").hidden = true;
  part("words").textContent = job.prompt;
  part("reuse").onclick = () => reuse(job);
  part("cancel").onclick = async ({ target }) => {
    target.disabled = true;
    await api.cancel(job.id).then(take, trouble);
  };
  // An answer may be overtaken by the stream: what is older than what is shown says nothing.
  const take = (news) => news.version >= job.version && show(card, (job = news));
  lay(card, job);
  show(card, job);
  if (place === "first") card.scrollIntoView({ block: "nearest" });
  if (job.ended) return;
  const clock = setInterval(() => tick(card, job), 100);
  try {
    for await (const news of api.follow(job)) take(news);
    balance();
  } catch (problem) {
    trouble(problem);
  } finally {
    clearInterval(clock);
    tick(card, job);
  }
}

function forget() {
  const [id, card] = [...shown].find(([, one]) => one === $("jobs").lastElementChild);
  shown.delete(id);
  card.remove();
}

/** Lay out one sheet of the right shape for each picture asked for. */
function lay(card, job) {
  const [width, height] = job.size.split("x");
  const prints = Array.from({ length: job.count }, () => {
    const print = $("print").content.firstElementChild.cloneNode(true);
    Object.assign(print.querySelector("img"), { width, height });
    print.style.setProperty("--ratio", width / height);
    return print;
  });
  card.querySelector(".prints").replaceChildren(...prints);
  card.classList.toggle("several", job.count > 1);
}

function show(card, job) {
  const part = (name) => card.querySelector(`.${name}`);
  card.dataset.state = job.state;
  part("said").textContent = said(job);
  part("cancel").hidden = job.ended;
  part("cancel").disabled = job.cancel_requested_at != null;
  const facts = [plain(job.size), job.quality, job.model];
  if (job.ended) facts.push(job.cost.charged ? credits(job.cost.charged) : "nothing\u00a0charged");
  part("facts").textContent = facts.join(" · ");
  const short = job.shortfall.length && job.outputs.length;
  const error = job.error ?? (short ? { detail: "Not all came out; the others were refunded." } : null);
  part("reason").hidden = error == null || job.state === "canceled";
  part("reason").replaceChildren(...(error ? reason(error) : []));
  for (const output of job.outputs) expose(card, job, output);
  for (const print of card.querySelectorAll(".print")) {
    print.hidden = job.ended && !print.classList.contains("exposed");
  }
  part("prints").hidden = job.ended && !job.outputs.length;
  tick(card, job);
}

function said(job) {
  if (job.cancel_requested_at && !job.ended) return "Canceling";
  const ahead = job.queue?.position;
  return job.state === "queued" && ahead ? `Waiting, ${ahead} before it` : WORDS[job.state] ?? job.state;
}

function tick(card, job) {
  const begun = Date.parse(job.created_at);
  const end = job.ended_at ? Date.parse(job.ended_at) : Date.now();
  card.querySelector(".clock").textContent = seconds(Math.max(0, end - begun));
}

/** Put a delivered picture onto its sheet. A link that died is read again, once. */
function expose(card, job, output) {
  const print = card.querySelectorAll(".print")[output.index];
  if (!print || print.classList.contains("exposed")) return;
  const [open, save] = print.querySelectorAll("a");
  const picture = print.querySelector("img");
  const link = ({ url }) => {
    open.href = picture.src = api.local(url);
    save.href = `${api.local(url)}${url.includes("?") ? "&" : "?"}download=1`;
  };
  picture.alt = job.count > 1 ? `${job.prompt} (${output.index + 1} of ${job.count})` : job.prompt;
  picture.onload = () => print.classList.add("seen");
  picture.onerror = async () => {
    picture.onerror = null;
    const now = await api.job(job.id).catch(() => null);
    if (now) link(now.outputs.find(({ index }) => index === output.index));
  };
  const kind = output.media_type.replace("image/", "").toUpperCase();
  print.querySelector("span").textContent = `${kind}, ${number.format(Math.ceil(output.bytes / 1000))} kB`;
  save.setAttribute("aria-label", `Save picture ${output.index + 1}`);
  print.classList.add("exposed");
  link(output);
}

function reuse(job) {
  $("prompt").value = job.prompt;
  for (const name of ["model", "size", "quality", "count"]) {
    const select = $(name);
    if ([...select.options].some(({ value }) => value === String(job[name]))) select.value = job[name];
    if (name === "model") showModel();
  }
  $("prompt").focus();
  changed();
}

// ---- both ----------------------------------------------------------------------------------------

function trouble(problem) {
  $("trouble").hidden = problem == null;
  $("trouble-text").replaceChildren(...(problem ? reason(problem) : []));
}

async function start() {
  trouble(null);
  try {
    known = await api.models();
    options($("model"), known.map(({ id }) => [id, id]), false);
    $("model-field").hidden = known.length < 2;
    showModel(false);
    changed();
    await balance();
    const jobs = await api.recent(6);
    $("empty").hidden = jobs.length > 0 || shown.size > 0;
    for (const job of jobs) if (!shown.has(job.id)) develop(job);
  } catch (problem) {
    trouble(problem);
  }
}

$("form").addEventListener("submit", make);
$("form").addEventListener("input", changed);
$("model").addEventListener("change", () => (showModel(), changed()));
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) make(event);
});
$("copy").addEventListener("click", copy);
$("again").addEventListener("click", start);
start();
