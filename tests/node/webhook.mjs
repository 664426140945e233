// The signature check of gptimage2.plus's document, as it stands there, over a request read from stdin.
// What the document leaves to its reader stands around it: where `rawBody` and `req` come from.

import crypto from "crypto";
import fs from "fs";

const { headers, body } = JSON.parse(fs.readFileSync(0, "utf8"));
const rawBody = Buffer.from(body, "base64");
const req = { headers };

// Node example
const expected = crypto
  .createHmac("sha256", process.env.WEBHOOK_SECRET)
  .update(rawBody)
  .digest("hex");
const ok = crypto.timingSafeEqual(
  Buffer.from(expected),
  Buffer.from(req.headers["x-gptimg-signature"])
);

process.stdout.write(JSON.stringify(ok));
