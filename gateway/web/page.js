// The page: a bench on which a picture is asked for, a tray in which it comes up.
//
// This file joins the two. One stream brings news of all jobs; each time it stands again, the newest jobs
// are read, so that nothing is missed that ended in between.

import * as bench from "./bench.js";
import * as references from "./references.js";
import { client } from "./session.js";
import * as tray from "./tray.js";
import { credits, reason } from "./words.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 5; // seconds before a stream is asked for again
let watching = false;

async function balance() {
  const { tenant, subject, credits: purse } = await client.account();
  $("who").textContent = `${subject} of ${tenant}`;
  $("credits").textContent = `${credits(purse.available)} left`;
  $("account").hidden = false;
  bench.purse(purse.available);
}

function fill() {
  $("trouble").hidden = true;
  tray.fill().catch(failed);
}

/** Follow all jobs. Where other windows hold all streams, the newest jobs are read now and then. */
async function watch() {
  for (;;) {
    try {
      for await (const job of client.events({ onOpen: fill })) tray.take(job);
    } catch (problem) {
      if (!problem.retryable) throw problem;
      if (problem.code === "too_many_streams") fill();
      else failed(problem);
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(problem.retryAfter ?? 0, PAUSE)));
    }
  }
}

/** Say what is wrong with more than one request. A refused token is asked for anew. */
function failed(problem) {
  if (problem.code === "unauthenticated") return start();
  $("trouble-text").replaceChildren(...reason(problem));
  $("trouble").hidden = false;
}

async function start() {
  $("trouble").hidden = true;
  try {
    bench.offer(await client.models());
    await balance();
    if (watching) return fill();
    watching = true;
    await watch();
  } catch (problem) {
    watching = false;
    failed(problem);
  }
}

function submitted(job) {
  $("trouble").hidden = true;
  tray.take(job).scrollIntoView({ block: "nearest" });
  balance().catch(failed);
}

/** Take a picture that was made as one to start from. */
async function edit(link, name) {
  // Past the cache: what an <img> left there was not asked for across origins, and may not be read.
  const answer = await fetch(link, { cache: "no-store" }).catch(() => null);
  if (!answer?.ok) return failed({ detail: "That picture cannot be read again. Save it, and drop it here." });
  const picture = await answer.blob();
  references.add([new File([picture], `${name}.${picture.type.replace("image/", "")}`, { type: picture.type })]);
  $("prompt").focus();
}

bench.begin(submitted, failed);
tray.begin({ reuse: bench.reuse, edit, failed, ended: () => balance().catch(failed) });
$("again").addEventListener("click", start);
start();
