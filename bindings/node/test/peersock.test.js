'use strict';
const assert = require('node:assert');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const dgram = require('node:dgram');
const { spawn, spawnSync } = require('node:child_process');
const { test } = require('node:test');
const { Worker } = require('node:worker_threads');
const { open, Socket, UdpSocket } = require('..');

// Both nodes are on the loopback interface, and meet by a port that no other test has.
let alice, bob, discoveryPort;
const settings = () => ({ interfaces: 'loopback', roots: '', discoveryPort });

test('two nodes start', async () => {
  // Who wants it as nodes do may share it; nobody else gets it.
  const held = dgram.createSocket({ type: 'udp4', reuseAddr: true }).bind(0, '127.0.0.1');
  await once(held, 'listening');
  held.unref();
  discoveryPort = held.address().port;
  const config = { network: 'ff0001ffff000000', secret: 'correct horse', ...settings() };
  [alice, bob] = await Promise.all([open(config), open(config)]);
});

/** A listener of alice's, and where it is reached. */
async function serve(options, listener) {
  const server = await alice.createServer(options, listener).listen();
  return { server, host: alice.addresses[0], port: server.address().port };
}

/** A connection's ends: bob's and alice's. */
async function pair(options = {}) {
  const { server, host, port } = await serve(options);
  const dialing = bob.connect({ host, port, ...options });
  const [dialed, [accepted]] = await Promise.all([dialing, once(server, 'connection')]);
  server.close();
  return { dialed, accepted };
}

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('http: several requests at once, a large body, by createConnection and by an agent', async () => {
  const web = http.createServer(async (request, response) => {
    const body = await read(request);
    response.setHeader('from', request.socket.remoteAddress);
    response.end(body);
  });
  const give = (socket) => web.emit('connection', socket);
  const { server, host, port } = await serve({ allowHalfOpen: true }, give);
  const agent = new http.Agent({ keepAlive: true });
  agent.createConnection = bob.createConnection;
  const post = async (body, how) => {
    const request = http.request({ host, port, method: 'POST', ...how });
    request.end(body);
    const [response] = await once(request, 'response');
    assert.strictEqual(response.headers.from, bob.addresses[0]);
    assert.ok((await read(response)).equals(body));
  };
  const large = Buffer.alloc(16 << 20, '0123456789abcdef');
  const all = [0, 2, 4, 6].flatMap((bits) => [
    post(large.subarray(0, large.length >> bits), { createConnection: bob.createConnection }),
    post(large.subarray(0, large.length >> bits), { agent }),
  ]);
  await Promise.all(all);
  await post(large.subarray(0, 10), { agent });
  agent.destroy();
  server.close();
});

test('both ends know their addresses, and take options', async () => {
  const { dialed, accepted } = await pair();
  assert.ok(dialed instanceof Socket);
  const own = { address: bob.addresses[0], family: 'IPv6', port: accepted.remotePort };
  assert.deepStrictEqual(dialed.address(), own);
  assert.strictEqual(accepted.remoteAddress, bob.addresses[0]);
  assert.strictEqual(dialed.remoteAddress, alice.addresses[0]);
  assert.strictEqual(dialed.remotePort, accepted.localPort);
  assert.strictEqual(dialed.remoteFamily, 'IPv6');
  assert.strictEqual(dialed.setNoDelay().setKeepAlive(true, 30000).setTimeout(0), dialed);
  dialed.destroy();
  accepted.destroy();
  assert.strictEqual(dialed.setNoDelay(), dialed);
});

test('half closed streams go on', async () => {
  const { dialed, accepted } = await pair({ allowHalfOpen: true });
  dialed.end('question');
  assert.strictEqual((await read(accepted)).toString(), 'question');
  accepted.end('answer');
  assert.strictEqual((await read(dialed)).toString(), 'answer');
});

test('deadlines: setTimeout tells of silence', async () => {
  const { dialed, accepted } = await pair();
  dialed.setTimeout(20);
  await once(dialed, 'timeout');
  dialed.destroy();
  accepted.destroy();
});

