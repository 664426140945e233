// Types of client.js. Enumerations are open: a later server may know more words than these.

type Open<Known extends string> = Known | (string & {});

export type Operation = Open<"generate" | "edit">;
export type Quality = Open<"low" | "medium" | "high">;
export type Format = Open<"png" | "webp" | "jpeg">;
export type Background = Open<"auto" | "transparent" | "opaque">;
export type JobState = Open<"queued" | "running" | "succeeded" | "failed" | "blocked" | "canceled">;

/** A picture to start from: an upload's id, or an address the gateway fetches. */
export interface InputRef {
  upload?: string | null;
  url?: string | null;
}

/** What is asked for. `size` and `aspect_ratio` exclude each other; `edit` needs `inputs`. */
export interface JobRequest {
  prompt: string;
  operation?: Operation;
  size?: string;
  aspect_ratio?: string;
  quality?: Quality;
  count?: number;
  inputs?: InputRef[];
  /** White is what changes. */
  mask?: InputRef;
  style?: string;
  lighting?: string;
  camera?: string;
  negative?: string;
  seed?: number;
  format?: Format;
  background?: Background;
  model?: string;
  metadata?: Record<string, string>;
  /** What becomes of an option that no provider of the model has: refused, or dropped and listed. */
  on_unsupported?: Open<"refuse" | "drop">;
}

/**
 * One picture, byte for byte as it was made. `url` is good until `expires_at`, and `get` renews it; where that is
 * null, it is good for as long as the job is kept.
 */
export interface Output {
  index: number;
  url: string;
  media_type: string;
  width: number;
  height: number;
  bytes: number;
  sha256: string;
  seed: string | null;
  variants: Record<string, string>;
  expires_at: string | null;
}

export interface JobError {
  code: string;
  detail: string;
  stage: Open<"input" | "upstream" | "output">;
  /** A new submit may work. Nothing is owed for this one. */
  retryable: boolean;
  rule?: string;
}

export interface Shortfall {
  index: number;
  code: string;
  refunded: number;
}

/** A job. Times are UTC. `version` rises with every change; `ended` says whether more will come. */
export interface Job {
  id: string;
  state: JobState;
  ended: boolean;
  version: number;
  subject: string;
  policy_version: string;
  prompt: string;
  operation: Operation;
  size: string;
  aspect_ratio: string;
  quality: Quality;
  count: number;
  inputs: InputRef[];
  mask: InputRef | null;
  style: string | null;
  lighting: string | null;
  camera: string | null;
  negative: string | null;
  seed: number | null;
  format: Format;
  background: Background;
  model: string;
  metadata: Record<string, string>;
  on_unsupported: Open<"refuse" | "drop">;
  final_prompt: string | null;
  adjustments: string[];
  outputs: Output[];
  shortfall: Shortfall[];
  error: JobError | null;
  cost: { quoted: number; held: number; charged: number; refunded: number };
  queue: { position: number; eta_seconds: number | null } | null;
  cancel_requested_at: string | null;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  links: { self: string; events: string };
}

/** A page of jobs. `next` is the `cursor` of the page after, null at the end. */
export interface JobPage {
  data: Job[];
  next: string | null;
}

/** Every limit and what is left of it. */
export interface Limits {
  submit: { limit: number; remaining: number; window_seconds: number; resets_at: string };
  in_flight: { limit: number; remaining: number };
  monthly_cap: { limit: number; remaining: number; resets_at: string };
  streams: number;
  count: number;
  prompt: number;
}

/** What a submit would do now. `code`, `rule` and `detail` say why it would not be allowed. */
export interface Quote {
  allowed: boolean;
  price: number | null;
  model: string | null;
  size: string | null;
  adjustments: string[];
  limits: Limits;
  code?: string;
  rule?: string;
  detail?: string;
  retry_after?: number;
  final_prompt?: string;
}

/** A model, by the name it is asked for. Prices are credits an image. */
export interface Model {
  id: string;
  object: "model";
  created: number;
  owned_by: string;
  operations: Operation[];
  sizes: { size: string; ratio: string; tier: string; prices: Record<string, number> }[];
  qualities: Quality[];
  formats: Format[];
  backgrounds: Background[];
  prices: Record<string, number>;
  limits: { count: number; prompt: number; inputs: number; mask: boolean };
}

