// The TypeScript SDK 2.x client as an interop client, in either era; owns nothing but the translation.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { ANSWERS, SAMPLED, main } from "./job.mjs";

const MODES = { auto: "auto", handshake: "legacy", modern: { pin: "2026-07-28" } };
const LISTS = {
  tools: ["listTools", "tools", "tools"],
  resources: ["listResources", "resources", "resources"],
  templates: ["listResourceTemplates", "resourceTemplates", "resources"],
  prompts: ["listPrompts", "prompts", "prompts"],
};

class Peer {
  constructor(client, transport, timeout) {
    this.client = client;
    this.transport = transport;
    this.options = { timeout };
  }

  about() {
    return {
      protocol: this.client.getNegotiatedProtocolVersion() ?? null,
      server: this.client.getServerVersion() ?? null,
      capabilities: this.client.getServerCapabilities() ?? null,
      instructions: this.client.getInstructions() ?? null,
    };
  }

  async listed(kind) {
    const [method, field, capability] = LISTS[kind];
    if (!this.client.getServerCapabilities()?.[capability]) return [];
    return (await this.client[method](undefined, this.options))[field];
  }

  call(name, args, onprogress, signal) {
    return this.client.callTool({ name, arguments: args }, { ...this.options, onprogress, signal });
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

  async watch(uri, seen) {
    this.client.setNotificationHandler("notifications/resources/updated", (notice) => seen(notice.params.uri));
    if (this.client.getProtocolEra() === "modern") {
      const subscription = await this.client.listen({ resourceSubscriptions: [uri] }, this.options);
      return () => subscription.close();
    }
    await this.client.subscribeResource({ uri }, this.options);
    return () => this.client.unsubscribeResource({ uri }, this.options);
  }

  async close() {
    await this.transport.terminateSession?.();
    await this.client.close();
  }
}

function transportTo(target) {
  if (target.kind === "stdio") {
    const [command, ...args] = target.command;
    return new StdioClientTransport({ command, args, env: target.env });
  }
  const url = new URL(target.url);
  return target.kind === "sse" ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url);
}

await main(async (job) => {
  const capabilities = { sampling: {}, elicitation: {}, roots: { listChanged: true } };
  const versionNegotiation = { mode: MODES[job.era] };
  const client = new Client({ name: "interop-ts2", version: "1" }, { capabilities, versionNegotiation });
  const content = { type: "text", text: SAMPLED };
  client.setRequestHandler("sampling/createMessage", () => {
    return { role: "assistant", content, model: "fixed", stopReason: "endTurn" };
  });
  client.setRequestHandler("elicitation/create", () => ({ action: "accept", content: ANSWERS }));
  client.setRequestHandler("roots/list", () => ({ roots: job.roots }));
  const transport = transportTo(job.target);
  await client.connect(transport, { timeout: job.deadline * 1000 });
  return new Peer(client, transport, job.deadline * 1000);
});