test('closing ends what waits to read', async () => {
  const { dialed, accepted } = await pair();
  const waiting = read(dialed);
  dialed.destroy();
  await assert.rejects(waiting, { code: 'ERR_STREAM_PREMATURE_CLOSE' });
  accepted.resume();
  await once(accepted, 'close');
});

test('a reset is an error', async () => {
  const { dialed, accepted } = await pair();
  accepted.pause();
  dialed.write(Buffer.alloc(8 << 20));
  await once(accepted, 'readable');
  accepted.destroy();
  const [error] = await once(dialed, 'error');
  assert.ok(['ECONNRESET', 'EPIPE'].includes(error.code), error);
});

test('who is refused is told so', async () => {
  const host = alice.addresses[0];
  const wanted = { code: 'ECONNREFUSED', errno: -111, syscall: 'connect', address: host, port: 1,
    message: `connect ECONNREFUSED ${host}:1` };
  await assert.rejects(bob.connect({ host, port: 1 }), wanted);
  const [error] = await once(http.get({ host, port: 1, createConnection: bob.createConnection }), 'error');
  assert.strictEqual(error.code, 'ECONNREFUSED');
  const { server, port } = await serve({});
  server.close();
  await once(server, 'close');
  assert.strictEqual(server.address(), null);
  await assert.rejects(bob.connect({ host, port }), { code: 'ECONNREFUSED' });
});

test('a signal aborts connecting, and nothing later', async () => {
  // Nobody has this address, so that there is no answer.
  const host = alice.addresses[0].replace(/.$/, (last) => (last === '1' ? '2' : '1'));
  const controller = new AbortController();
  const connecting = bob.connect({ host, port: 80, signal: controller.signal });
  setTimeout(() => controller.abort(new Error('enough')), 20);
  await assert.rejects(connecting, ({ name, code, cause }) => {
    assert.deepStrictEqual([name, code, cause.message], ['AbortError', 'ABORT_ERR', 'enough']);
    return true;
  });
  await assert.rejects(bob.connect({ host, port: 80, signal: controller.signal }), { name: 'AbortError' });
  const { server, port } = await serve({});
  const later = new AbortController();
  const [socket, [accepted]] = await Promise.all([
    bob.connect({ host: alice.addresses[0], port, signal: later.signal }), once(server, 'connection')]);
  later.abort();
  socket.resume().end('x');
  assert.strictEqual((await read(accepted)).toString(), 'x');
  await once(socket, 'close');
  server.close();
});

test('the event loop goes on while a connection is made', async () => {
  const host = alice.addresses[0].replace(/.$/, (last) => (last === '1' ? '2' : '1'));
  const controller = new AbortController();
  const connect = () => bob.connect({ host, port: 80, signal: controller.signal });
  const connecting = Promise.allSettled(Array.from({ length: 10 }, connect));
  // More than libuv has threads: files are read all the same.
  assert.ok((await fs.promises.readFile(__filename)).length > 0);
  controller.abort();
  await connecting;
});

