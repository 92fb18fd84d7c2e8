// Preloaded into the reference servers, which would listen on every interface: gives a bare port this machine's own.

import net from "node:net";

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const bare = /^\d+$/.test(String(port)) && typeof rest[0] !== "string";
  return bare ? listen.call(this, Number(port), "127.0.0.1", ...rest) : listen.call(this, port, ...rest);
};
