// Runs fauxqs on loopback (its own program listens on all interfaces), as
//
//	node --input-type=module --eval "this text" -- region port journal
//
// What makes a topic, a queue or a subscription is written to the journal and done
// again at the next start. So a kill takes the messages, which fauxqs has in memory
// only, and leaves the rest, as an account of AWS would.
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { buildApp } from "fauxqs";

const [region, port, journal] = process.argv.slice(-3);
const kept = ["CreateTopic", "Subscribe", "CreateQueue", "SetQueueAttributes"];

const app = buildApp({ logger: false, defaultRegion: region });
let replaying = true;
app.addHook("onResponse", async ({ headers, body }, { statusCode }) => {
  const action = headers["x-amz-target"]?.split(".")[1] ?? body?.Action; // SQS speaks JSON, SNS sends forms
  if (replaying || statusCode !== 200 || !kept.includes(action)) return;
  const payload = body.Action ? String(new URLSearchParams(body)) : JSON.stringify(body);
  const { host, authorization, "content-type": type, "x-amz-target": target } = headers;
  const said = { host, authorization, "content-type": type, ...(target && { "x-amz-target": target }) };
  appendFileSync(journal, JSON.stringify({ method: "POST", url: "/", headers: said, payload }) + "\n");
});
const before = existsSync(journal) ? readFileSync(journal, "utf8").trim().split("\n") : [];
for (const request of before) {
  const { statusCode, payload } = await app.inject(JSON.parse(request));
  if (statusCode !== 200) throw new Error(`${request}: ${statusCode} ${payload}`);
}
replaying = false;

process.on("SIGTERM", () => process.exit(0));
await app.listen({ host: "127.0.0.1", port: Number(port) });
