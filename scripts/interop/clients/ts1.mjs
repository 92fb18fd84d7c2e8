// The TypeScript SDK 1.x client as an interop client; owns nothing but the translation.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport as Sse } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport as Stdio } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport as Http } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { CAPABILITIES, Peer, connect, main } from "./job.mjs";

const REQUESTS = [CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema];

class Peer1 extends Peer {
  protocol() {
    return this.transport.protocolVersion;
  }

  call(name, args, onprogress, signal) {
    return this.client.callTool({ name, arguments: args }, undefined, { ...this.options, onprogress, signal });
  }

  watch(uri, seen) {
    this.client.setNotificationHandler(ResourceUpdatedNotificationSchema, (notice) => seen(notice.params.uri));
    return super.watch(uri);
  }
}

await main((job) => {
  const client = new Client({ name: "interop-ts1", version: "1" }, { capabilities: CAPABILITIES });
  return connect(client, job, { Stdio, Sse, Http }, REQUESTS, Peer1);
});
