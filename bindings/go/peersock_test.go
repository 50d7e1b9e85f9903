package peersock

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// network allows the ports from 1 to 65535.
const network = "ff0001ffff000000"

// Both nodes are on the loopback interface, and meet by a port that no other test has.
var alice, bob *Node

func TestMain(m *testing.M) {
	if os.Getenv("PEERSOCK_TEST_ECHO") != "" {
		echo()
	}
	// Who wants it as nodes do may share it; nobody else gets it.
	shared := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			must(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
		})
	}}
	held, err := shared.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	must(err)
	defer held.Close()
	config := Config{Network: network, Secret: "correct horse", Interfaces: "loopback", Roots: " ",
		DiscoveryPort: uint16(held.LocalAddr().(*net.UDPAddr).Port)}
	alice, err = Open(config)
	must(err)
	bob, err = Open(config)
	must(err)
	code := m.Run()
	// Some tests leave something that cannot be delivered.
	alice.Close()
	bob.Close()
	os.Exit(code)
}

// echo is another program, which knows nothing of this package: it sends back what it gets, until it is ended.
func echo() {
	listener, err := net.Listen("tcp", "[::]:7000")
	must(err)
	fmt.Println("ready")
	for {
		conn, err := listener.Accept()
		must(err)
		go func() {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}()
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// at gives a port of a node.
func at(node *Node, port string) string {
	return net.JoinHostPort(node.Addresses()[0].String(), port)
}

// listen gives a listener of alice's and its address.
func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	listener, err := alice.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return listener, at(alice, port)
}

// pair gives a connection's ends: bob's, and alice's.
func pair(t *testing.T) (dialed, accepted *Conn) {
	t.Helper()
	listener, address := listen(t)
	to, err := bob.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	from, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close(); from.Close() })
	return to.(*Conn), from.(*Conn)
}

// wants fails unless an error is of package net, and is what was wanted.
func wants(t *testing.T, err, wanted error) {
	t.Helper()
	var inner *net.OpError
	if !errors.As(err, &inner) || !errors.Is(err, wanted) || strings.Contains(err.Error(), "unix") {
		t.Fatalf("%v instead of %v", err, wanted)
	}
}

