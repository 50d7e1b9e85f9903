'use strict';
// TCP on encrypted peer-to-peer networks, as net has it. Streams are libuv's, over the library's descriptors.
const { EventEmitter } = require('node:events');
const net = require('node:net');
const { getSystemErrorName } = require('node:util');
const native = require('./build/peersock.node');

const [SOL_SOCKET, SO_REUSEADDR, SO_KEEPALIVE] = [1, 2, 9];
const [IPPROTO_TCP, TCP_NODELAY, TCP_KEEPIDLE] = [6, 1, 4];
const [EINTR, EAGAIN, EPIPE, ENETDOWN, ECONNABORTED] = [-4, -11, -32, -100, -103];
const [ECONNRESET, EINPROGRESS] = [-104, -115];
// What is scarce will be there again: memory, descriptors of the system and the process, buffers.
const FAILURES = 'OK INVALID DOWN EXISTS NOT_FOUND TIMEOUT SPACE FILE PORT SYSTEM BUG'.split(' ');
const SCARCE = [-12, -23, -24, -105];

/** An error as Node.js has it. */
function failure(syscall, errno, address, port, text) {
  const code = getSystemErrorName(errno);
  const place = address === undefined ? '' : ` ${address}:${port}`;
  const error = new Error(`${syscall} ${code}${place}${text ? ` (${text})` : ''}`);
  return Object.assign(error, { errno, code, syscall }, address === undefined ? {} : { address, port });
}

function invalid(name, wanted, Kind = TypeError) {
  return Object.assign(new Kind(`${name} must be ${wanted}`), { code: 'ERR_INVALID_ARG_VALUE' });
}

function portOf(port) {
  if (/^\d{1,5}$/.test(String(port)) && Number(port) < 65536) return Number(port);
  throw invalid('port', 'a number from 0 to 65535', RangeError);
}

/** The addresses of a member by its name, or without one those of the node itself. */
function resolve(node, host = '') {
  if (typeof host !== 'string') throw invalid('host', 'a string');
  if (net.isIP(host)) return [host];
  const { networks = [], peers = [] } = JSON.parse(native.status(node.handle));
  const is = ({ name }) => host !== '' && name?.toLowerCase() === host.toLowerCase();
  const members = [...(host === '' ? networks : networks.filter(is)), ...peers.filter(is)];
  const found = members.flatMap(({ addresses }) => addresses);
  if (found.length > 0 || host === '') return found;
  const what = { errno: -3008, code: 'ENOTFOUND', syscall: 'getaddrinfo', hostname: host };
  throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), what);
}

/** Sockets are all of IPv6, where addresses of IPv4 are mapped. */
function mapped(address) {
  return net.isIPv4(address) ? `::ffff:${address}` : address;
}

function addressOf(fd, ofPeer) {
  const [text, port] = native.name(fd, Number(ofPeer)).split(' ');
  const address = text.replace(/^::ffff:(?=.*\.)/, '');
  return address ? { address, family: net.isIPv4(address) ? 'IPv4' : 'IPv6', port: Number(port) } : {};
}

/** Opens a socket that does not collect small writes. What a listener accepts has its options. */
function openSocket(node) {
  const fd = native.socket(node.handle);
  if (fd < 0) throw failure('socket', fd);
  native.option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  return fd;
}

/** A connection: a net.Socket whose addresses and options are those of the overlay. */
class Socket extends net.Socket {
  #fd;
  #local;
  #remote;

