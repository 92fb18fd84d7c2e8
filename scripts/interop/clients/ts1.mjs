// The TypeScript SDK 1.x client as an interop client: what it does in its own way.

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
import { SdkPeer, connected, main } from "./job.mjs";

class Peer extends SdkPeer {
  protocol() {
    return this.transport.protocolVersion;
  }

  call(name, args, onprogress, signal) {
    return this.client.callTool({ name, arguments: args }, undefined, { ...this.options, onprogress, signal });
  }

  watch(uri, seen) {
    this.client.setNotificationHandler(ResourceUpdatedNotificationSchema, (notice) => seen(notice.params.uri));
    return this.subscribed(uri);
  }
}

const methods = {
  sampling: CreateMessageRequestSchema,
  elicitation: ElicitRequestSchema,
  roots: ListRootsRequestSchema,
};
const sdk = { Client, Peer, StdioClientTransport, SSEClientTransport, StreamableHTTPClientTransport, methods };
await main((job) => connected(sdk, "interop-ts1", {}, job));
