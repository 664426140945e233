// What the page says: figures as people read them, and every refusal with what to do about it.
//
// Text from outside becomes text, never markup.

const number = new Intl.NumberFormat();

export const credits = (n) => `${number.format(n)}\u00a0credit${n === 1 ? "" : "s"}`;
export const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)}\u00a0s`;
export const plain = (size) => size.replace("x", "\u00a0×\u00a0");
export const kilobytes = (bytes) => `${number.format(Math.ceil(bytes / 1000))}\u00a0kB`;
export const capital = (word) => word[0].toUpperCase() + word.slice(1);

export const STATES = {
  queued: "Waiting",
  running: "Developing",
  succeeded: "Done",
  failed: "It did not come out",
  blocked: "The provider would not make this",
  canceled: "Canceled",
};

const KINDLY = {
  prompt_blocked: () => "These words cannot be used here. Nothing was spent; other words may do.",
  insufficient_credits: ({ price, left }) =>
    `${price == null ? "That costs more than is left." : `That costs ${credits(price)}; ${credits(left ?? 0)} are left.`} ` +
    "A lower quality, a smaller size or fewer pictures cost less. More come with the next month.",
  monthly_cap_reached: () =>
    "This month's allowance is used up. It begins anew with the next month (UTC); until then a cheaper picture may still fit.",
  too_many_in_flight: () =>
    "As many pictures are in the making as your plan allows. Wait for one to be done, or cancel one.",
  rate_limited: () => "That was a lot in a short time. Your words are kept; send them again in a moment.",
  plan_required: ({ detail }) => `${detail} Another model or fewer pictures may be in your plan.`,
  upload_expired: () => "The picture to start from was kept for a day and is gone. Drop it here again.",
  paused: () => "Picture making is paused by whoever runs this gateway. Your words are kept.",
  unreachable: () => "The server does not answer. Is it still running? Your words are kept.",
  internal: () => "Something went wrong on the server. Your words are kept; nothing was charged.",
};

/** Return the parts of a sentence that says why something is not made, and what to do. */
export function reason(problem, figures = {}) {
  const { code, rule, detail, message, errors, requestId } = problem;
  const kindly = KINDLY[code] ?? (() => detail || message || "This cannot be made now.");
  const parts = [kindly({ detail: detail ?? "", ...figures })];
  for (const flaw of errors ?? []) parts.push(` ${flaw.pointer || "The request"}: ${flaw.detail}.`);
  const later = problem.retryAfter ?? problem.retry_after;
  if (later) parts.push(" Again in ", marked("span", number.format(later), "countdown"), " s.");
  if (rule) parts.push(" The rule is ", marked("code", rule), ".");
  if (code === "internal" && requestId) parts.push(" Its number is ", marked("code", requestId), ".");
  return parts;
}

function marked(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}
