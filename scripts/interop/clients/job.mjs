// The job a client program is given and the report it answers with; knows no SDK, each program completes a `Peer`.
// The same steps, prefixes and report as job.py: whoever changes one changes both.

import { readFileSync, writeSync } from "node:fs";

const SAMPLED = "a sampled sentence";
const ANSWERS = { name: "Ada", check: true, integer: 7 };
export const CAPABILITIES = { sampling: {}, elicitation: {}, roots: { listChanged: true } };
const KINDS = ["tools", "resources", "templates", "prompts"];
const NOT_UPDATED = 12_000; // milliseconds; everything's own pace is one update in five seconds

/** Writes an exception down: a JSON-RPC error with its code and data, anything else by its class. */
function failure(error) {
  if (Number.isInteger(error?.code)) {
    return { error: { code: error.code, message: error.message, data: error.data ?? null } };
  }
  return { failed: error?.name ?? "Error", message: String(error?.message ?? error) };
}

/** Waits for a promise, but no longer than that. */
async function within(milliseconds, promise, otherwise) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(() => resolve(otherwise), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const does = {
  async call(peer, part, step) {
    const ticks = [];
    const tick = step.progress ? (progress) => ticks.push([progress.progress, progress.total ?? null]) : undefined;
    const result = await peer.call(part.prefix + step.tool, step.arguments, tick, undefined);
    return step.progress ? { result, progress: ticks } : { result };
  },

  async cancel(peer, part, step) {
    const gone = new AbortController();
    const tick = () => gone.abort("no longer wanted");
    try {
      await peer.call(part.prefix + step.tool, step.arguments, tick, gone.signal);
    } catch (error) {
      if (!gone.signal.aborted) throw error;
    }
    return { cancelled: gone.signal.aborted };
  },

  async read(peer, part, step) {
    return { result: await peer.read(part.uri_prefix + step.uri) };
  },

  async prompt(peer, part, step) {
    return { result: await peer.prompt(part.prefix + step.prompt, step.arguments) };
  },

  async complete(peer, part, step) {
    const ref = { ...step.ref };
    if ("name" in ref) ref.name = part.prefix + ref.name;
    else ref.uri = part.uri_prefix + ref.uri;
    return { result: await peer.complete(ref, step.argument, step.context) };
  },

  // Subscribe to a resource, have it changed by a tool, wait for the news, stop the changes again.
  async watch(peer, part, step) {
    const uri = part.uri_prefix + step.uri;
    let seen;
    const news = new Promise((resolve) => {
      seen = resolve;
    });
    const leave = await peer.watch(uri, (changed) => changed === uri && seen(true));
    await peer.call(part.prefix + step.tool, step.arguments, undefined, undefined);
    const updated = await within(NOT_UPDATED, news, false);
    if ("stop" in step) await peer.call(part.prefix + step.stop, step.arguments, undefined, undefined);
    await leave();
    return { updated };
  },
};

async function listings(peer, deadline) {
  const found = {};
  for (const kind of KINDS) {
    const late = { failed: "Timeout", message: `no ${kind} within ${deadline} s` };
    found[kind] = await within(deadline * 1000, peer.listed(kind).catch(failure), late);
  }
  return found;
}

async function work(peer, job) {
  const report = { ...peer.about(), ...(await listings(peer, job.deadline)), parts: {} };
  for (const part of job.parts) {
    const outcomes = (report.parts[part.backend] ??= {});
    for (const step of part.steps) {
      const late = { failed: "Timeout", message: `nothing within ${job.deadline} s` };
      outcomes[step.id] = await within(job.deadline * 1000, does[step.do](peer, part, step).catch(failure), late);
    }
  }
  return report;
}

const LISTS = {
  tools: ["listTools", "tools", "tools"],
  resources: ["listResources", "resources", "resources"],
  templates: ["listResourceTemplates", "resourceTemplates", "resources"],
  prompts: ["listPrompts", "prompts", "prompts"],
};

/** One open client of a TypeScript SDK, as far as its releases agree. */
export class Peer {
  constructor(client, transport, timeout) {
    this.client = client;
    this.transport = transport;
    this.options = { timeout };
  }

  about() {
    return {
      protocol: this.protocol() ?? null,
      server: this.client.getServerVersion() ?? null,
      capabilities: this.client.getServerCapabilities() ?? null,
      instructions: this.client.getInstructions() ?? null,
    };
  }

  async listed(kind) {
    const [method, field, capability] = LISTS[kind];
    if (!this.client.getServerCapabilities()?.[capability]) return [];
    const found = [];
    let cursor;
    do {
      const page = await this.client[method](cursor === undefined ? undefined : { cursor }, this.options);
      found.push(...page[field]);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return found;
  }

  read(uri) {
    return this.client.readResource({ uri }, this.options);
  }

  prompt(name, args) {
    return this.client.getPrompt({ name, arguments: args }, this.options);
  }

  complete(ref, argument, context) {
    return this.client.complete({ ref, argument, ...(context && { context: { arguments: context } }) }, this.options);
  }

  async watch(uri) {
    await this.client.subscribeResource({ uri }, this.options);
    return () => this.client.unsubscribeResource({ uri }, this.options);
  }

  async close() {
    await this.transport.terminateSession?.();
    await this.client.close();
  }
}

/** The transport to a target, of the SDK's classes by kind. */
function transportTo(target, { Stdio, Sse, Http }) {
  if (target.kind === "stdio") {
    const [command, ...args] = target.command;
    return new Stdio({ command, args, env: target.env });
  }
  const url = new URL(target.url);
  return target.kind === "sse" ? new Sse(url) : new Http(url);
}

/** Connects a client that answers what it is asked; `requests` are what the SDK calls sampling, elicitation, roots. */
export async function connect(client, job, transports, requests, Kind) {
  const content = { type: "text", text: SAMPLED };
  const [sampling, elicitation, roots] = requests;
  client.setRequestHandler(sampling, () => ({ role: "assistant", content, model: "fixed", stopReason: "endTurn" }));
  client.setRequestHandler(elicitation, () => ({ action: "accept", content: ANSWERS }));
  client.setRequestHandler(roots, () => ({ roots: job.roots }));
  const transport = transportTo(job.target, transports);
  await client.connect(transport, { timeout: job.deadline * 1000 });
  return new Kind(client, transport, job.deadline * 1000);
}

/** Reads the job named on the command line, does it, prints the report; `open` gives a Peer with a `close`. */
export async function main(open) {
  const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
  let report = { parts: {} };
  try {
    const peer = await open(job);
    report = await work(peer, job);
    await within(job.deadline * 1000, peer.close(), undefined).catch((error) => {
      report.closing = failure(error); // all was done by then
    });
  } catch (error) {
    report.trouble = failure(error);
  }
  const bytes = Buffer.from(JSON.stringify(report));
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
  process.exit(0);
}