func TestHTTP(t *testing.T) {
	before := runtime.NumGoroutine()
	listener, address := listen(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Write(body)
		fmt.Fprint(w, " from ", r.RemoteAddr)
	})}
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	transport := &http.Transport{DialContext: bob.DialContext}
	client := &http.Client{Transport: transport}
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func(body []byte) {
			defer all.Done()
			answer, err := client.Post("http://"+address, "text/plain", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			got, err := io.ReadAll(answer.Body)
			from := bob.Addresses()[0].String()
			if err != nil || !bytes.HasPrefix(got, body) || !strings.Contains(string(got[len(body):]), from) {
				t.Errorf("%d bytes of %d, %v", len(got), len(body), err)
			}
		}(large[:len(large)>>(2*i)])
	}
	all.Wait()
	transport.CloseIdleConnections()
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Error(err)
	}
	for i := 0; runtime.NumGoroutine() > before; i++ {
		if i == 1000 {
			t.Fatal("goroutines are left")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAddresses(t *testing.T) {
	dialed, accepted := pair(t)
	if dialed.LocalAddr().String() != accepted.RemoteAddr().String() ||
		dialed.RemoteAddr().String() != accepted.LocalAddr().String() {
		t.Error(dialed.LocalAddr(), dialed.RemoteAddr(), accepted.LocalAddr(), accepted.RemoteAddr())
	}
	remote, ok := dialed.RemoteAddr().(*net.TCPAddr)
	if own := alice.Addresses(); !ok || len(own) != 1 || remote.AddrPort().Addr() != own[0] {
		t.Error(own, remote)
	}
}

func TestHalfClosedStreamsGoOn(t *testing.T) {
	dialed, accepted := pair(t)
	fmt.Fprint(dialed, "question")
	if err := dialed.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(accepted); string(got) != "question" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	fmt.Fprint(accepted, "answer")
	accepted.Close()
	if got, err := io.ReadAll(dialed); string(got) != "answer" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestDeadlines(t *testing.T) {
	dialed, accepted := pair(t)
	past, soon := time.Now().Add(-time.Second), time.Now().Add(20*time.Millisecond)
	for _, deadline := range []time.Time{past, soon} {
		dialed.SetDeadline(deadline)
		_, err := dialed.Read(make([]byte, 1))
		wants(t, err, os.ErrDeadlineExceeded)
		if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
			t.Error(err)
		}
	}
	// Writing waits, once nobody has read for a while.
	var err error
	dialed.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for block := make([]byte, 1<<20); err == nil; {
		_, err = dialed.Write(block)
	}
	wants(t, err, os.ErrDeadlineExceeded)
	// Without one it goes on as before.
	dialed.SetDeadline(time.Time{})
	fmt.Fprint(accepted, "x")
	if _, err := io.ReadFull(dialed, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	listener, _ := listen(t)
	listener.(*Listener).SetDeadline(soon)
	_, err = listener.Accept()
	wants(t, err, os.ErrDeadlineExceeded)
}

func TestClosingEndsWhatWaits(t *testing.T) {
	dialed, _ := pair(t)
	listener, _ := listen(t)
	packets, err := alice.ListenPacket("udp", ":0")
	must(err)
	waits := []func() error{
		func() error { _, err := dialed.Read(make([]byte, 1)); return err },
		func() error { _, err := listener.Accept(); return err },
		func() error { _, _, err := packets.ReadFrom(make([]byte, 1)); return err },
	}
	for i, closer := range []io.Closer{dialed, listener, packets} {
		ended := make(chan error)
		go func() { ended <- waits[i]() }()
		time.Sleep(20 * time.Millisecond)
		must(closer.Close())
		wants(t, <-ended, net.ErrClosed)
		wants(t, waits[i](), net.ErrClosed)
		if !errors.Is(closer.Close(), net.ErrClosed) {
			t.Error("it is closed twice")
		}
	}
	_, err = dialed.Write([]byte("x"))
	wants(t, err, net.ErrClosed)
	wants(t, dialed.SetOption(syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 0), net.ErrClosed)
}

func TestRefused(t *testing.T) {
	_, err := bob.Dial("tcp", at(alice, "1"))
	wants(t, err, syscall.ECONNREFUSED)
	if !strings.HasPrefix(err.Error(), "dial tcp ["+alice.Addresses()[0].String()+"]:1: connect: ") {
		t.Error(err)
	}
	listener, address := listen(t)
	must(listener.Close())
	_, err = bob.Dial("tcp", address)
	wants(t, err, syscall.ECONNREFUSED)
}

func TestResets(t *testing.T) {
	dialed, accepted := pair(t)
	must(accepted.SetOption(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1))
	fmt.Fprint(dialed, "unread")
	if _, err := accepted.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	_, err := dialed.Read(make([]byte, 1))
	wants(t, err, syscall.ECONNRESET)
	_, err = dialed.Write([]byte("x"))
	wants(t, err, syscall.EPIPE)
}

func TestContexts(t *testing.T) {
	// Nobody has this address.
	nobody := strings.Replace(at(alice, "80"), "]", "", 1)
	nobody = "[" + alice.Addresses()[0].Prev().String() + "]:80"
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := bob.DialContext(ctx, "tcp", nobody)
	wants(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = bob.DialContext(ctx, "tcp", nobody)
	wants(t, err, context.DeadlineExceeded)
	if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Error(err)
	}
	_, err = bob.DialContext(ctx, "tcp", nobody)
	wants(t, err, context.DeadlineExceeded)
	// One that is done after the connection stands means nothing to it.
	listener, address := listen(t)
	ctx, cancel = context.WithCancel(context.Background())
	conn, err := bob.DialContext(ctx, "tcp", address)
	must(err)
	cancel()
	accepted, err := listener.Accept()
	must(err)
	fmt.Fprint(conn, "x")
	if _, err := io.ReadFull(accepted, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	conn.Close()
	accepted.Close()
}

func TestDatagrams(t *testing.T) {
	server, err := alice.ListenPacket("udp", at(alice, "0"))
	must(err)
	defer server.Close()
	client, err := bob.Dial("udp", server.LocalAddr().String())
	must(err)
	defer client.Close()
	server.SetDeadline(time.Now().Add(time.Minute))
	client.SetDeadline(time.Now().Add(time.Minute))
	room := make([]byte, 100)
	for _, sent := range []string{"hello", "", strings.Repeat("x", 200)} {
		n, err := client.Write([]byte(sent))
		if must(err); n != len(sent) {
			t.Errorf("%d of %d", n, len(sent))
		}
		n, from, err := server.ReadFrom(room)
		must(err)
		if got := string(room[:n]); !strings.HasPrefix(sent, got) || (got != sent && n != len(room)) {
			t.Errorf("%q", got)
		}
		if from.String() != client.LocalAddr().String() || from.Network() != "udp" {
			t.Error(from, client.LocalAddr())
		}
		_, err = server.WriteTo([]byte("answer"), from)
		must(err)
		if n, err := client.Read(room); string(room[:n]) != "answer" {
			t.Error(string(room[:n]), err)
		}
	}
	server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, _, err = server.ReadFrom(room)
	wants(t, err, os.ErrDeadlineExceeded)
	_, err = server.WriteTo(nil, &net.TCPAddr{})
	wants(t, err, syscall.EINVAL)
	_, err = server.WriteTo(nil, &net.UDPAddr{})
	wants(t, err, syscall.EINVAL)
	_, err = client.(net.PacketConn).WriteTo(nil, server.LocalAddr())
	wants(t, err, net.ErrWriteToConnected)
	// Nobody has a socket there: it is told by and by.
	lost, err := bob.Dial("udp", at(alice, "9"))
	must(err)
	defer lost.Close()
	lost.SetDeadline(time.Now().Add(time.Minute))
	_, err = lost.Write([]byte("x"))
	must(err)
	_, err = lost.Read(room)
	wants(t, err, syscall.ECONNREFUSED)
	// More at once than the kernel holds: none waits for ever.
	for i := 0; i < 5000; i++ {
		_, err = client.Write(room)
		must(err)
		_, err = server.WriteTo(room, client.LocalAddr())
		must(err)
	}
}

func TestFamilies(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		listener, err := alice.Listen(network, ":0")
		must(err)
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		again, err := alice.Listen(network, ":"+port)
		wants(t, err, syscall.EADDRINUSE)
		if again != nil || port == "0" {
			t.Error(again, port)
		}
		// Not even a part of it.
		_, err = alice.Listen("tcp", ":"+port)
		wants(t, err, syscall.EADDRINUSE)
		must(listener.Close())
	}
	_, err := bob.Dial("tcp4", at(alice, "80"))
	if lookup := new(net.DNSError); !errors.As(err, &lookup) || !lookup.IsNotFound {
		t.Error(err)
	}
}

func TestBadArguments(t *testing.T) {
	tooLong := uint16(10001)
	for _, config := range []Config{
		{Network: "nonsense"}, {Network: "ff0001ffff000000\x00"}, {Interfaces: "nosuch0"},
		{Seed: []byte("short")}, {Seed: make([]byte, 32), State: "x"},
		{Roots: "nonsense"}, {State: "/proc/nowhere"}, {Turn: "nonsense"}, {Stun: "nonsense"}, {DHT: "nonsense"},
		{OnlySuite: "nonsense"}, {TCPBuffers: []uint{0, 1}}, {TCPBuffers: []uint{1}}, {BusyPoll: &tooLong},
	} {
		if config.Interfaces == "" {
			config.Interfaces = "loopback"
		}
		node, err := Open(config)
		if failure := new(Error); !errors.As(err, &failure) || failure.Text == "" || node != nil {
			t.Errorf("%+v: %v", config, err)
		}
	}
	for _, address := range []string{
		"", "nocolon", "[::1", "host:99999", "[::1]:nosuchservice", "nobody:80",
	} {
		for _, dial := range []func() (any, error){
			func() (any, error) { return bob.Dial("tcp", address) },
			func() (any, error) { return alice.Listen("tcp", address) },
			func() (any, error) { return alice.ListenPacket("udp", address) },
		} {
			if _, err := dial(); err == nil {
				t.Error(address)
			} else if inner := new(net.OpError); !errors.As(err, &inner) {
				t.Error(err)
			}
		}
	}
	for _, name := range []string{"", "unix", "tcp5", "udp44", "ip"} {
		for _, dial := range []func() (any, error){
			func() (any, error) { return bob.Dial(name, ":80") },
			func() (any, error) { return bob.Listen(name, ":80") },
			func() (any, error) { return bob.ListenPacket(name, ":80") },
		} {
			if _, err := dial(); !errors.As(err, new(net.UnknownNetworkError)) {
				t.Error(name, err)
			}
		}
	}
	if _, err := bob.Listen("udp", ":80"); err == nil {
		t.Error("datagrams are listened for")
	}
	_, err := bob.Listen("tcp", at(alice, "80"))
	wants(t, err, syscall.EADDRNOTAVAIL)
	taken, address := listen(t)
	_, err = alice.Listen("tcp", address)
	wants(t, err, syscall.EADDRINUSE)
	taken.Close()
}

// The library refuses a setting that it does not know.
func TestSettings(t *testing.T) {
	node, err := Open(Config{Network: network, Interfaces: "loopback", Roots: " ", Turn: " ", Stun: "127.0.0.1:9",
		DHT: "off", NoDiscovery: true, NoIntroduce: true, NoPortMapping: true, NoBirthday: true, NoTCPPunch: true,
		BusyPoll: new(uint16), OnlySuite: "ChaCha20-Poly1305", TCPBuffers: []uint{65536, 65536}})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
}

func TestMembersHaveNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "office.toml")
	text := "network = \"fe4f0c1d2e3a4b55\"\n"
	var nodes []*Node
	for i, name := range []string{"alpha", "beta"} {
		seed := bytes.Repeat([]byte{byte(i + 1)}, 32)
		node, err := Open(Config{Seed: seed, Interfaces: "loopback", Roots: " "})
		must(err)
		defer node.Close()
		var status struct {
			Key       string `json:"public_key"`
			Endpoints []string
		}
		said, err := node.Status()
		must(err)
		must(json.Unmarshal(said, &status))
		_, port, _ := net.SplitHostPort(status.Endpoints[0])
		text += fmt.Sprintf("[[member]]\nname = %q\nkey = %q\n", name, status.Key)
		text += fmt.Sprintf("addresses = [\"10.7.0.%d\"]\nendpoints = [\"127.0.0.1:%s\"]\n", i+1, port)
		nodes = append(nodes, node)
	}
	must(os.WriteFile(file, []byte(text), 0o600))
	for _, node := range nodes {
		if err := node.Join(file, "correct horse"); err == nil {
			t.Fatal("the file has another secret")
		}
		must(node.Join(file, ""))
	}
	listener, err := nodes[0].Listen("tcp", ":80")
	must(err)
	defer listener.Close()
	for address, network := range map[string]string{
		"alpha:80": "tcp", "ALPHA:http": "tcp4", "10.7.0.1:80": "tcp4",
	} {
		conn, err := nodes[1].Dial(network, address)
		must(err)
		accepted, err := listener.Accept()
		must(err)
		v4 := conn.RemoteAddr().(*net.TCPAddr).IP.To4() != nil
		if v4 != (network == "tcp4") || accepted.RemoteAddr().String() != conn.LocalAddr().String() {
			t.Error(conn.RemoteAddr(), accepted.RemoteAddr(), conn.LocalAddr())
		}
		for end, name := range map[net.Conn]string{conn: "alpha", accepted: "beta"} {
			peer, err := end.(*Conn).Peer()
			if must(err); peer.Name != name || peer.Node != peer.Machine || peer.Gateway || len(peer.Tags) != 0 {
				t.Error(peer)
			}
		}
		must(conn.Close())
		must(accepted.Close())
	}
	// The node itself has a name, and is who is meant without a host.
	for _, address := range []string{"alpha:80", ":80"} {
		conn, err := nodes[0].Dial("tcp", address)
		must(err)
		must(conn.Close())
	}
	packets, err := nodes[0].ListenPacket("udp4", "10.7.0.1:53")
	must(err)
	defer packets.Close()
	asking, err := nodes[1].Dial("udp4", "alpha:53")
	must(err)
	defer asking.Close()
	_, err = asking.Write([]byte("x"))
	must(err)
	_, from, err := packets.ReadFrom(make([]byte, 1))
	if must(err); !strings.HasPrefix(from.String(), "10.7.0.2:") {
		t.Error(from)
	}
}

func TestIdentities(t *testing.T) {
	dialed, accepted := pair(t)
	before, err := accepted.Peer()
	must(err)
	must(dialed.Close())
	if _, err = accepted.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	after, err := accepted.Peer()
	if must(err); after.Node != before.Node || len(after.Node) != 64 {
		t.Error(before, after)
	}
	must(accepted.Close())
	_, err = accepted.Peer()
	wants(t, err, net.ErrClosed)
	peer, err := parsePeer([]byte(`{"network":"80","node":"a","machine":"b","gateway":true,"name":null,` +
		`"label":"web","tags":["db"],"claims":"00ff"}`))
	must(err)
	if peer.Name != "" || peer.Label != "web" || !peer.Gateway || peer.Tags[0] != "db" || peer.Claims[1] != 255 {
		t.Error(peer)
	}
}

func TestStates(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	config := Config{State: state, Interfaces: "loopback", Roots: " ", NoDiscovery: true}
	var first netip.Addr
	for i := 0; i < 2; i++ {
		node, err := Open(config)
		must(err)
		if _, err := Open(config); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Error(err)
		}
		if node.Addresses() != nil {
			t.Error(node.Addresses())
		}
		must(node.Join("ff00500051000000", ""))
		if own := node.Addresses()[0]; i == 0 {
			first = own
		} else if own != first {
			t.Error(own, first)
		}
		_, err = node.Listen("tcp", ":90")
		wants(t, err, syscall.EACCES)
		if !strings.Contains(err.Error(), "80") {
			t.Error(err)
		}
		listener, err := node.Listen("tcp", ":80")
		must(err)
		ended := make(chan error)
		go func() { _, err := listener.Accept(); ended <- err }()
		must(node.Close())
		wants(t, <-ended, syscall.ENETDOWN)
		must(listener.Close())
		if err := node.Close(); err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := node.Status(); err == nil || node.Addresses() != nil {
			t.Error("a node that is closed has a status")
		}
		_, err = node.Listen("tcp", ":80")
		wants(t, err, syscall.ENETDOWN)
	}
}

