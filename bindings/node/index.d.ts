import { RemoteInfo } from 'node:dgram';
import { ClientRequestArgs } from 'node:http';
import { EventEmitter } from 'node:events';
import { AddressInfo, Socket as NetSocket } from 'node:net';

/** What a node is. */
export interface Config {
  /** Joined at once: the ID of an ad-hoc or managed network, 16 hexadecimal digits; an invite to a managed one; or
   * the file of a static one, which `peersock network new` makes and docs/use/NETWORKS.md describes. */
  network?: string;
  /** The passphrase of an ad-hoc network. */
  secret?: string;
  /** The directory that keeps the identity. Without it, or a seed, the identity is a fresh one. */
  state?: string;
  /** 32 secret bytes that the identity is made of. */
  seed?: Uint8Array;
  /** Network interfaces that the node may use: 'all' (the default), 'loopback', or 'eth0,wlan0'. */
  interfaces?: string;
  /** Where it can be found, in the form of PEERSOCK_ROOTS, which is the default. */
  roots?: string;
  /** TURN servers that relay to it, in the form of PEERSOCK_TURN, which is the default. */
  turn?: string;
  /** STUN servers that are asked from where they see it, in the form of PEERSOCK_STUN, which is the default. */
  stun?: string;
  /** 'off', 'public', or nodes of another DHT, in the form of PEERSOCK_DHT, which is the default. */
  dht?: string;
  /** Whether routers are asked to forward a port to it; it is so by default. */
  portMapping?: boolean;
  /** Whether direct paths are looked for by many ports; it is so by default. */
  birthday?: boolean;
  /** Whether direct paths are looked for by TCP; it is so by default. */
  tcpPunch?: boolean;
  /** Whether discovery tells others of it; it is so by default. */
  introduce?: boolean;
  /** Microseconds of polling before a wait, up to 10000; 0 is never. By default only where it pays. */
  busyPoll?: number;
  /** The only cipher: 'AES-256-GCM' or 'ChaCha20-Poly1305'. */
  onlySuite?: string;
  /** The most bytes to send, and to receive, that each stream buffers. */
  tcpBuffers?: [number, number];
  /** Its UDP port; 0, the default, lets the system choose. */
  port?: number;
  /** Whether nodes of one machine or local network find it; it is so by default. */
  discovery?: boolean;
  /** By which UDP port they do. */
  discoveryPort?: number;
}

export interface ConnectOptions {
  /** An address, or the name of a member; without it the node itself. */
  host?: string;
  port: number | string;
  /** Aborts connecting with an AbortError; a connection that stands goes on. */
  signal?: AbortSignal;
  /** Whether the own direction stays open when the other has ended. */
  allowHalfOpen?: boolean;
}

export interface ListenOptions {
  /** An address of the node; without it all. */
  host?: string;
  /** 0, the default, is one that the networks allow. */
  port?: number | string;
  /** How many connections may wait to be accepted; 511 by default. */
  backlog?: number;
}

/** Starts a node. */
export function open(config?: Config): Promise<Node>;

export class Node {
  private constructor();
  /** The node's own addresses, those to dial first. */
  readonly addresses: string[];
  /** What the node tells of itself: docs/use/STATUS.md. */
  status(): Record<string, unknown>;
  connect(options: ConnectOptions): Promise<Socket>;
  /** For http.request() and the property of an agent. */
  createConnection: (
    options: ClientRequestArgs,
    callback: (error: Error | null, socket: NetSocket) => void,
  ) => undefined;
  createServer(listener?: (socket: Socket) => void): Server;
  createServer(options: { allowHalfOpen?: boolean }, listener?: (socket: Socket) => void): Server;
  /** Makes a socket for datagrams; a listener is for 'message'. */
  createSocket(listener?: (message: Buffer, from: RemoteInfo) => void): UdpSocket;
  /** Delivers what was written, within five seconds, and stops the node. */
  close(): Promise<void>;
}

declare class BoundSocket<Event extends string, Listener> extends EventEmitter {
  protected constructor();
  address(): AddressInfo | null;
  ref(): this;
  unref(): this;
  close(callback?: (error?: Error) => void): void;
  on(event: Event, listener: Listener): this;
  on(event: 'error', listener: (error: NodeJS.ErrnoException) => void): this;
  on(event: 'listening' | 'close', listener: () => void): this;
}

export class Server extends BoundSocket<'connection', (socket: Socket) => void> {
  readonly listening: boolean;
  listen(options?: ListenOptions): Promise<this>;
}

/** Datagrams as of dgram.Socket. What still waits to be sent when it is closed fails. */
export class UdpSocket extends BoundSocket<'message', (message: Buffer, from: RemoteInfo) => void> {
  /** Binds to an address of the node, or to all; then 'listening' or 'error' is emitted. */
  bind(port?: number | string, address?: string, callback?: () => void): this;
  bind(port: number | string, callback: () => void): this;
  bind(options: { port?: number | string; address?: string }, callback?: () => void): this;
  bind(callback: () => void): this;
  /** Sends to a member's address or name, or to the node itself. A socket that is not bound becomes so. */
  send(message: Message | readonly Message[], port: number | string, callback?: Sent): void;
  send(message: Message | readonly Message[], port: number | string, address?: string, callback?: Sent): void;
}
type Message = string | NodeJS.ArrayBufferView;
type Sent = (error: Error | null, bytes: number) => void;

/** Who is at the other end of a connection, taken from its encrypted session: docs/use/IDENTITY.md. */
export interface PeerIdentity {
  readonly network: string;
  /** The node ID, which is the hash of the node's public keys. */
  readonly node: string;
  /** The node ID of the machine: another one than `node` for a program with keys of its own. */
  readonly machine: string;
  /** True if the other end is a machine without peersock, for which this member forwards packets. */
  readonly gateway: boolean;
  readonly name: string | null;
  readonly label: string | null;
  readonly tags: readonly string[];
  readonly claims: Buffer;
}

export class Socket extends NetSocket {
  private constructor();
  /** Who is at the other end. It stays when the connection has ended; undefined if the socket was destroyed before
   * anybody has asked. */
  readonly peer: PeerIdentity | undefined;
  /** As setsockopt(2), for numbers: docs/reference/SOCKETS.md. */
  setOption(level: number, option: number, value: number): this;
}
