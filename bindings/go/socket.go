package peersock

/*
#include <arpa/inet.h>
#include <errno.h>
#include <peersock.h>

// Calls that give a negative errno when they fail. All sockets are of IPv6, with addresses of IPv4 mapped.
typedef struct sockaddr_in6 address;
#define FROM(a) (struct sockaddr *)(a), &(socklen_t){sizeof *(a)}
static int result(ssize_t n) { return n < 0 ? -errno : (int)n; }
static int ps_connected(int fd) { return result(peersock_connected(fd)); }
static int ps_name(int fd, address *a) { return result(peersock_getsockname(fd, FROM(a))); }
static int ps_set(int fd, int level, int option, int value) {
    return result(peersock_setsockopt(fd, level, option, &value, sizeof value));
}
static int ps_peer(int fd, char *json, socklen_t size) {
    return peersock_getsockopt(fd, 0x7073, 1, json, &size) < 0 ? -errno : (int)size;
}
static int ps_accept(int fd, address *a) {
    return result(peersock_accept4(fd, FROM(a), SOCK_NONBLOCK | SOCK_CLOEXEC));
}
static int ps_recv(int fd, uint8_t *data, size_t size, address *a) {
    return result(peersock_recvfrom(fd, data, size, 0, FROM(a)));
}
static int ps_send(int fd, const uint8_t *data, size_t size, const address *a) {
    return result(peersock_sendto(fd, data, size, 0, (const struct sockaddr *)a, a ? sizeof *a : 0));
}
// Has the node refuse connections at once, and not when it hears that the listener is closed.
static void ps_unlisten(int fd) {
    peersock_connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr));
}
*/
import "C"

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Dial connects as [Node.DialContext] does, however long it takes.
func (n *Node) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

// DialContext connects to a member by its address or name, as "alpha:80", unless ctx is done before: in the
// network "tcp", "tcp4" or "tcp6" it gives a [*Conn], in "udp", "udp4" or "udp6" a [*PacketConn].
func (n *Node) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return as[net.Conn](n.open(ctx, "dial", " tcp tcp4 tcp6 udp udp4 udp6 ", network, address))
}

// Listen waits for streams at an address of the node, in the network "tcp", "tcp4" or "tcp6". ":80" stands
// for all its addresses, and port 0 for one that is allowed.
func (n *Node) Listen(network, address string) (net.Listener, error) {
	return as[net.Listener](n.open(context.Background(), "listen", " tcp tcp4 tcp6 ", network, address))
}

// ListenPacket opens a socket for datagrams at such an address, in the network "udp", "udp4" or "udp6".
func (n *Node) ListenPacket(network, address string) (net.PacketConn, error) {
	return as[net.PacketConn](n.open(context.Background(), "listen", " udp udp4 udp6 ", network, address))
}

// as gives what was opened as the interface that it has, nil if nothing was.
func as[T any](opened any, err error) (T, error) {
	wanted, _ := opened.(T)
	return wanted, err
}

// open tries the addresses that a text stands for, in turn.
func (n *Node) open(ctx context.Context, op, networks, network, address string) (any, error) {
	all, err := n.resolve(ctx, op, network, address)
	if len(network) > 4 || !strings.Contains(networks, " "+network+" ") {
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, opError(op, network, nil, nil, err)
	}
	open := n.listen
	if op == "dial" {
		open = n.dial
	}
	for _, to := range all {
		switch s, failure := open(ctx, network, to); {
		case failure != nil && err == nil:
			err = opError(op, network, nil, netAddr(network, to), failure)
		case failure != nil:
		case network[0] == 'u':
			return &PacketConn{s}, nil
		case op == "listen":
			return &Listener{s}, nil
		default:
			return &Conn{s}, nil
		}
	}
	return nil, err
}

// resolve gives what "name:80" or "[fd12::1]:80" stands for. Names are those of members; without a host it is
// the wildcard, or to dial the node itself.
func (n *Node) resolve(ctx context.Context, op, network, address string) (all []netip.AddrPort, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	v4, found := strings.HasSuffix(network, "4"), []netip.Addr{netip.IPv6Unspecified()}
	if host != "" || op == "dial" {
		found = n.lookup(host)
	} else if v4 {
		found[0] = netip.IPv4Unspecified()
	}
	for _, ip := range found {
		if len(network) == 3 || v4 == ip.Is4() {
			all = append(all, netip.AddrPortFrom(ip, uint16(port)))
		}
	}
	if all == nil {
		err = &net.DNSError{Err: "no member has this name and such an address", Name: host, IsNotFound: true}
	}
	return all, err
}

