// Package peersock opens TCP and UDP sockets on encrypted peer-to-peer networks, as package net has them.
//
// A [Node] is a program's end of its networks: [Node.DialContext] fits http.Transport, [Node.Listen] gives
// what http.Serve takes, [Node.ListenPacket] a net.PacketConn. Errors of sockets are those of package net:
// *net.OpError with a syscall.Errno, net.ErrClosed, os.ErrDeadlineExceeded.
package peersock

/*
#cgo pkg-config: peersock
#include <peersock.h>
*/
import "C"

import (
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// Linger is how long [Node.Close] waits at most until everything is delivered.
const Linger = 5 * time.Second

// Config says what a node is. The zero value is a node with a fresh identity that is in no network yet.
type Config struct {
	Network string `json:"network,omitempty"` // joined at once, unless it is empty, as by [Node.Join]
	Secret  string `json:"secret,omitempty"`  // the network's passphrase
	State   string `json:"state,omitempty"`   // the directory that keeps the identity, of one node at a time
	Seed    []byte `json:"-"`                 // 32 secret bytes that the identity is made of, without a State

	Interfaces string `json:"interfaces,omitempty"` // may be used: "all" (the default), "loopback", "eth0,wlan0"
	Roots      string `json:"roots,omitempty"`      // where it can be found, as in PEERSOCK_ROOTS; " " for none
	Turn       string `json:"turn,omitempty"`       // TURN servers, as in PEERSOCK_TURN; " " for none
	Stun       string `json:"stun,omitempty"`       // STUN servers, as in PEERSOCK_STUN; " " for none
	DHT        string `json:"dht,omitempty"`        // "off", "public", or nodes of another one, as in PEERSOCK_DHT
	Port       uint16 `json:"port"`                 // its UDP port; 0 lets the system choose

	DiscoveryPort uint16 `json:"discovery_port"` // by which nodes of a local network meet; 0 is the usual one
	NoDiscovery   bool   `json:"-"`              // turns that off

	NoIntroduce   bool `json:"-"` // tells nobody of itself by discovery
	NoPortMapping bool `json:"-"` // asks no router to forward a port
	NoBirthday    bool `json:"-"` // looks for no direct paths by many ports
	NoTCPPunch    bool `json:"-"` // looks for no direct paths by TCP

	BusyPoll   *uint16 `json:"busy_poll,omitempty"`   // microseconds of polling before a wait, up to 10000; 0 is never
	OnlySuite  string  `json:"only_suite,omitempty"`  // the only cipher: "AES-256-GCM" or "ChaCha20-Poly1305"
	TCPBuffers []uint  `json:"tcp_buffers,omitempty"` // at most so many bytes to send, and to receive, for each stream
}

// Error is what a call of the node itself has failed with.
type Error struct {
	Code int    // one of the library's PEERSOCK_E_ constants
	Text string // what was wrong
}

func (e *Error) Error() string { return "peersock: " + e.Text }

// Node is a member of networks. Several goroutines may use it at the same time.
type Node struct {
	handle C.peersock_node
	closed atomic.Bool
}

// off is a setting that is left out unless it is to be false.
func off(isOff bool) *bool {
	if !isOff {
		return nil
	}
	return new(bool)
}

// Open starts a node; a program may have several. Errors are of type [*Error].
func Open(config Config) (*Node, error) {
	var seed any // as config has it, not even an empty one is left out
	if config.Seed != nil {
		seed = hex.EncodeToString(config.Seed)
	}
	settings, _ := json.Marshal(struct {
		Config
		Seed        any   `json:"seed,omitempty"`
		Discovery   bool  `json:"discovery"`
		Introduce   bool  `json:"introduce"`
		PortMapping *bool `json:"port_mapping,omitempty"`
		Birthday    *bool `json:"birthday,omitempty"`
		TCPPunch    *bool `json:"tcp_punch,omitempty"`
	}{config, seed, !config.NoDiscovery, !config.NoIntroduce, off(config.NoPortMapping), off(config.NoBirthday), off(config.NoTCPPunch)})
	node := new(Node)
	err := check(func() C.peersock_result { return C.peersock_open(text(string(settings)), &node.handle) })
	if err != nil {
		return nil, err
	}
	return node, nil
}

// Join joins an ad-hoc network by its ID, 16 hexadecimal digits, with a passphrase unless secret is empty; a
// managed one by its ID or an invite; or the static one that a file describes, which `peersock network new`
// makes; docs/use/NETWORKS.md has its fields.
func (n *Node) Join(network, secret string) error {
	return check(func() C.peersock_result {
		return C.peersock_join_named(n.handle, text(network), text(secret), nil)
	})
}

// Close stops the node: what was written is delivered, within [Linger], and connections that are still open
// are reset. It fails if not everything was delivered. Close nodes before the program ends: nothing else
// waits then for what is not delivered yet.
func (n *Node) Close() error {
	if n.closed.Swap(true) {
		return net.ErrClosed
	}
	return check(func() C.peersock_result { return C.peersock_stop(n.handle, C.int(Linger.Milliseconds())) })
}

// Status gives what the node tells of itself, as JSON; docs/use/STATUS.md describes it.
func (n *Node) Status() ([]byte, error) {
	var text *C.char
	err := check(func() C.peersock_result { return C.peersock_status(n.handle, &text) })
	defer C.peersock_string_free(text)
	return []byte(C.GoString(text)), err
}

// Addresses gives the node's own addresses, those to dial first; none once it is closed.
func (n *Node) Addresses() []netip.Addr { return n.lookup("") }

// lookup gives the addresses of the member with a name, or without one those of the node itself.
func (n *Node) lookup(name string) (found []netip.Addr) {
	var addresses *C.char
	check(func() C.peersock_result { return C.peersock_lookup(n.handle, text(name), &addresses) })
	defer C.peersock_string_free(addresses)
	for _, address := range strings.Fields(C.GoString(addresses)) {
		found = append(found, netip.MustParseAddr(address))
	}
	return found
}

// check makes a call of the node. The text of its failure is the thread's.
func check(call func() C.peersock_result) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if code := call(); code != C.PEERSOCK_OK {
		return &Error{int(code), C.GoString(C.peersock_last_error())}
	}
	return nil
}

// text gives C a text, NULL if it is empty. A zero byte, which C cannot take, makes it one that is refused.
func text(text string) *C.char {
	if text == "" {
		return nil
	}
	text = strings.ReplaceAll(text, "\x00", "\xff")
	return (*C.char)(unsafe.Pointer(&append([]byte(text), 0)[0]))
}