export interface Account {
  tenant: string;
  subject: string;
  roles: string[];
  plan: string | null;
  models: string[];
  limits: Limits;
  credits: { granted: number; held: number; charged: number; available: number };
  month: { month: string; spent: number; tenant_spent: number };
}

/** A place for a picture, filled. Name it as `{upload: id}`. */
export interface Upload {
  id: string;
  url: string;
  method: string;
  headers: Record<string, string>;
  expires_at: string;
}

export interface Options {
  /** Where the gateway is, mount prefix included. Default: where this module was loaded from. */
  baseUrl?: string | URL;
  /** A token, or who is asked for one: at first, and once more when the one it gave is refused. */
  token?: string | null | (() => string | Promise<string>);
  /** How often a read or a submit is sent again after 429, 503 or no answer. Default 2. */
  retries?: number;
  /** The longest `Retry-After`, in seconds, that is waited for in between; a longer one throws. Default 30. */
  patience?: number;
  /** What is called in place of the global `fetch`. */
  fetch?: (url: string, options: RequestInit) => Promise<Response>;
}

export interface CallOptions {
  /** Ends the call; it rejects with the signal's reason. The job itself goes on: see `cancel`. */
  signal?: AbortSignal;
}

export interface ListOptions extends CallOptions {
  state?: JobState | JobState[];
  operation?: Operation;
  model?: string;
  /** For the tenant's admins. */
  subject?: string;
  created_after?: string;
  created_before?: string;
  metadata?: Record<string, string>;
  cursor?: string | null;
  limit?: number;
}

export declare class Safelight {
  constructor(options?: Options);

  /**
   * Submit a job; resolves once it is accepted and its credits are held. A lost answer is asked for again
   * under the same key, which always gets the same job.
   */
  submit(request: JobRequest, options?: CallOptions & { idempotencyKey?: string }): Promise<Job>;

  /** Read a job as it is now, with fresh links. */
  get(id: string | Job, options?: CallOptions): Promise<Job>;

  /**
   * Wait until a job has ended, and resolve to it, whatever its end: see `state`. `onUpdate` is told of
   * every change. A dropped stream is resumed; where none can be had, the job is long-polled.
   */
  wait(id: string | Job, options?: CallOptions & { onUpdate?: (job: Job) => void }): Promise<Job>;

  /**
   * Follow all of the caller's jobs, or those named, over one stream: first the open ones, then every
   * change, until the loop is left or the signal aborts. A job may come twice; `version` tells. `onOpen`
   * is called each time the stream stands: what ended before the first time is to be read by `list`.
   */
  events(
    options?: CallOptions & { jobs?: (string | Job)[]; lastEventId?: string | number; onOpen?: () => void },
  ): AsyncGenerator<Job, never, void>;

  /** Cancel a job. It may take a moment to be over: `wait` tells its end. */
  cancel(id: string | Job, options?: CallOptions): Promise<Job>;

  /** Erase a job that has ended: its prompt, its inputs, its pictures. */
  delete(id: string | Job, options?: CallOptions): Promise<void>;

  /** Ask what a job would cost and whether it would be admitted. Nothing is spent; sixty a minute. */
  quote(request: JobRequest, options?: CallOptions): Promise<Quote>;

  /** Read a page of jobs, newest first. */
  list(options?: ListOptions): Promise<JobPage>;

  /** Upload a picture (PNG, JPEG or WebP) to be used as `{upload: id}`. A Blob needs its `type`. */
  upload(file: Blob, options?: CallOptions & { filename?: string }): Promise<Upload>;

  /** Read what may be asked for, with sizes and prices. */
  models(options?: CallOptions): Promise<Model[]>;

  /** Read the account: plan, limits and what is left of them, credits. */
  account(options?: CallOptions): Promise<Account>;
}

/** Every way a call can fail, but an abort. */
export declare class SafelightProblem extends Error {
  /** What to match: `prompt_blocked`, `insufficient_credits`, …; `unreachable` where nobody answered. */
  readonly code: string;
  /** The HTTP status; 0 where nobody answered. */
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  /** Whether the same call may be admitted later. */
  readonly retryable: boolean;
  /** In how many seconds. */
  readonly retryAfter: number | null;
  readonly requestId: string | null;
  /** The public id of the rule that decided. */
  readonly rule?: string;
  /** Each mistake of a body, by its JSON pointer. */
  readonly errors: readonly { pointer: string; detail: string }[];
}
