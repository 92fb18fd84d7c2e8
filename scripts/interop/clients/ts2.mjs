// The TypeScript SDK 2.x client as an interop client, in either era; owns nothing but the translation.

import { Client, SSEClientTransport as Sse, StreamableHTTPClientTransport as Http } from "@modelcontextprotocol/client";
import { StdioClientTransport as Stdio } from "@modelcontextprotocol/client/stdio";
import { CAPABILITIES, Peer, connect, main } from "./job.mjs";

const MODES = { auto: "auto", handshake: "legacy", modern: { pin: "2026-07-28" } };
const REQUESTS = ["sampling/createMessage", "elicitation/create", "roots/list"];

class Peer2 extends Peer {
  protocol() {
    return this.client.getNegotiatedProtocolVersion();
  }

  call(name, args, onprogress, signal) {
    return this.client.callTool({ name, arguments: args }, { ...this.options, onprogress, signal });
  }

  async watch(uri, seen) {
    this.client.setNotificationHandler("notifications/resources/updated", (notice) => seen(notice.params.uri));
    if (this.client.getProtocolEra() !== "modern") return super.watch(uri);
    const subscription = await this.client.listen({ resourceSubscriptions: [uri] }, this.options);
    return () => subscription.close();
  }
}

await main((job) => {
  const options = { capabilities: CAPABILITIES, versionNegotiation: { mode: MODES[job.era] } };
  return connect(new Client({ name: "interop-ts2", version: "1" }, options), job, { Stdio, Sse, Http }, REQUESTS, Peer2);
});