test('members have names', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'peersock-'));
  const file = path.join(folder, 'office.toml');
  const seeds = [1, 2].map((byte) => new Uint8Array(32).fill(byte));
  const nodes = await Promise.all(seeds.map((seed) => open({ ...settings(), seed })));
  const members = nodes.map((node, i) => {
    const { public_key: key, endpoints } = node.status();
    const port = endpoints[0].split(':').pop();
    return `[[member]]\nname = "${['alpha', 'beta'][i]}"\nkey = "${key}"
addresses = ["10.7.0.${i + 1}"]\nendpoints = ["127.0.0.1:${port}"]\n`;
  });
  fs.writeFileSync(file, `network = "fe4f0c1d2e3a4b55"\n${members.join('')}`, { mode: 0o600 });
  await Promise.all(nodes.map((node) => node.close()));
  const port = (i) => Number(members[i].match(/127\.0\.0\.1:(\d+)/)[1]);
  const [alpha, beta] = await Promise.all([0, 1].map((i) =>
    open({ ...settings(), network: file, seed: seeds[i], port: port(i) })));
  const ended = [];
  const server = await alpha.createServer((socket) => {
    ended.push(once(socket, 'close'));
    assert.deepStrictEqual([socket.peer.name, socket.peer.tags, socket.peer.claims.length], ['beta', [], 0]);
    socket.resume().end(socket.remoteFamily);
  }).listen({ host: '::', port: 80 });
  assert.strictEqual((await read(await beta.connect({ host: 'alpha', port: 80 }))).toString(), 'IPv6');
  assert.strictEqual((await read(await beta.connect({ host: 'ALPHA', port: '80' }))).toString(), 'IPv6');
  const v4 = await beta.connect({ host: '10.7.0.1', port: 80 });
  assert.strictEqual(v4.remoteAddress, '10.7.0.1');
  const { name, node, machine, gateway, label } = v4.peer;
  assert.deepStrictEqual([name, node, gateway, label], ['alpha', machine, false, null]);
  assert.strictEqual((await read(v4)).toString(), 'IPv4');
  // It stays when the connection has ended.
  assert.strictEqual(v4.peer.node, node);
  await assert.rejects(beta.connect({ host: 'gamma', port: 80 }), { code: 'ENOTFOUND', hostname: 'gamma' });
  server.close();
  await Promise.all(ended);
  await Promise.all([alpha.close(), beta.close()]);
  fs.rmSync(folder, { recursive: true });
});

test('a program joins a managed network by an invite', async (t) => {
  const program = process.env.PEERSOCK_TEST_PROGRAM;
  if (!program) return t.skip('PEERSOCK_TEST_PROGRAM names no program that makes a network');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'peersock-'));
  const env = { ...process.env, PEERSOCK_STATE: path.join(folder, 'alpha'), PEERSOCK_INTERFACE: 'lo',
    PEERSOCK_PERSIST: '0', PEERSOCK_OWN_NODE: '1' };
  const alpha = (...words) => {
    const { status, stdout, stderr } = spawnSync(program, words, { env, encoding: 'utf8' });
    assert.strictEqual(status, 0, stderr);
    return stdout.trim();
  };
  alpha('network', 'create', 'team', '--pool', '10.77.0.0/24', '--name', 'alpha');
  const controller = spawn(program, ['controller', '-n', 'team'], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  try {
    let said = '';
    while (!said.includes('serving team')) said += (await once(controller.stderr, 'data'))[0];
    controller.stderr.resume();
    const network = alpha('network', 'invite', '--name', 'beta');
    // The second start with the invite is the same member.
    for (let start = 0; start < 2; start++) {
      const state = path.join(folder, 'beta');
      const node = await open({ network, state, interfaces: 'loopback', roots: '' });
      const deadline = Date.now() + 60000;
      while (!node.addresses.includes('10.77.0.2')) {
        assert.ok(Date.now() < deadline, 'no controller has admitted the node');
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await node.close();
    }
  } finally {
    controller.kill('SIGINT');
    if (controller.exitCode === null) await once(controller, 'exit');
    fs.rmSync(folder, { recursive: true });
  }
});

test('a program under `peersock run` and this one share the node of their state directory', async (t) => {
  const program = process.env.PEERSOCK_TEST_PROGRAM;
  if (!program) return t.skip('PEERSOCK_TEST_PROGRAM names no program that runs others');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'peersock-'));
  const state = path.join(folder, 'state');
  // Without a secret, from port 7000 on.
  const network = 'ff1b58ffff000000';
  // It knows nothing of this package.
  const echo = `require('node:net').createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
    .listen(7000, '::', () => console.log('ready'))`;
  const words = ['run', '--interface', 'lo', '--state', state, '--network', network, '--', 'node', '-e', echo];
  const env = { ...process.env, PEERSOCK_PERSIST: '0', PEERSOCK_OWN_NODE: '', PEERSOCK_ROOTS: '' };
  const run = spawn(program, words, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const status = () => {
    const { stdout, stderr } = spawnSync(program, ['status', '--json', '--state', state], { encoding: 'utf8' });
    assert.notStrictEqual(stdout, '', stderr);
    return JSON.parse(stdout);
  };
  try {
    assert.strictEqual(String((await once(run.stdout, 'data'))[0]), 'ready\n');
    const node = await open({ network, state, interfaces: 'loopback', roots: '' });
    const [host] = node.addresses;
    const connection = await node.connect({ host, port: 7000, allowHalfOpen: true });
    connection.end('hello');
    assert.strictEqual(String(await read(connection)), 'hello');
    connection.destroy();
    // The port is the other program's.
    const server = node.createServer();
    await assert.rejects(server.listen({ port: 7000 }), { code: 'EADDRINUSE' });
    const processes = status().programs.map((one) => one.process);
    assert.strictEqual(processes.length, 2);
    assert.ok(processes.includes(process.pid), processes);
    await node.close();
    // The other program keeps its node.
    assert.strictEqual(status().programs.length, 1);
  } finally {
    run.kill('SIGINT');
    if (run.exitCode === null && run.signalCode === null) await once(run, 'exit');
    fs.rmSync(folder, { recursive: true });
  }
});

