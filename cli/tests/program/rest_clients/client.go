// A client of a node by HTTP, with the standard library alone: URL and token are its arguments.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
)

var base, token = os.Args[1], os.Args[2]

func ask(method, path, content string, body io.Reader, want int) []byte {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if content != "" {
		request.Header.Set("Content-Type", content)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		log.Fatalf("%s %s: %d %s %v", method, path, answer.StatusCode, all, err)
	}
	return all
}

func open(name string) {
	body, _ := json.Marshal(map[string]string{"name": name, "to": "self"})
	ask("POST", "/v1/pipes", "application/json", bytes.NewReader(body), 201)
}

func main() {
	open("go")
	ask("POST", "/v1/pipes/go/messages", "", bytes.NewBufferString("hello"), 200)
	if got := ask("GET", "/v1/pipes/go/messages?timeout=60", "", nil, 200); string(got) != "hello" {
		log.Fatalf("%q", got)
	}

	// A stream both ways at once: what is sent comes back.
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sent := make(chan struct{})
	go func() {
		// A reader of unknown length is sent in chunks.
		ask("PUT", "/v1/pipes/go/stream?end=true", "", io.MultiReader(bytes.NewReader(data)), 200)
		close(sent)
	}()
	if got := ask("GET", "/v1/pipes/go/stream", "", nil, 200); !bytes.Equal(got, data) {
		log.Fatalf("%d bytes", len(got))
	}
	<-sent
	ask("DELETE", "/v1/pipes/go", "", nil, 204)

	open("tunnel")
	at, err := url.Parse(base)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /tunnel/tunnel HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n", at.Host, token)
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != 101 {
		log.Fatal(answer, err)
	}
	fmt.Fprint(conn, "through the tunnel")
	conn.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(reader)
	if err != nil || string(got) != "through the tunnel" {
		log.Fatalf("%q %v", got, err)
	}
	fmt.Println("all is well")
}
