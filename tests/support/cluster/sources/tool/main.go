// A program for pods of the tests: it serves, asks, resolves, burns, waits and keeps a volume, without a library or a
// shell. `tool WORD ...`, or a link named as the word.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	arguments := os.Args
	if filepath.Base(arguments[0]) == "tool" {
		arguments = arguments[1:]
	}
	if len(arguments) == 0 {
		fail("usage: tool pause|serve|get|resolve|write|volume ...")
	}
	word, rest := filepath.Base(arguments[0]), arguments[1:]
	switch word {
	case "pause":
		pause()
	case "serve":
		serve(argument(rest, 0, ":8080"))
	case "get":
		get(argument(rest, 0, ""), argument(rest, 1, "2s"))
	case "resolve":
		resolve(argument(rest, 0, ""))
	case "write":
		write(argument(rest, 0, ""), argument(rest, 1, ""))
	case "volume":
		volume(rest)
	default:
		fail("no such word: " + word)
	}
}

func argument(rest []string, at int, otherwise string) string {
	if at < len(rest) {
		return rest[at]
	}
	return otherwise
}

func fail(what string) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(1)
}

// A pod's first process: it holds the namespaces and reaps whatever is left to it.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for one := range signals {
		if one != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// `/` names the pod, `/burn` works for ?ms= milliseconds, `/file` reads ?path=. Ends within a second on SIGTERM, and
// says when it began and ended, so that the order of containers can be seen in the logs.
func serve(address string) {
	host, _ := os.Hostname()
	say := func(what string) { fmt.Printf("%d %s\n", time.Now().UnixNano(), what) }
	server := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second}
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprint(answer, host) })
	http.HandleFunc("/burn", func(answer http.ResponseWriter, request *http.Request) {
		milliseconds, _ := strconv.Atoi(request.URL.Query().Get("ms"))
		end, turns := time.Now().Add(time.Duration(min(milliseconds, 60_000))*time.Millisecond), 0
		for time.Now().Before(end) && request.Context().Err() == nil {
			turns++
		}
		fmt.Fprint(answer, turns)
	})
	http.HandleFunc("/file", func(answer http.ResponseWriter, request *http.Request) {
		text, err := os.ReadFile(request.URL.Query().Get("path"))
		if err != nil {
			http.Error(answer, err.Error(), http.StatusNotFound)
			return
		}
		answer.Write(text)
	})
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fail(err.Error())
	}
	say("began")
	go server.Serve(listener)
	<-stop.Done()
	grace, done := context.WithTimeout(context.Background(), time.Second)
	defer done()
	server.Shutdown(grace)
	say("ended")
}

func get(url, limit string) {
	wait, err := time.ParseDuration(limit)
	if err != nil {
		fail(err.Error())
	}
	client := &http.Client{Timeout: wait, Transport: &http.Transport{Proxy: nil}}
	answer, err := client.Get(url)
	if err != nil {
		fail(err.Error())
	}
	defer answer.Body.Close()
	io.Copy(os.Stdout, io.LimitReader(answer.Body, 1<<20))
	if answer.StatusCode >= 400 {
		os.Exit(2)
	}
}

func resolve(name string) {
	limit, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	found, err := net.DefaultResolver.LookupHost(limit, name)
	if err != nil {
		fail(err.Error())
	}
	fmt.Println(strings.Join(found, "\n"))
}

func write(path, text string) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		fail(err.Error())
	}
	defer file.Close()
	if _, err := file.WriteString(text + "\n"); err != nil {
		fail(err.Error())
	}
	if err := file.Sync(); err != nil {
		fail(err.Error())
	}
}

// What the provisioner of volumes runs on a node: -p PATH -s SIZE -m MODE -a create|delete.
func volume(rest []string) {
	given := map[string]string{}
	for at := 0; at+1 < len(rest); at += 2 {
		given[rest[at]] = rest[at+1]
	}
	path := given["-p"]
	if !filepath.IsAbs(path) {
		fail("volume: no absolute -p")
	}
	var err error
	switch given["-a"] {
	case "create":
		if err = os.MkdirAll(path, 0o777); err == nil {
			err = os.Chmod(path, 0o777)
		}
	case "delete":
		err = os.RemoveAll(path)
	default:
		fail("volume: -a create or delete")
	}
	if err != nil {
		fail(err.Error())
	}
}