  constructor(fd, options) {
    super({ ...options, fd, readable: true, writable: true });
    [this.#fd, this.#local, this.#remote] = [fd, addressOf(fd, false), addressOf(fd, true)];
  }

  get localAddress() { return this.#local.address; }
  get localFamily() { return this.#local.family; }
  get localPort() { return this.#local.port; }
  get remoteAddress() { return this.#remote.address; }
  get remoteFamily() { return this.#remote.family; }
  get remotePort() { return this.#remote.port; }

  address() { return { ...this.#local }; }

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
      const reason = native.outcome(this.#fd);
      if (![0, EPIPE, ECONNRESET, EINPROGRESS].includes(reason)) error = failure(error.syscall, reason);
    }
    super._destroy(error, callback);
  }
}

/** Accepts connections, and emits each as 'connection'. */
class Server extends EventEmitter {
  #node;
  #options;
  #fd = -1;
  #watch;
  #pause;

  constructor(node, options, listener) {
    super();
    [this.#node, this.#options] = [node, options];
    if (listener) this.on('connection', listener);
  }

  get listening() { return this.#fd >= 0; }

  async listen({ host = '::', port = 0, backlog = 511 } = {}) {
    const twice = { code: 'ERR_SERVER_ALREADY_LISTEN' };
    if (this.listening) throw Object.assign(new Error('it listens already'), twice);
    const [wanted, [address]] = [portOf(port), resolve(this.#node, host)];
    const fd = openSocket(this.#node);
    native.option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    const result = native.bind(fd, mapped(address), wanted) || native.listen(fd, backlog);
    if (result < 0) {
      const text = getSystemErrorName(result) === 'EACCES' ? native.lastError() : '';
      native.close(fd, 0);
      throw failure('listen', result, address, wanted, text);
    }
    this.#fd = fd;
    this.#start();
    this.#node.servers.add(this);
    this.emit('listening');
    return this;
  }

  address() { return this.listening ? addressOf(this.#fd, false) : null; }

  ref() { native.hold(this.#watch, 1); return this; }
  unref() { native.hold(this.#watch, 0); return this; }

  close() {
    if (!this.listening) return;
    native.unwatch(this.#watch);
    native.close(this.#fd, 1);
    clearTimeout(this.#pause);
    [this.#fd, this.#watch] = [-1, undefined];
    this.#node.servers.delete(this);
    process.nextTick(() => this.emit('close'));
  }

  #start() {
    const watch = native.watch(this.#fd, 0, () => this.#accept());
    if (typeof watch !== 'number') return void (this.#watch = watch);
    this.close();
    process.nextTick(() => this.emit('error', failure('listen', watch)));
  }

  #accept() {
    // Others have their turn after some.
    for (let i = 0; i < 64 && this.listening; i++) {
      const fd = native.accept(this.#fd);
      if (fd >= 0) {
        this.emit('connection', new Socket(fd, this.#options));
      } else if (SCARCE.includes(fd)) {
        native.unwatch(this.#watch);
        this.#watch = undefined;
        this.#pause = setTimeout(() => this.#start(), 100);
        return;
      } else if (fd === EAGAIN) {
        return;
      } else if (fd !== EINTR && fd !== ECONNABORTED) {
        this.close();
        this.emit('error', failure('accept', fd));
      }
    }
  }
}

/** A member of networks, which open() gives. */
class Node {
  #node;

  constructor(handle) {
    this.#node = { handle, servers: new Set() };
  }

  /** What the node tells of itself; docs/STATUS.md describes it. */
  status() { return JSON.parse(native.status(this.#node.handle)); }

  /** The node's own addresses, those to dial first. */
  get addresses() { return resolve(this.#node); }

  /** Connects to a member by its address or its name, unless the signal aborts it before. */
  async connect({ host, port, signal, allowHalfOpen } = {}) {
    let first;
    const wanted = portOf(port);
    for (const address of resolve(this.#node, host)) {
      if (signal?.aborted) throw aborted(signal);
      try {
        return await dial(this.#node, address, wanted, signal, { allowHalfOpen });
      } catch (error) {
        first ??= error;
      }
    }
    throw first ?? failure('connect', ENETDOWN);
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

  /** Delivers what was written, within five seconds, and stops the node. Open connections are reset. */
  async close() {
    for (const server of this.#node.servers) server.close();
    check(await native.stop(this.#node.handle));
  }
}

/** Connects to one address. */
function dial(node, address, port, signal, options) {
  const fd = openSocket(node);
  return new Promise((resolve, reject) => {
    let watch;
    const abort = () => settle(0, aborted(signal));
    const settle = (result, error) => {
      native.unwatch(watch);
      signal?.removeEventListener('abort', abort);
      if (!error && result === 0) return resolve(new Socket(fd, options));
      native.close(fd, 0);
      return reject(error ?? failure('connect', result, address, port));
    };
    const begun = native.connect(fd, mapped(address), port);
    if (begun !== EINPROGRESS && begun !== EINTR) return settle(begun);
    signal?.addEventListener('abort', abort);
    watch = native.watch(fd, 1, () => {
      const result = native.outcome(fd);
      if (result !== EINPROGRESS) settle(result);
    });
    // The system has no room to watch it.
    if (typeof watch === 'number') settle(watch);
  });
}

function aborted(signal) {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  return Object.assign(error, { name: 'AbortError', code: 'ABORT_ERR' });
}

/** Gives what a call of the node has given, or throws. */
function check([result, value, text]) {
  if (result === 0) return value;
  throw Object.assign(new Error(text), { code: `PEERSOCK_E_${FAILURES[result] ?? result}` });
}

/** Starts a node, and joins a network if one is named. */
async function open(config = {}) {
  const { network, secret, state, seed, interfaces, roots, turn } = config;
  for (const [name, value] of Object.entries({ network, secret, state, interfaces, roots, turn })) {
    const isText = typeof value === 'string' && !value.includes('\0');
    if (value !== undefined && !isText) throw invalid(name, 'a string');
  }
  const isSeed = seed instanceof Uint8Array && state === undefined;
  if (seed !== undefined && !isSeed) throw invalid('seed', '32 bytes, without a state');
  const { port = 0, discoveryPort = 0, discovery = true } = config;
  const numbers = [portOf(port), portOf(discoveryPort), Number(Boolean(discovery))];
  const texts = [state, interfaces, roots, turn];
  return new Node(check(await native.open(network, secret, seed, ...numbers, ...texts)));
}

module.exports = { open, Node, Server, Socket };