// listen opens a socket of an address, which accepts if it is for streams.
func (n *Node) listen(_ context.Context, network string, local netip.AddrPort) (*socket, error) {
	runtime.LockOSThread() // the text of a failure is the thread's
	defer runtime.UnlockOSThread()
	host, port, family := text(local.Addr().String()), C.uint16_t(local.Port()), C.int(C.AF_UNSPEC)
	if strings.HasSuffix(network, "6") {
		family = C.AF_INET6
	}
	fd, err := C.peersock_listen_at(n.handle, family, kind(network), host, port, C.SOMAXCONN)
	if err == syscall.EACCES {
		err = fmt.Errorf("%w: %s", err, C.GoString(C.peersock_last_error()))
	}
	return adopt("bind", fd, err, network, nil)
}

// dial waits, as long as ctx allows, until a socket is connected.
func (n *Node) dial(ctx context.Context, network string, to netip.AddrPort) (*socket, error) {
	host, port := text(to.Addr().String()), C.uint16_t(to.Port())
	fd, err := C.peersock_dial(n.handle, C.AF_UNSPEC, kind(network), host, port)
	s, err := adopt("connect", fd, err, network, netAddr(network, to))
	if err != nil {
		return nil, err
	}
	connected := make(chan error, 1)
	go func() {
		_, err := wait(s.raw.Write, "connect", func(fd C.int) C.int { return C.ps_connected(fd) })
		connected <- err
	}()
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// kind says what a network's sockets are for the library.
func kind(network string) C.int {
	if network[0] == 'u' {
		return C.SOCK_DGRAM | C.SOCK_NONBLOCK | C.SOCK_CLOEXEC
	}
	return C.SOCK_STREAM | C.SOCK_NONBLOCK | C.SOCK_CLOEXEC
}

// socket is a descriptor that the runtime waits for.
type socket struct {
	unixConn      // what it is for the kernel
	raw           syscall.RawConn
	network       string
	local, remote net.Addr
}

type unixConn interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// adopt gives the runtime the descriptor that a call has given. It must be bound before: the library puts
// another socket under it for that, and the runtime would go on waiting for the first.
func adopt(call string, fd C.int, err error, network string, remote net.Addr) (*socket, error) {
	if fd < 0 {
		return nil, os.NewSyscallError(call, err)
	}
	file := os.NewFile(uintptr(fd), network)
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	var local C.address
	C.ps_name(fd, &local)
	s := &socket{unixConn: conn.(unixConn), network: network, local: decode(network, &local), remote: remote}
	s.raw, err = s.SyscallConn()
	return s, err
}

// wait repeats a call, by RawConn.Read or Write, until it has nothing more to wait for.
func wait(ready func(func(uintptr) bool) error, name string, call func(fd C.int) C.int) (int, error) {
	var n C.int
	err := ready(func(fd uintptr) bool {
		for n = call(C.int(fd)); n == -C.EINTR; {
			n = call(C.int(fd))
		}
		return n != -C.EAGAIN && n != -C.EINPROGRESS
	})
	if err == nil && n < 0 {
		return 0, os.NewSyscallError(name, syscall.Errno(-n))
	}
	return int(n), err
}

// LocalAddr gives the socket's own address, a *net.TCPAddr or *net.UDPAddr.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr gives the address of the other end, nil if there is none.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetOption sets an option as setsockopt(2) does; docs/reference/SOCKETS.md lists them.
func (s *socket) SetOption(level, option, value int) error {
	once := func(call func(uintptr) bool) error { return s.raw.Control(func(fd uintptr) { call(fd) }) }
	_, err := wait(once, "setsockopt", func(fd C.int) C.int {
		return C.ps_set(fd, C.int(level), C.int(option), C.int(value))
	})
	return s.failed("set", err)
}

// PeerIdentity is who is at the other end of a connection, taken from its encrypted session. In a managed network
// a controller has signed the name, the tags and the claims; docs/use/IDENTITY.md has more.
type PeerIdentity struct {
	Network string // ID of the network
	Node    string // node ID, the hash of the node's public keys
	Machine string // node ID of the machine: another one for a program with keys of its own
	Gateway bool   // whether it is a machine without peersock, for which this member forwards packets
	Name    string // name of the machine, empty in networks without names
	Label   string // label of such a program, as "web" in "web.alpha"
	Tags    []string
	Claims  []byte // bytes for programs, which peersock does not read
}

// Peer tells who is at the other end, as of when the connection was established, also after its end. Of a
// [*PacketConn] it tells who has the address to which that is connected.
func (s *socket) Peer() (*PeerIdentity, error) {
	buffer := make([]byte, 1024)
	once := func(call func(uintptr) bool) error { return s.raw.Control(func(fd uintptr) { call(fd) }) }
	length, err := wait(once, "getsockopt", func(fd C.int) C.int {
		return C.ps_peer(fd, (*C.char)(unsafe.Pointer(&buffer[0])), C.socklen_t(len(buffer)))
	})
	if err != nil {
		return nil, opError("get", s.network, s.local, s.remote, err)
	}
	return parsePeer(buffer[:length])
}

// parsePeer reads the JSON of an identity.
func parsePeer(text []byte) (*PeerIdentity, error) {
	var told struct {
		PeerIdentity
		Claims string
	}
	if err := json.Unmarshal(text, &told); err != nil {
		return nil, err
	}
	claims, err := hex.DecodeString(told.Claims)
	told.PeerIdentity.Claims = claims
	return &told.PeerIdentity, err
}

// failed says of an error which socket it is of, and why, which the node may know better than the kernel.
func (s *socket) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if call := new(os.SyscallError); errors.As(err, &call) {
		s.raw.Control(func(fd uintptr) {
			if errno, is := call.Err.(syscall.Errno); is {
				call.Err = syscall.Errno(C.peersock_reason(C.int(fd), C.int(errno)))
			}
		})
	}
	if s.remote == nil {
		return opError(op, s.network, nil, s.local, err)
	}
	return opError(op, s.network, s.local, s.remote, err)
}

