// Who works here, and the one client of the page.
//
// On a developer's machine the token comes from the server; elsewhere it is typed, and kept in this tab
// alone: in memory, and in the tab's own storage so that a reload needs no second one. It is asked for anew
// when the API no longer takes it.

import { Safelight, SafelightProblem } from "./client.js";

const { token: from, address: home } = document.documentElement.dataset;
const KEPT = "safelight.token";
const $ = (id) => document.getElementById(id);
let handed = null;

/** Where the API is, wherever the page is mounted, without a slash at its end. */
export const BASE = new URL(".", document.baseURI).href.slice(0, -1);

/** A link of this gateway as one of the page's own origin, which may be another name of the same host. */
export function local(link) {
  return home && link.startsWith(`${home}/`) ? BASE + link.slice(home.length) : link;
}

/** The token, fetched or asked for when there is none. */
export async function bearer() {
  handed ??= from === "dev" ? await fetched() : (sessionStorage.getItem(KEPT) ?? (await typed()));
  return handed;
}

async function fetched() {
  const response = await fetch(`${BASE}/dev/token`, { cache: "no-store" }).catch(() => null);
  if (response?.ok) return (await response.json()).token;
  throw new SafelightProblem({ code: "unreachable", detail: "The server does not answer.", retryable: true });
}

/** Wait until a token is typed. */
function typed() {
  const [entry, field] = [$("entry"), $("token")];
  $("form").hidden = $("tray").hidden = !(entry.hidden = false);
  field.focus();
  return new Promise((resolve) => {
    entry.onsubmit = (event) => {
      event.preventDefault();
      const token = field.value.trim();
      if (!token) return;
      sessionStorage.setItem(KEPT, token);
      field.value = "";
      $("form").hidden = $("tray").hidden = !(entry.hidden = true);
      $("prompt").focus();
      resolve(token);
    };
  });
}

/** Return the token anew: the client asks again only when the one it had was refused. */
async function renewed() {
  if (handed !== null) {
    handed = null;
    sessionStorage.removeItem(KEPT);
    $("entry-why").textContent = "The token is no longer taken. A fresh one from your login goes on where you were.";
  }
  return bearer();
}

/** The client. It retries a lost answer, and leaves it to the page to tell of limits. */
export const client = new Safelight({
  baseUrl: BASE,
  token: renewed,
  retries: 1,
  patience: 0.9,
  fetch: (url, options) => fetch(local(url), options),
});
