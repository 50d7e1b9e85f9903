package peersock

/*
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <peersock.h>
#include <poll.h>
#include <unistd.h>

// The library's calls, which give a negative errno when they fail. All sockets are of IPv6, with addresses of
// IPv4 mapped. As those of package net, streams do not collect small writes, nor wait for old ones at a port.
typedef struct sockaddr_in6 address;
#define TO(a) (const struct sockaddr *)(a), (a) ? sizeof *(a) : 0
#define FROM(a) (struct sockaddr *)(a), &(socklen_t){sizeof *(a)}
static int result(ssize_t n) { return n < 0 ? -errno : (int)n; }
static int set_option(int fd, int level, int option, int value) {
    return result(peersock_setsockopt(fd, level, option, &value, sizeof value));
}
static int ps_socket(peersock_node node, bool stream) {
    int kind = stream ? SOCK_STREAM : SOCK_DGRAM, fd;
    fd = result(peersock_node_socket(node, AF_INET6, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (stream) set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}
static int ps_listen(peersock_node node, bool stream, bool only_v6, const address *a) {
    int fd = ps_socket(node, stream), error;
    set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, only_v6);
    if (stream) set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (fd < 0 || (!peersock_bind(fd, TO(a)) && !(stream && peersock_listen(fd, SOMAXCONN)))) return fd;
    error = errno;
    close(fd);
    return -error;
}
static int ps_copy(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
// Has the node refuse connections at once, to whose listener this is the last descriptor; it is closed.
static void ps_unlisten(int fd) {
    peersock_connect(fd, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr));
    close(fd);
}
static int ps_connect(int fd, const address *a) { return result(peersock_connect(fd, TO(a))); }
static int ps_name(int fd, address *a) { return result(peersock_getsockname(fd, FROM(a))); }
static int ps_accept(int fd, address *a) {
    return result(peersock_accept4(fd, FROM(a), SOCK_NONBLOCK | SOCK_CLOEXEC));
}
static int ps_recv(int fd, uint8_t *data, size_t size, address *a) {
    return result(peersock_recvfrom(fd, data, size, 0, FROM(a)));
}
static int ps_send(int fd, const uint8_t *data, size_t size, const address *a) {
    return result(peersock_sendto(fd, data, size, 0, TO(a)));
}
// What has come of a connection that was begun: -EINPROGRESS as long as it goes on.
static int ps_outcome(int fd) {
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    int error = 0;
    if (poll(&ready, 1, 0) == 0) return -EINPROGRESS;
    if (peersock_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error})) return -errno;
    // Without an error it stood, and was reset before anybody looked.
    return error == 0 && ready.revents & POLLHUP ? -ECONNRESET : -error;
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
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
	switch s, err := n.each(ctx, "dial", " tcp tcp4 tcp6 udp udp4 udp6 ", network, address, n.dial); {
	case err != nil:
		return nil, err
	case network[0] == 'u':
		return &PacketConn{s}, nil
	default:
		return &Conn{s}, nil
	}
}

// Listen waits for streams at an address of the node, in the network "tcp", "tcp4" or "tcp6". ":80" stands
// for all its addresses, and port 0 for one that is allowed.
func (n *Node) Listen(network, address string) (net.Listener, error) {
	s, err := n.each(context.Background(), "listen", " tcp tcp4 tcp6 ", network, address, n.listen)
	if err != nil {
		return nil, err
	}
	return &Listener{s}, nil
}

// ListenPacket opens a socket for datagrams at such an address, in the network "udp", "udp4" or "udp6".
func (n *Node) ListenPacket(network, address string) (net.PacketConn, error) {
	s, err := n.each(context.Background(), "listen", " udp udp4 udp6 ", network, address, n.listen)
	if err != nil {
		return nil, err
	}
	return &PacketConn{s}, nil
}

// listen opens a socket of an address, which accepts if it is for streams.
func (n *Node) listen(_ context.Context, network string, local netip.AddrPort) (*socket, error) {
	runtime.LockOSThread() // the text of a failure is the thread's
	defer runtime.UnlockOSThread()
	address := encode(local)
	fd := C.ps_listen(n.handle, network[0] == 't', network[3:] == "6", &address)
	s, err := adopt("bind", fd, network)
	if fd == -C.EACCES {
		err = fmt.Errorf("%w: %s", err, C.GoString(C.peersock_last_error()))
	}
	return s, err
}

// dial waits, as long as ctx allows, until a socket is connected.
func (n *Node) dial(ctx context.Context, network string, to netip.AddrPort) (*socket, error) {
	s, err := adopt("socket", C.ps_socket(n.handle, network[0] == 't'), network)
	if err != nil {
		return nil, err
	}
	connected, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-ctx.Done():
			s.SetWriteDeadline(time.Unix(1, 0))
		case <-connected:
		}
	}()
	address := encode(to)
	_, err = wait(s.raw.Write, "connect", func(fd C.int) C.int {
		if s.remote == nil {
			s.remote = netAddr(network, to)
			return C.ps_connect(fd, &address)
		}
		return C.ps_outcome(fd)
	})
	close(connected)
	<-watched
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ctx.Err()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s.named(), s.SetWriteDeadline(time.Time{})
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
	CloseRead() error
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

// adopt gives the runtime what a call has given, a descriptor or a negative errno. It must be bound before:
// the library puts another socket under it for that, and the runtime would go on waiting for the first.
func adopt(call string, fd C.int, network string) (*socket, error) {
	if fd < 0 {
		return nil, os.NewSyscallError(call, syscall.Errno(-fd))
	}
	file := os.NewFile(uintptr(fd), network)
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	s := &socket{unixConn: conn.(*net.UnixConn), network: network}
	s.raw, err = s.SyscallConn()
	return s.named(), err
}

// named asks for the socket's own address.
func (s *socket) named() *socket {
	var local C.address
	s.raw.Control(func(fd uintptr) { C.ps_name(C.int(fd), &local) })
	s.local = decode(s.network, &local)
	return s
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

// SetOption sets an option as setsockopt(2) does; docs/SOCKETS.md lists them.
func (s *socket) SetOption(level, option, value int) error {
	once := func(call func(uintptr) bool) error { return s.raw.Control(func(fd uintptr) { call(fd) }) }
	_, err := wait(once, "setsockopt", func(fd C.int) C.int {
		return C.set_option(fd, C.int(level), C.int(option), C.int(value))
	})
	return s.failed("set", err)
}

// failed says of an error which socket it is of.
func (s *socket) failed(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		// That is all that the kernel knows. The node may have another reason.
		s.raw.Control(func(fd uintptr) {
			switch errno := C.ps_outcome(C.int(fd)); errno {
			case 0, -C.ECONNRESET, -C.EPIPE, -C.EINPROGRESS:
			default:
				err = os.NewSyscallError(op, syscall.Errno(-errno))
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
	if err != nil {
		return nil, l.s.failed("accept", err)
	}
	s, err := adopt("accept", C.int(fd), l.s.network)
	if err != nil {
		return nil, l.s.failed("accept", err)
	}
	s.remote = decode(s.network, &from)
	return &Conn{s}, nil
}

// Close stops listening; Accept fails with net.ErrClosed.
func (l *Listener) Close() error {
	last := C.int(-1)
	l.s.raw.Control(func(fd uintptr) { last = C.ps_copy(C.int(fd)) })
	err := l.s.failed("close", l.s.Close())
	C.ps_unlisten(last)
	return err
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
	address := encode(udp.AddrPort())
	return c.send(b, &address)
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

func encode(address netip.AddrPort) (raw C.address) {
	raw.sin6_family, raw.sin6_port = C.AF_INET6, C.htons(C.uint16_t(address.Port()))
	*(*[16]byte)(unsafe.Pointer(&raw.sin6_addr)) = address.Addr().As16()
	return raw
}

func decode(network string, raw *C.address) net.Addr {
	ip := netip.AddrFrom16(*(*[16]byte)(unsafe.Pointer(&raw.sin6_addr)))
	return netAddr(network, netip.AddrPortFrom(ip.Unmap(), uint16(C.ntohs(raw.sin6_port))))
}
