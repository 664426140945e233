// The pictures an edit starts from: dropped, pasted or chosen, shown small, uploaded at once.
//
// A picture is judged here only as far as saves a useless upload; the gateway judges it again.

import { client } from "./session.js";
import { reason } from "./words.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const MOST_BYTES = 10 * 2 ** 20;
const $ = (id) => document.getElementById(id);
let held = []; // {file, id, row, ready}, in order
let mask = null;
let most = 0;
let masks = false;
let changed = () => {};

/** Begin: `told` is called whenever what `chosen` returns may have changed. */
export function begin(told) {
  changed = told;
  $("files").addEventListener("change", ({ target }) => (add([...target.files]), (target.value = "")));
  $("mask").addEventListener("change", ({ target }) => (hold(target.files[0], true), (target.value = "")));
  const bench = $("form");
  bench.addEventListener("dragover", (event) => {
    if (!most || ![...event.dataTransfer.items].some(({ kind }) => kind === "file")) return;
    event.preventDefault();
    bench.classList.add("over");
  });
  bench.addEventListener("dragleave", (event) => {
    if (!bench.contains(event.relatedTarget)) bench.classList.remove("over");
  });
  bench.addEventListener("drop", (event) => {
    bench.classList.remove("over");
    if (!most || !event.dataTransfer.files.length) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  bench.addEventListener("paste", (event) => {
    if (most && event.clipboardData.files.length) add([...event.clipboardData.files]);
  });
}

/** Take as many pictures as a model can start from: none where it makes no edits. */
export function allow(limits) {
  most = limits.inputs ?? 0;
  masks = limits.mask ?? false;
  if (!most) for (const one of [...held, ...(mask ? [mask] : [])]) drop(one);
  show();
}

/** Say whether a picture is still on its way. */
export const waiting = () => [...held, mask].some((one) => one && !one.id);

/** Wait until every picture has arrived. One that could not be uploaded is gone by then. */
export const arrived = () => Promise.all([...held, mask].map((one) => one?.ready));

/** Return what a request says of them. */
export function chosen() {
  if (!held.length) return {};
  const body = { operation: "edit", inputs: held.map(({ id }) => ({ upload: id })) };
  return mask ? { ...body, mask: { upload: mask.id } } : body;
}

/** Take pictures, at most as many as can be. */
export function add(files) {
  const room = most - held.length;
  if (files.length > room) tell(`At most ${most} ${most === 1 ? "picture" : "pictures"} to start from.`);
  for (const file of files.slice(0, Math.max(0, room))) hold(file, false);
}

/** Take away the pictures a refusal names, for the gateway does, and say why; return whether there were any. */
export function refused({ errors }) {
  const named = errors.map(({ pointer, detail }) => {
    const [, part, at] = /^\/(inputs\/(\d+)|mask)\b/.exec(pointer) ?? [];
    return { one: part === "mask" ? mask : held[at], detail };
  });
  const gone = named.filter(({ one }) => one);
  if (!gone.length) return false;
  for (const { one } of gone) drop(one);
  show();
  tell(gone.map(({ one, detail }) => `${one.file.name} ${detail}.`).join(" "));
  return true;
}

function hold(file, isMask) {
  if (!file) return;
  if (!TYPES.includes(file.type)) return tell(`${file.name}: only PNG, JPEG and WebP can be used.`);
  if (file.size > MOST_BYTES) return tell(`${file.name} is larger than 10 MiB.`);
  tell("");
  const row = $("reference").content.firstElementChild.cloneNode(true);
  const one = { file, row, id: null };
  row.querySelector("img").src = URL.createObjectURL(file);
  row.querySelector("button").onclick = () => (drop(one), show(), $("files").focus());
  row.querySelector("button").setAttribute("aria-label", `Remove ${isMask ? "the mask" : file.name}`);
  if (isMask) {
    if (mask) drop(mask);
    mask = one;
  } else held.push(one);
  label(one, "uploading");
  $("reference-list").append(row);
  one.ready = send(one);
  show();
}

async function send(one) {
  try {
    one.id = (await client.upload(one.file)).id;
    label(one, one === mask ? "mask" : "");
  } catch (problem) {
    tell(...reason(problem));
    drop(one);
    show();
    return;
  }
  changed();
}

function label({ row, file }, state) {
  row.querySelector(".name").textContent = state ? `${file.name} (${state})` : file.name;
  row.classList.toggle("uploading", state === "uploading");
}

function drop(one) {
  URL.revokeObjectURL(one.row.querySelector("img").src);
  one.row.remove();
  held = held.filter((other) => other !== one);
  if (mask === one) mask = null;
  if (!held.length && mask) drop(mask);
}

function show() {
  $("references").hidden = !most;
  $("reference-list").hidden = !held.length;
  $("files").disabled = held.length >= most;
  $("files-label").hidden = held.length >= most;
  $("files").hidden = held.length >= most;
  $("files-words").replaceChildren(
    ...(held.length ? ["Drop another one, or "] : ["Drop a picture to edit it, or "]),
    Object.assign(document.createElement("u"), { textContent: held.length ? "choose it" : "choose one" }),
  );
  $("mask").hidden = $("mask-label").hidden = !masks || !held.length || mask !== null;
  changed();
}

const tell = (...parts) => $("reference-said").replaceChildren(...parts);