func opError(op, network string, source, to net.Addr, err error) error {
	var inner *net.OpError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: network, Source: source, Addr: to, Err: err}
}

// Conn is a stream, as *net.TCPConn.
type Conn struct{ *socket }

// Read reads what is there, and waits if there is nothing.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.unixConn.Read(b)
	return n, c.failed("read", err)
}

// Write writes everything, and waits for room.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.unixConn.Write(b)
	return n, c.failed("write", err)
}

// Listener accepts streams, as *net.TCPListener.
type Listener struct{ s *socket }

// Accept waits for a stream, which is a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	var from C.address
	fd, err := wait(l.s.raw.Read, "accept", func(fd C.int) C.int { return C.ps_accept(fd, &from) })
	if errors.Is(err, syscall.EINVAL) {
		err = net.ErrClosed // which is just happening
	}
	if err == nil {
		var s *socket
		if s, err = adopt("accept", C.int(fd), nil, l.s.network, decode(l.s.network, &from)); err == nil {
			return &Conn{s}, nil
		}
	}
	return nil, l.s.failed("accept", err)
}

// Close stops listening; Accept fails with net.ErrClosed.
func (l *Listener) Close() error {
	l.s.raw.Control(func(fd uintptr) { C.ps_unlisten(C.int(fd)) })
	return l.s.failed("close", l.s.Close())
}

// Addr gives the address that it listens at, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.s.local }

// SetDeadline says until when Accept may wait.
func (l *Listener) SetDeadline(t time.Time) error { return l.s.SetDeadline(t) }

// PacketConn is a socket for datagrams, as *net.UDPConn.
type PacketConn struct{ *socket }

// ReadFrom waits for a datagram, and gives as much of it as b has room for, and who has sent it.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	var from C.address
	n, err := wait(c.raw.Read, "recvfrom", func(fd C.int) C.int {
		return C.ps_recv(fd, pointer(b), C.size_t(len(b)), &from)
	})
	if err != nil {
		return 0, nil, c.failed("read", err)
	}
	return n, decode(c.network, &from), nil
}

// WriteTo sends a datagram to a *net.UDPAddr.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if c.remote != nil {
		return 0, c.failed("write", net.ErrWriteToConnected)
	} else if !ok || !udp.AddrPort().IsValid() {
		return 0, c.failed("write", syscall.EINVAL)
	}
	return c.send(b, encode(udp.AddrPort()))
}

// Read waits for a datagram of whom the socket is connected to.
func (c *PacketConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

// Write sends a datagram to whom the socket is connected to.
func (c *PacketConn) Write(b []byte) (int, error) { return c.send(b, nil) }

func (c *PacketConn) send(b []byte, to *C.address) (int, error) {
	n, err := wait(c.raw.Write, "sendto", func(fd C.int) C.int {
		return C.ps_send(fd, pointer(b), C.size_t(len(b)), to)
	})
	return n, c.failed("write", err)
}

// Pointers to bytes are passed as they are: of others cgo looks at all of the object that they point into.
func pointer(b []byte) *C.uint8_t {
	if len(b) == 0 {
		return nil
	}
	return (*C.uint8_t)(unsafe.Pointer(&b[0]))
}

func encode(address netip.AddrPort) *C.address {
	raw := &C.address{sin6_family: C.AF_INET6, sin6_port: C.htons(C.uint16_t(address.Port()))}
	*(*[16]byte)(unsafe.Pointer(&raw.sin6_addr)) = address.Addr().As16()
	return raw
}

func decode(network string, raw *C.address) net.Addr {
	ip := netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&raw.sin6_addr)))
	return netAddr(network, netip.AddrPortFrom(ip.Unmap(), uint16(C.ntohs(raw.sin6_port))))
}

// netAddr gives an address as package net has it.
func netAddr(network string, address netip.AddrPort) net.Addr {
	if network[0] == 'u' {
		return net.UDPAddrFromAddrPort(address)
	}
	return net.TCPAddrFromAddrPort(address)
}
