// A client of a node by HTTP, with what Node.js has itself: URL and token are its arguments.
import assert from "node:assert";
import http from "node:http";

const [base, token] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${token}` };

async function ask(method, path, body, status, more = {}) {
  const answer = await fetch(base + path, { method, body, headers: { ...headers, ...more }, duplex: "half" });
  assert.equal(answer.status, status, `${method} ${path}: ${answer.status}`);
  return answer;
}

async function open(name) {
  const pipe = JSON.stringify({ name, to: "self" });
  await ask("POST", "/v1/pipes", pipe, 201, { "Content-Type": "application/json" });
}

await open("node");
await ask("POST", "/v1/pipes/node/messages", "hello", 200);
const hello = await ask("GET", "/v1/pipes/node/messages?timeout=60", undefined, 200);
assert.equal(await hello.text(), "hello");

// A stream both ways at once: what is sent comes back.
const piece = new Uint8Array(65536).fill(7);
let left = 32;
const body = new ReadableStream({
  pull(controller) {
    left-- > 0 ? controller.enqueue(piece) : controller.close();
  },
});
const [, stream] = await Promise.all([
  ask("PUT", "/v1/pipes/node/stream?end=true", body, 200),
  ask("GET", "/v1/pipes/node/stream", undefined, 200).then((answer) => answer.arrayBuffer()),
]);
assert.equal(stream.byteLength, 32 * 65536);
await ask("DELETE", "/v1/pipes/node", undefined, 204);

await open("tunnel");
const request = http.get(`${base}/tunnel/tunnel`, { headers: { ...headers, Connection: "Upgrade", Upgrade: "tcp" } });
const [socket, head] = await new Promise((resolve, reject) => {
  request.on("upgrade", (answer, socket, head) => resolve([socket, head]));
  request.on("response", (answer) => reject(new Error(`${answer.statusCode}`)));
  request.on("error", reject);
});
let got = head.toString();
socket.on("data", (data) => (got += data));
const ended = new Promise((resolve) => socket.on("end", resolve));
socket.end("through the tunnel");
await ended;
assert.equal(got, "through the tunnel");
console.log("all is well");
