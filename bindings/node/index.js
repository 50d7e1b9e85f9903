'use strict';
// TCP and UDP on encrypted peer-to-peer networks, as net and dgram have them. Streams are libuv's, over the
// library's descriptors.
const { EventEmitter, once } = require('node:events');
const net = require('node:net');
const { errno: ERRNO } = require('node:os').constants;
const { getSystemErrorName } = require('node:util');
const native = require('./build/peersock.node');

const [SOCK_STREAM, SOCK_DGRAM, READABLE, WRITABLE, DISCONNECT] = [1, 2, 1, 2, 4];
const [SOL_SOCKET, SO_KEEPALIVE] = [1, 9];
const [IPPROTO_TCP, TCP_NODELAY, TCP_KEEPIDLE] = [6, 1, 4];
const FAILURES = 'OK INVALID DOWN EXISTS NOT_FOUND TIMEOUT SPACE FILE PORT SYSTEM BUG'.split(' ');
// What is scarce will be there again: memory, descriptors of the system and the process, buffers.
const SCARCE = ['ENOMEM', 'ENFILE', 'EMFILE', 'ENOBUFS'];

/** Whether a call has failed with one of these errors. */
function isOne(result, ...codes) {
  return codes.some((code) => result === -ERRNO[code]);
}

/** An error as Node.js has it. */
function failure(syscall, errno, address, port, text) {
  const code = getSystemErrorName(errno);
  const place = address === undefined ? '' : ` ${address}:${port}`;
  const error = new Error(`${syscall} ${code}${place}${text ? ` (${text})` : ''}`);
  return coded(error, code, { errno, syscall, ...(address !== undefined && { address, port }) });
}

function coded(error, code, more) {
  return Object.assign(error, { code }, more);
}

function invalid(name, wanted, Kind = TypeError) {
  return coded(new Kind(`${name} must be ${wanted}`), 'ERR_INVALID_ARG_VALUE');
}

function portOf(port) {
  if (/^\d{1,5}$/.test(String(port)) && Number(port) < 65536) return Number(port);
  throw invalid('port', 'a number from 0 to 65535', RangeError);
}

/** The addresses of a member by its name, or without one those of the node itself. */
function resolve(node, host = '') {
  if (typeof host !== 'string' || host.includes('\0')) throw invalid('host', 'a string without zeros');
  if (net.isIP(host)) return [host];
  const [result, text] = native.lookup(node.handle, host);
  if (result === 0) return text.split(' ').filter(Boolean);
  if (host === '') return [];
  const what = { errno: -3008, syscall: 'getaddrinfo', hostname: host };
  throw coded(new Error(`getaddrinfo ENOTFOUND ${host}`), 'ENOTFOUND', what);
}

/** Sockets are all of IPv6, where addresses of IPv4 are mapped. */
function mapped(address) {
  return net.isIPv4(address) ? `::ffff:${address}` : address;
}

/** What a call has found: [result, address, port]. */
function addressOf(found) {
  if (typeof found === 'number') return {};
  const address = found[1].replace(/^::ffff:(?=.*\.)/, '');
  return { address, family: net.isIPv4(address) ? 'IPv4' : 'IPv6', port: found[2] };
}

/** Calls back as long as a descriptor is ready, until native.unwatch(); or closes it, if that cannot be. */
function watch(fd, events, callback) {
  const watching = native.watch(fd, events, callback);
  if (typeof watching !== 'number') return watching;
  native.close(fd);
  throw failure('epoll_ctl', watching);
}

/** A connection: a net.Socket whose addresses and options are those of the overlay. */
class Socket extends net.Socket {
  #fd;
  #local;
  #remote;
  #peer;