test('bad arguments are refused', async () => {
  for (const config of [
    { network: 5 }, { network: 'x\0' }, { seed: 'short' }, { seed: new Uint8Array(32), state: 'x' },
    { port: -1 },
  ]) {
    await assert.rejects(open({ ...settings(), ...config }), { code: 'ERR_INVALID_ARG_VALUE' });
  }
  for (const [config, code] of [
    [{ network: 'nonsense' }, 'FILE'], [{ interfaces: 'nosuch0' }, 'SYSTEM'],
    [{ roots: 'nonsense' }, 'INVALID'], [{ seed: new Uint8Array(5) }, 'INVALID'],
    [{ state: '/proc/nowhere' }, 'FILE'], [{ turn: 'nonsense' }, 'INVALID'], [{ stun: 'nonsense' }, 'INVALID'],
    [{ dht: 'nonsense' }, 'INVALID'], [{ busyPoll: 10001 }, 'INVALID'], [{ onlySuite: 'nonsense' }, 'INVALID'],
    [{ tcpBuffers: [0, 1] }, 'INVALID'], [{ tcpBuffers: 5 }, 'INVALID'], [{ nonsense: 'x' }, 'INVALID'],
  ]) {
    await assert.rejects(open({ ...settings(), ...config }), (error) => {
      assert.strictEqual(error.code, `PEERSOCK_E_${code}`, error);
      return error.message !== '';
    });
  }
  for (const options of [
    undefined, {}, { port: 65536 }, { port: 'x' }, { port: 1.5 }, { host: 5, port: 80 },
  ]) {
    await assert.rejects(bob.connect(options), { code: 'ERR_INVALID_ARG_VALUE' });
  }
  const server = alice.createServer();
  const foreign = { code: 'EADDRNOTAVAIL', syscall: 'listen' };
  await assert.rejects(server.listen({ host: bob.addresses[0], port: 80 }), foreign);
  await assert.rejects(server.listen({ port: 70000 }), RangeError);
  await server.listen();
  await assert.rejects(server.listen(), { code: 'ERR_SERVER_ALREADY_LISTEN' });
  await assert.rejects(alice.createServer().listen(server.address()), { code: 'EADDRINUSE' });
  server.close();
  server.close();
});

test('the library knows each setting', async () => {
  // It refuses one that it does not know.
  const node = await open({
    ...settings(), network: 'ff00500051000000', turn: ' ', stun: '127.0.0.1:9', dht: 'off',
    discovery: false, introduce: false, portMapping: false, birthday: false, tcpPunch: false,
    busyPoll: 0, onlySuite: 'ChaCha20-Poly1305', tcpBuffers: [65536, 65536],
  });
  await node.close();
});

test('a node that is closed says so', async () => {
  const node = await open({ network: 'ff00500051000000', ...settings() });
  await assert.rejects(node.createServer().listen({ port: 90 }), { code: 'EACCES', message: /80/ });
  const server = await node.createServer().listen({ port: 80 });
  const [dialed, [accepted]] = await Promise.all([node.connect({ port: 80 }), once(server, 'connection')]);
  const failed = Promise.all([once(dialed, 'error'), once(accepted, 'error')]);
  await node.close();
  assert.deepStrictEqual((await failed).map(([error]) => error.code), ['ENETDOWN', 'ENETDOWN']);
  assert.strictEqual(server.listening, false);
  await assert.rejects(node.connect({ host: '::1', port: 80 }), { code: 'ENETDOWN' });
  await assert.rejects(node.close(), { code: 'PEERSOCK_E_DOWN' });
});

