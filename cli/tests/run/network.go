// A server and a client on the network, as Go's library has them: serve PORT FOLDER, or fetch URL... .
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Says to each datagram where it came from.
func echo(address string) {
	socket, err := net.ListenPacket("udp", address)
	check(err)
	data := make([]byte, 2000)
	for {
		_, from, err := socket.ReadFrom(data)
		check(err)
		_, err = socket.WriteTo([]byte(from.String()), from)
		check(err)
	}
}

func serve(port string, folder string) {
	go echo("0.0.0.0:" + port)
	http.HandleFunc("/who", func(answer http.ResponseWriter, request *http.Request) {
		host, _, err := net.SplitHostPort(request.RemoteAddr)
		check(err)
		local := request.Context().Value(http.LocalAddrContextKey).(net.Addr)
		fmt.Fprintln(answer, host, local)
	})
	http.Handle("/", http.FileServer(http.Dir(folder)))
	check(http.ListenAndServe(":"+port, nil))
}

func fetch(urls []string) {
	for _, url := range urls {
		answer, err := http.Get(url)
		check(err)
		_, err = io.Copy(os.Stdout, answer.Body)
		check(err)
	}
}

// Many at once, each with a connection of its own.
func many(url string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var all sync.WaitGroup
	for worker := 0; worker < 20; worker++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < 10; i++ {
				answer, err := client.Get(url)
				check(err)
				_, err = io.ReadAll(answer.Body)
				check(err)
				answer.Body.Close()
			}
		}()
	}
	all.Wait()
	fmt.Println("all fetched")
}

func refused(address string) {
	_, err := net.DialTimeout("tcp", address, 30*time.Second)
	fmt.Println(err)
	socket, err := net.Listen("tcp", ":0")
	check(err)
	check(socket.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond)))
	_, err = socket.Accept()
	fmt.Println(err.(net.Error).Timeout())
}

func ask(address string) {
	socket, err := net.Dial("udp", address)
	check(err)
	check(socket.SetDeadline(time.Now().Add(30 * time.Second)))
	_, err = socket.Write([]byte("x"))
	check(err)
	data := make([]byte, 100)
	length, err := socket.Read(data)
	check(err)
	fmt.Println(string(data[:length]) == socket.LocalAddr().String())
}

func main() {
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2], os.Args[3])
	case "fetch":
		fetch(os.Args[2:])
	case "many":
		many(os.Args[2])
	case "refused":
		refused(os.Args[2])
	case "interface":
		found, err := net.InterfaceByName(os.Args[2])
		check(err)
		addresses, err := found.Addrs()
		check(err)
		fmt.Println(found.Flags&net.FlagUp != 0, addresses)
	case "ask":
		ask(os.Args[2])
	case "exit":
		os.Exit(7)
	}
}