  constructor(fd, options) {
    super({ ...options, fd, readable: true, writable: true });
    [this.#fd, this.#local, this.#remote] = [fd, addressOf(native.name(fd)), addressOf(native.peer(fd))];
  }

  // net.Socket gives parts of these as localAddress, remotePort and so on.
  _getsockname() { return { ...this.#local }; }
  _getpeername() { return { ...this.#remote }; }

  /** Who is at the other end, as of when the connection was established: see index.d.ts. */
  get peer() {
    if (this.#peer === undefined && !this.destroyed) {
      const found = native.identity(this.#fd);
      if (typeof found === 'number') throw failure('getsockopt', found);
      const { claims, tags, ...others } = JSON.parse(found[1]);
      this.#peer = Object.freeze({ ...others, tags: Object.freeze(tags), claims: Buffer.from(claims, 'hex') });
    }
    return this.#peer;
  }

  setNoDelay(on = true) { return this.setOption(IPPROTO_TCP, TCP_NODELAY, Number(Boolean(on))); }

  setKeepAlive(on = false, delay = 0) {
    if (delay >= 1000) this.setOption(IPPROTO_TCP, TCP_KEEPIDLE, Math.floor(delay / 1000));
    return this.setOption(SOL_SOCKET, SO_KEEPALIVE, Number(Boolean(on)));
  }

  /** As setsockopt(2), for numbers. Once the socket is destroyed it does nothing. */
  setOption(level, option, value) {
    // What has ended meanwhile needs no option.
    if (!this.destroyed) native.option(this.#fd, level, option, value);
    return this;
  }

  _destroy(error, callback) {
    if (#fd in this && (error?.code === 'ECONNRESET' || error?.code === 'EPIPE')) {
      // That is all that the kernel knows. The node may have another reason.
      const reason = -native.reason(this.#fd, -error.errno);
      if (reason !== error.errno) error = failure(error.syscall, reason);
    }
    super._destroy(error, callback);
  }
}

/** A socket that is bound, and emits what comes to it. */
class BoundSocket extends EventEmitter {
  #kind;
  #watching;
  _fd = -1;

  constructor(node, kind, event, listener) {
    super();
    [this._node, this.#kind] = [node, kind];
    if (listener) this.on(event, listener);
  }

  /** Opens the socket, and takes what comes as long as _take() gives true. */
  _open(syscall, host, port, backlog = 0) {
    const [wanted, [address]] = [portOf(port), resolve(this._node, host)];
    if (!address) throw failure(syscall, -ERRNO.EADDRNOTAVAIL, host, wanted);
    const [fd, text] = native.listen(this._node.handle, this.#kind, wanted, backlog, address);
    if (fd < 0) throw failure(syscall, fd, address, wanted, isOne(fd, 'EACCES') ? text : '');
    this.#watching = watch(fd, READABLE, () => {
      // Others have their turn after some.
      for (let i = 0; i < 64 && this._fd >= 0 && this._take();) i += 1;
    });
    this._fd = fd;
    this._node.bound.add(this);
  }

  /** Has _take() called for other events from now on. */
  _await(events) { native.awaitEvents(this.#watching, events); }

  /** Nothing comes any more. */
  _fail(error) {
    this.close();
    this.emit('error', error);
  }

  address() { return this._fd >= 0 ? addressOf(native.name(this._fd)) : null; }

  ref() { native.hold(this.#watching, 1); return this; }
  unref() { native.hold(this.#watching, 0); return this; }

  close(callback) {
    if (this._fd < 0) {
      const code = this.#kind === SOCK_STREAM ? 'ERR_SERVER_NOT_RUNNING' : 'ERR_SOCKET_DGRAM_NOT_RUNNING';
      if (callback) process.nextTick(callback, coded(new Error('it is not open'), code));
      return;
    }
    if (callback) this.once('close', callback);
    native.unwatch(this.#watching);
    if (this.#kind === SOCK_STREAM) native.unlisten(this._fd);
    native.close(this._fd);
    [this._fd, this.#watching] = [-1, undefined];
    this._node.bound.delete(this);
    process.nextTick(() => this.emit('close'));
  }
}
/** Accepts connections, and emits each as 'connection'. */
class Server extends BoundSocket {
  #options;
  #pause;

  constructor(node, options, listener) {
    super(node, SOCK_STREAM, 'connection', listener);
    this.#options = options;
  }

  get listening() { return this._fd >= 0; }

  async listen({ host = '::', port = 0, backlog = 511 } = {}) {
    if (this.listening) throw coded(new Error('it listens already'), 'ERR_SERVER_ALREADY_LISTEN');
    this._open('listen', host, port, backlog);
    this.emit('listening');
    return this;
  }

  close(callback) {
    clearTimeout(this.#pause);
    super.close(callback);
  }

  _take() {
    const fd = native.accept(this._fd);
    if (fd >= 0) {
      this.emit('connection', new Socket(fd, this.#options));
    } else if (isOne(fd, ...SCARCE)) {
      this._await(0);
      this.#pause = setTimeout(() => this._await(READABLE), 100);
    } else if (!isOne(fd, 'EAGAIN', 'EINTR', 'ECONNABORTED')) {
      this._fail(failure('accept', fd));
    }
    return fd >= 0 || isOne(fd, 'EINTR', 'ECONNABORTED');
  }
}

function bytesOf(part) {
  if (typeof part === 'string') return Buffer.from(part);
  return Buffer.from(part.buffer, part.byteOffset, part.byteLength);
}

/** Datagrams as of dgram.Socket: each is emitted as 'message'. */
class UdpSocket extends BoundSocket {
  #waiting = [];
  #isClosed = false;
  #room = Buffer.allocUnsafeSlow(65536);

  constructor(node, listener) { super(node, SOCK_DGRAM, 'message', listener); }

  bind(...args) {
    const callback = args.findLast((arg) => typeof arg === 'function');
    const [first, second] = args.filter((arg) => typeof arg !== 'function');
    const { port = 0, address = '::' } = typeof first === 'object' ? first : { port: first, address: second };
    if (this.#isClosed) throw coded(new Error('it is closed'), 'ERR_SOCKET_DGRAM_NOT_RUNNING');
    if (this._fd >= 0) throw coded(new Error('it is bound already'), 'ERR_SOCKET_ALREADY_BOUND');
    if (callback) this.once('listening', callback);
    try {
      this._open('bind', address, port);
      process.nextTick(() => this.emit('listening'));
    } catch (error) {
      process.nextTick(() => this.emit('error', error));
    }
    return this;
  }

  send(message, port, address, callback) {
    if (typeof address === 'function') return this.send(message, port, undefined, address);
    const wanted = portOf(port);
    const data = Array.isArray(message) ? Buffer.concat(message.map(bytesOf)) : bytesOf(message);
    const [host] = resolve(this._node, address);
    if (this._fd < 0) this.bind();
    this.#waiting.push({ data, host, port: wanted, callback });
    if (this.#waiting.length === 1) this.#flush();
  }

  /** Sends until there is no room; goes on when there is some. */
  #flush() {
    while (this.#waiting.length > 0) {
      const { data, host, port, callback } = this.#waiting[0];
      const sent = native.send(this._fd, port, mapped(host), data);
      if (isOne(sent, 'EAGAIN', 'EINTR')) return this._await(READABLE | WRITABLE);
      this.#waiting.shift();
      const error = sent < 0 ? failure('send', sent, host, port) : null;
      const report = callback ?? ((error) => error && !this.#isClosed && this.emit('error', error));
      process.nextTick(report, error, data.length);
    }
  }

  close(callback) {
    const neverBound = this._fd < 0 && !this.#isClosed;
    if (neverBound && callback) this.once('close', callback);
    super.close(neverBound ? undefined : callback);
    if (neverBound) process.nextTick(() => this.emit('close'));
    this.#isClosed = true;
    // What is still waiting is not sent, and fails.
    this.#flush();
  }

  _take() {
    if (this.#waiting.length > 0) {
      this._await(READABLE);
      this.#flush();
    }
    const found = native.receive(this._fd, this.#room);
    if (typeof found !== 'number') {
      const message = Buffer.from(this.#room.subarray(0, found[0]));
      this.emit('message', message, { ...addressOf(found), size: message.length });
    } else if (!isOne(found, 'EAGAIN', 'EINTR')) {
      this._fail(failure('recvfrom', found));
    }
    return typeof found !== 'number' || isOne(found, 'EINTR');
  }
}

/** A member of networks, which open() gives. */
class Node {
  #node;

  constructor(handle) {
    this.#node = { handle, bound: new Set() };
  }

  /** What the node tells of itself; docs/use/STATUS.md describes it. */
  status() {
    const [result, text] = native.status(this.#node.handle);
    return result === 0 ? JSON.parse(text) : {};
  }

  /** The node's own addresses, those to dial first. */
  get addresses() { return resolve(this.#node); }

  /** Connects to a member by its address or its name, unless the signal aborts it before. */
  async connect({ host, port, signal, allowHalfOpen } = {}) {
    let first;
    const wanted = portOf(port);
    for (const address of resolve(this.#node, host)) {
      try {
        return new Socket(await dial(this.#node, address, wanted, signal), { allowHalfOpen });
      } catch (error) {
        if (signal?.aborted) throw error;
        first ??= error;
      }
    }
    throw first ?? failure('connect', -ERRNO.ENETDOWN);
  }

  /** The same with a callback: for the option createConnection of http.request(), and for agents. */
  createConnection = (options, callback) => {
    const done = (...results) => process.nextTick(callback, ...results);
    this.connect(options).then((socket) => done(null, socket), done);
  };

  /** Makes a server as net.createServer() does. For http, connections have to be half open. */
  createServer(options, listener) {
    if (typeof options === 'function') return new Server(this.#node, {}, options);
    return new Server(this.#node, { allowHalfOpen: options?.allowHalfOpen }, listener);
  }

  /** Makes a socket for datagrams as dgram.createSocket() does. */
  createSocket(listener) { return new UdpSocket(this.#node, listener); }

  /** Delivers what was written, within five seconds, and stops the node. Open connections are reset. */
  async close() {
    for (const socket of this.#node.bound) socket.close();
    check(await native.stop(this.#node.handle));
  }
}

/** Connects to one address. */
async function dial(node, address, port, signal) {
  const events = new EventEmitter();
  // Who has aborted it already begins nothing.
  if (signal?.aborted) await once(events, 'ready', { signal });
  const fd = native.dial(node.handle, SOCK_STREAM, port, address);
  if (fd < 0) throw failure('connect', fd, address, port);
  const watching = watch(fd, WRITABLE | DISCONNECT, () => events.emit('ready'));
  try {
    let result = native.connected(fd);
    while (isOne(result, 'EINPROGRESS')) {
      await once(events, 'ready', { signal });
      result = native.connected(fd);
    }
    if (result < 0) throw failure('connect', result, address, port);
    native.unwatch(watching);
    return fd;
  } catch (error) {
    native.unwatch(watching);
    native.close(fd);
    throw error;
  }
}

/** Gives what a call of the node has given, or throws. */
function check([result, text, value]) {
  if (result === 0) return value;
  throw coded(new Error(text), `PEERSOCK_E_${FAILURES[result] ?? result}`);
}

// Settings that are on by default, and those that the library checks; docs/reference/SETTINGS.md has all.
const SWITCHES = ['discovery', 'introduce', 'portMapping', 'birthday', 'tcpPunch'];
const CHECKED = ['busyPoll', 'tcpBuffers'];

/** Starts a node, and joins a network if one is named. */
async function open({ port = 0, discoveryPort = 0, seed, ...others } = {}) {
  const isSeed = seed instanceof Uint8Array && others.state === undefined;
  if (seed !== undefined && !isSeed) throw invalid('seed', '32 bytes, without a state');
  const settings = { port: portOf(port), discovery_port: portOf(discoveryPort) };
  if (seed) settings.seed = Buffer.from(seed).toString('hex');
  for (const [name, value] of Object.entries(others)) {
    const isSwitch = SWITCHES.includes(name);
    const isText = typeof value === 'string' && !value.includes('\0');
    // What is on by default is left out: a build may lack it.
    if (value === undefined || (isSwitch && value)) continue;
    if (!isSwitch && !isText && !CHECKED.includes(name)) throw invalid(name, 'a string');
    settings[name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)] = isSwitch ? false : value;
  }
  return new Node(check(await native.start(JSON.stringify(settings))));
}

module.exports = { open, Node, Server, Socket, UdpSocket };