// A program joins a managed network by an invite, and is the same member when it starts again.
func TestInvites(t *testing.T) {
	program := os.Getenv("PEERSOCK_TEST_PROGRAM")
	if program == "" {
		t.Skip("PEERSOCK_TEST_PROGRAM names no program that makes a network")
	}
	folder := t.TempDir()
	alpha := func(arguments ...string) *exec.Cmd {
		command := exec.Command(program, arguments...)
		command.Env = append(os.Environ(), "PEERSOCK_STATE="+filepath.Join(folder, "alpha"),
			"PEERSOCK_INTERFACE=lo", "PEERSOCK_PERSIST=0", "PEERSOCK_OWN_NODE=1")
		return command
	}
	create := alpha("network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha")
	if told, err := create.CombinedOutput(); err != nil {
		t.Fatal(err, string(told))
	}
	controller := alpha("controller", "-n", "team")
	stderr, err := controller.StderrPipe()
	must(err)
	must(controller.Start())
	defer func() {
		controller.Process.Signal(os.Interrupt)
		controller.Wait()
	}()
	said := bufio.NewScanner(stderr)
	for said.Scan() && !strings.Contains(said.Text(), "serving team") {
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	invite, err := alpha("network", "invite", "--name", "beta").Output()
	must(err)
	granted := netip.MustParseAddr("10.77.0.2")
	for i := 0; i < 2; i++ {
		node, err := Open(Config{Network: strings.TrimSpace(string(invite)), State: filepath.Join(folder, "beta"),
			Interfaces: "loopback", Roots: " "})
		must(err)
		for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			has := false
			for _, address := range node.Addresses() {
				has = has || address == granted
			}
			if has {
				break
			}
			if time.Since(begun) > time.Minute {
				t.Fatal("no controller has admitted the node: ", node.Addresses())
			}
		}
		must(node.Close())
	}
}