test('who closes what is closed is told so', async () => {
  const closed = (what) => new Promise((resolve) => { what.close(resolve); });
  const server = await alice.createServer().listen();
  assert.strictEqual(await closed(server), undefined);
  assert.strictEqual((await closed(server)).code, 'ERR_SERVER_NOT_RUNNING');
  assert.strictEqual((await closed(alice.createServer())).code, 'ERR_SERVER_NOT_RUNNING');
  const socket = alice.createSocket();
  assert.strictEqual(await closed(socket), undefined);
  assert.strictEqual((await closed(socket)).code, 'ERR_SOCKET_DGRAM_NOT_RUNNING');
});

test('a worker may end while it listens and connects', async () => {
  const code = `const { open } = require(${JSON.stringify(path.join(__dirname, '..'))});
    open({ network: 'ff0001ffff000000', interfaces: 'loopback', roots: '' }).then(async (node) => {
      await node.createServer().listen();
      node.connect({ host: node.addresses[0].replace(/.$/, (last) => (last === '1' ? '2' : '1')), port: 80 });
      setTimeout(() => process.exit(), 20);
    })`;
  assert.deepStrictEqual(await once(new Worker(code, { eval: true }), 'exit'), [0]);
});

test('datagrams: as of dgram, between members and to the node itself', async () => {
  const server = alice.createSocket((message, from) => {
    assert.ok(message instanceof Buffer);
    assert.strictEqual(from.size, message.length);
    server.send(message, from.port, from.address);
  });
  assert.ok(server instanceof UdpSocket);
  assert.strictEqual(server.address(), null);
  assert.strictEqual(server.bind({ port: 0, address: alice.addresses[0] }), server);
  await once(server, 'listening');
  const { address, family, port } = server.address();
  assert.deepStrictEqual([address, family], [alice.addresses[0], 'IPv6']);
  // It is bound by sending.
  const client = bob.createSocket();
  for (const [sent, wanted] of [
    ['héllo', 'héllo'], [Buffer.from('bytes'), 'bytes'], [new Uint16Array([0x6161, 0x6262]), 'aabb'],
    [['a', Buffer.from('b'), new DataView(new ArrayBuffer(1))], 'ab\0'], [new Uint8Array(0), ''],
    ['x'.repeat(60000), 'x'.repeat(60000)],
  ]) {
    const answered = once(client, 'message');
    const size = await new Promise((resolve, reject) => {
      client.send(sent, port, address, (error, size) => (error ? reject(error) : resolve(size)));
    });
    const [message, from] = await answered;
    assert.strictEqual(message.toString(), wanted);
    assert.deepStrictEqual([from.address, from.port, from.family], [address, port, 'IPv6']);
    assert.deepStrictEqual([size, from.size], [message.length, message.length]);
  }
  assert.notStrictEqual(client.address().port, 0);
  // Without an address it is the node itself.
  const own = bob.createSocket().bind(() => own.send('self', own.address().port));
  const [message] = await once(own, 'message');
  assert.strictEqual(message.toString(), 'self');
  for (const socket of [server, client, own]) {
    const closed = once(socket, 'close');
    socket.close();
    socket.close();
    await closed;
  }
});

