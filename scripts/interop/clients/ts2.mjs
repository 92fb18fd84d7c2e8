// The TypeScript SDK 2.x client as an interop client, in either era: what it does in its own way.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { SdkPeer, connected, main } from "./job.mjs";

const MODES = { auto: "auto", handshake: "legacy", modern: { pin: "2026-07-28" } };

class Peer extends SdkPeer {
  protocol() {
    return this.client.getNegotiatedProtocolVersion();
  }

  call(name, args, onprogress, signal) {
    return this.client.callTool({ name, arguments: args }, { ...this.options, onprogress, signal });
  }

  async watch(uri, seen) {
    this.client.setNotificationHandler("notifications/resources/updated", (notice) => seen(notice.params.uri));
    if (this.client.getProtocolEra() !== "modern") return this.subscribed(uri);
    const subscription = await this.client.listen({ resourceSubscriptions: [uri] }, this.options);
    return () => subscription.close();
  }
}

const methods = { sampling: "sampling/createMessage", elicitation: "elicitation/create", roots: "roots/list" };
const sdk = { Client, Peer, StdioClientTransport, SSEClientTransport, StreamableHTTPClientTransport, methods };
await main((job) => connected(sdk, "interop-ts2", { versionNegotiation: { mode: MODES[job.era] } }, job));