// What a node that is closed does to its connections is told, and not taken for their end.
func TestClosedNodes(t *testing.T) {
	node, err := Open(Config{Network: network, Interfaces: "loopback", Roots: " ", NoDiscovery: true})
	must(err)
	listener, err := node.Listen("tcp", ":0")
	must(err)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	conn, err := node.Dial("tcp", ":"+port)
	must(err)
	defer conn.Close()
	must(node.Close())
	_, err = conn.Read(make([]byte, 1))
	wants(t, err, syscall.ENETDOWN)
}

// The program in the README runs as it stands there.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	must(err)
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, _, found := strings.Cut(program, "```")
	if !found {
		t.Fatal("the README has no program")
	}
	here, err := os.Getwd()
	must(err)
	folder := t.TempDir()
	module := "module program\n\ngo 1.19\n\nrequire peersock v0.0.0\n\nreplace peersock => " + here + "\n"
	must(os.WriteFile(filepath.Join(folder, "go.mod"), []byte(module), 0o600))
	must(os.WriteFile(filepath.Join(folder, "main.go"), []byte(program), 0o600))
	command := exec.Command("go", "run", ".")
	command.Dir = folder
	if said, err := command.CombinedOutput(); err != nil || string(said) != "hello\n" {
		t.Error(string(said), err)
	}
}