test('more datagrams than there is room for wait, and the event loop goes on', async () => {
  const server = alice.createSocket().bind(0, alice.addresses[0]);
  await once(server, 'listening');
  let received = 0;
  server.on('message', () => { received += 1; });
  const client = bob.createSocket();
  const { address, port } = server.address();
  const data = Buffer.alloc(1000);
  const send = () => new Promise((resolve, reject) => {
    client.send(data, port, address, (error) => (error ? reject(error) : resolve()));
  });
  await Promise.all(Array.from({ length: 5000 }, send));
  while (received === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  // What waits when the socket is closed fails.
  const last = Promise.allSettled(Array.from({ length: 5000 }, send));
  client.close();
  const codes = new Set((await last).map(({ reason }) => reason?.code));
  codes.delete(undefined);
  assert.ok([...codes].every((code) => code === 'EBADF'), [...codes].join());
  server.close();
});

test('datagrams: mistakes are told', async () => {
  const socket = alice.createSocket();
  for (const [send, code] of [
    [() => socket.send('x', 70000), 'ERR_INVALID_ARG_VALUE'],
    [() => socket.send('x'), 'ERR_INVALID_ARG_VALUE'],
    [() => socket.send('x', 9, 5), 'ERR_INVALID_ARG_VALUE'],
    [() => socket.send('x', 9, 'nobody'), 'ENOTFOUND'],
    [() => socket.send(5, 9), 'ERR_INVALID_ARG_TYPE'],
    [() => socket.send({}, 9), 'ERR_INVALID_ARG_TYPE'],
  ]) {
    assert.throws(send, { code });
  }
  assert.strictEqual(socket.address(), null);
  const [foreign] = await once(socket.bind(80, bob.addresses[0]), 'error');
  assert.deepStrictEqual([foreign.code, foreign.syscall], ['EADDRNOTAVAIL', 'bind']);
  // Another attempt may do better.
  await once(socket.bind(0), 'listening');
  assert.throws(() => socket.bind(0), { code: 'ERR_SOCKET_ALREADY_BOUND' });
  const [taken] = await once(alice.createSocket().bind(socket.address().port), 'error');
  assert.strictEqual(taken.code, 'EADDRINUSE');
  // Without a callback what is too long is an event.
  const tooLong = once(socket, 'error');
  socket.send(Buffer.alloc(70000), 9, bob.addresses[0]);
  assert.deepStrictEqual((await tooLong).map(({ code, syscall }) => [code, syscall]), [['EMSGSIZE', 'send']]);
  socket.close();
  assert.throws(() => socket.send('x', 9), { code: 'ERR_SOCKET_DGRAM_NOT_RUNNING' });
  await new Promise((resolve) => alice.createSocket().close(resolve));
});

test('a socket for datagrams ends with its node, and keeps no process that does not want it', async () => {
  const code = `const { open } = require(${JSON.stringify(path.join(__dirname, '..'))});
    open({ network: 'ff0001ffff000000', interfaces: 'loopback', roots: '' }).then((node) => {
      node.createSocket().bind().unref();
    })`;
  assert.deepStrictEqual(await once(new Worker(code, { eval: true }), 'exit'), [0]);
  const node = await open({ network: 'ff00500051000000', ...settings() });
  const socket = node.createSocket().bind(80);
  const [, closed] = [await once(socket, 'listening'), once(socket, 'close')];
  await node.close();
  await closed;
});

test('the program of the README runs as it stands there', () => {
  const readme = fs.readFileSync(path.join(__dirname, '../README.md'), 'utf8');
  const [, program] = readme.match(/```js\n([^]*?)```/);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'peersock-'));
  fs.mkdirSync(path.join(folder, 'node_modules'));
  fs.symlinkSync(path.join(__dirname, '..'), path.join(folder, 'node_modules/peersock'));
  fs.writeFileSync(path.join(folder, 'program.mjs'), program);
  const run = spawnSync(process.execPath, ['program.mjs'], { cwd: folder, encoding: 'utf8' });
  fs.rmSync(folder, { recursive: true });
  assert.deepStrictEqual([run.stdout, run.stderr, run.status], ['hello\n', '', 0]);
});

test('both nodes end', async () => {
  // Some tests leave something that cannot be delivered.
  const ended = await Promise.allSettled([alice.close(), bob.close()]);
  assert.ok(ended.every(({ reason }) => reason === undefined || reason.code === 'PEERSOCK_E_TIMEOUT'), ended);
});

// What somebody has left would keep the process for ever: it fails instead, and says what it is.
setTimeout(() => {
  console.error('still there:', process.getActiveResourcesInfo());
  process.exit(1);
}, 120_000).unref();
