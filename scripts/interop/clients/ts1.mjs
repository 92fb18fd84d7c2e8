// The TypeScript SDK 1.x client as an interop client; owns nothing but the translation.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { ANSWERS, SAMPLED, main } from "./job.mjs";

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
      protocol: this.transport.protocolVersion ?? null,
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

  call(name, args, onprogress, signal) {
    return this.client.callTool({ name, arguments: args }, undefined, { ...this.options, onprogress, signal });
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
    this.client.setNotificationHandler(ResourceUpdatedNotificationSchema, (notice) => seen(notice.params.uri));
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
  const client = new Client({ name: "interop-ts1", version: "1" }, { capabilities });
  const content = { type: "text", text: SAMPLED };
  client.setRequestHandler(CreateMessageRequestSchema, () => {
    return { role: "assistant", content, model: "fixed", stopReason: "endTurn" };
  });
  client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: ANSWERS }));
  client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: job.roots }));
  const transport = transportTo(job.target);
  await client.connect(transport, { timeout: job.deadline * 1000 });
  return new Peer(client, transport, job.deadline * 1000);
});