// A program with this package and one under `peersock run` share the node of their state directory.
func TestSharedNode(t *testing.T) {
	program := os.Getenv("PEERSOCK_TEST_PROGRAM")
	if program == "" {
		t.Skip("PEERSOCK_TEST_PROGRAM names no program that runs others")
	}
	const open = "ff1b58ffff000000" // without a secret, from port 7000 on
	state := filepath.Join(t.TempDir(), "state")
	run := exec.Command(program, "run", "--interface", "lo", "--state", state, "--network", open, "--",
		os.Args[0])
	run.Env = append(os.Environ(), "PEERSOCK_TEST_ECHO=1", "PEERSOCK_PERSIST=0", "PEERSOCK_OWN_NODE=",
		"PEERSOCK_ROOTS=")
	said, err := run.StdoutPipe()
	must(err)
	must(run.Start())
	defer func() {
		_ = run.Process.Signal(os.Interrupt)
		_ = run.Wait()
	}()
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	node, err := Open(Config{Network: open, State: state, Interfaces: "loopback", Roots: " "})
	must(err)
	own := node.Addresses()[0]
	conn, err := node.Dial("tcp", net.JoinHostPort(own.String(), "7000"))
	must(err)
	_, err = conn.Write([]byte("hello"))
	must(err)
	must(conn.(*Conn).CloseWrite())
	if echoed, err := io.ReadAll(conn); string(echoed) != "hello" || err != nil {
		t.Error(string(echoed), err)
	}
	must(conn.Close())
	// The port is the other program's.
	_, err = node.Listen("tcp", ":7000")
	wants(t, err, syscall.EADDRINUSE)
	status := func() []byte {
		told, err := exec.Command(program, "status", "--json", "--state", state).Output()
		must(err)
		return told
	}
	told := status()
	var shared struct {
		Programs []struct{ Process int }
	}
	must(json.Unmarshal(told, &shared))
	has := false
	for _, one := range shared.Programs {
		has = has || one.Process == os.Getpid()
	}
	if len(shared.Programs) != 2 || !has {
		t.Error(string(told))
	}
	// The other program keeps its node.
	must(node.Close())
	status()
}
