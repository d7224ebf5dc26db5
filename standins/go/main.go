// The Go stand-in: a module without business, for the platform to host. Same interface as the Python one.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	maxBody    = 8 << 20
	maxMessage = 1 << 20
	maxHeldMB  = 4096
	maxBig     = 1 << 30
	piece      = 64 << 10
	shown      = 100
	maxKey     = 2048
	maxTypes   = 100
)

type object = map[string]any

// problem becomes an application/problem+json answer (RFC 9457).
type problem struct {
	status int
	detail string
	more   object
}

func (p *problem) Error() string { return p.detail }

func wrong(format string, values ...any) error {
	return &problem{400, fmt.Sprintf(format, values...), who}
}

func duration(text string) (time.Duration, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	factors := map[string]float64{"": 1, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
	factor, known := factors[text[len(number):]]
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || math.IsNaN(value) || value < 0 || value*factor > 3600 {
		return 0, wrong("'%s' is not a duration from 0 to 1h such as 250ms or 2s", text)
	}
	return time.Duration(value * factor * float64(time.Second)), nil
}

func whole(text string, low, high int) (int, error) {
	value, err := strconv.Atoi(text)
	if err != nil || value < low || value > high || text[0] == '+' {
		return 0, wrong("'%s' is not a whole number from %d to %d", text, low, high)
	}
	return value, nil
}

func rate(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !(value >= 0 && value <= 1) {
		return 0, wrong("'%s' is not a rate from 0 to 1", text)
	}
	return value, nil
}

// Settings

func variable(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func orExit[T any](name string, value T, err error) T {
	if err != nil {
		fmt.Fprintf(os.Stderr, "standin: %s: %v\n", name, err)
		os.Exit(2)
	}
	return value
}

func durationOf(name, fallback string) time.Duration {
	value, err := duration(variable(name, fallback))
	return orExit(name, value, err)
}

func wholeOf(name, fallback string, low, high int) int {
	value, err := whole(variable(name, fallback), low, high)
	return orExit(name, value, err)
}

var (
	who         object
	peers       = []string{}
	slow        time.Duration
	failRate    float64
	failStatus  int
	callTimeout time.Duration
	logRequests bool
	onEvent     string
	remember    int

	readyAt       atomic.Int64 // Unix time in nanoseconds
	draining      atomic.Bool
	held          = map[*[]byte]int{}
	heldMB        int
	heldLock      sync.Mutex
	failures      counter
	askedFailures counter
	sockets       = map[*webSocket]bool{}
	socketsLock   sync.Mutex
)

// counter says evenly and repeatably which requests fail: request n does where the fraction of (seed + n) x golden
// ratio lies below the rate.
type counter struct{ count atomic.Uint32 }

func (c *counter) next(wanted float64) bool {
	return float64(c.count.Add(1)*2654435769) < wanted*(1<<32)
}

func with(parts ...object) object {
	result := object{}
	for _, part := range parts {
		for name, value := range part {
			result[name] = value
		}
	}
	return result
}

var logLock sync.Mutex

func logLine(level, msg string, more object) {
	line := with(object{"time": time.Now().UTC().Format("2006-01-02T15:04:05Z"), "level": level, "msg": msg}, who, more)
	text, _ := json.Marshal(line)
	logLock.Lock()
	defer logLock.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

func hold(megabytes int, seconds time.Duration, forever bool) {
	block := make([]byte, megabytes<<20)
	for at := 0; at < len(block); at += 4096 {
		block[at] = 1
	}
	heldLock.Lock()
	held[&block] = megabytes
	heldMB += megabytes
	heldLock.Unlock()
	if !forever {
		time.AfterFunc(seconds, func() {
			heldLock.Lock()
			delete(held, &block)
			heldMB -= megabytes
			heldLock.Unlock()
			debug.FreeOSMemory()
		})
	}
}

// Answers

type ask struct {
	*http.Request
	path, query, rest string
	body              []byte
	values            url.Values
}

func (a *ask) get(name, fallback string) string {
	if a.values.Has(name) {
		return a.values.Get(name)
	}
	return fallback
}

func send(w http.ResponseWriter, status int, kind string, body []byte) {
	head(w, status, kind, len(body))
	w.Write(body)
}

func head(w http.ResponseWriter, status int, kind string, length int) {
	if draining.Load() {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Content-Type", kind)
	if length >= 0 {
		w.Header().Set("Content-Length", strconv.Itoa(length))
	}
	w.WriteHeader(status)
}

func sendJSON(w http.ResponseWriter, value any) {
	send(w, 200, "application/json", encode(value))
}

func encode(value any) []byte {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.Encode(value)
	return []byte(text.String())
}

type endpoint func(w http.ResponseWriter, a *ask) error

var routes map[string]endpoint

// nested are the endpoints after whose name the path may go on.
var nested = map[string]bool{"echo": true, "call": true, "publish": true, "events": true}

func init() {
	routes = map[string]endpoint{
		"": root, "ready": ready, "unready": unready, "echo": echo, "headers": headers, "call": call, "slow": slowly,
		"fail": fail, "crash": crash, "memory": memory, "cpu": cpu, "sse": sse, "ws": upgrade, "big": big,
		"publish": publish, "events": takeOrList,
	}
}

func root(w http.ResponseWriter, a *ask) error {
	sendJSON(w, with(who, object{"env": variable("IDI_ENV", "none"), "peers": peers}))
	return nil
}

func ready(w http.ResponseWriter, a *ask) error {
	wait := time.Until(time.Unix(0, readyAt.Load()))
	if draining.Load() {
		return &problem{503, "on its way out", who}
	}
	if wait > 0 {
		return &problem{503, fmt.Sprintf("not ready for another %.2f s", wait.Seconds()), who}
	}
	sendJSON(w, with(who, object{"ready": true}))
	return nil
}

func unready(w http.ResponseWriter, a *ask) error {
	seconds, err := duration(a.get("for", "2s"))
	if err != nil {
		return err
	}
	readyAt.Store(time.Now().Add(seconds).UnixNano())
	sendJSON(w, with(who, object{"unready_for": seconds.Seconds()}))
	return nil
}

func headerLists(r *http.Request) map[string][]string {
	result := map[string][]string{"host": {r.Host}}
	for name, values := range r.Header {
		result[strings.ToLower(name)] = values
	}
	return result
}

func echo(w http.ResponseWriter, a *ask) error {
	joined := map[string]string{}
	for name, values := range headerLists(a.Request) {
		joined[name] = strings.Join(values, ", ")
	}
	value := object{"method": a.Method, "path": a.path, "query": a.query, "headers": joined, "body": string(a.body)}
	if !utf8.Valid(a.body) {
		value["body"] = nil
		value["body_base64"] = base64.StdEncoding.EncodeToString(a.body)
	}
	sendJSON(w, with(value, who))
	return nil
}

func headers(w http.ResponseWriter, a *ask) error {
	sendJSON(w, with(who, object{"headers": headerLists(a.Request)}))
	return nil
}

// The transport sends a request once more by itself where a kept connection turns out to have ended.
var client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func call(w http.ResponseWriter, a *ask) error {
	peer, path, _ := strings.Cut(a.rest, "/")
	name := strings.ReplaceAll(strings.ToUpper(peer), "-", "_") + "_URL"
	base := os.Getenv(name)
	if peer == "" || base == "" {
		return &problem{404, fmt.Sprintf("no peer '%s': there is no variable %s", peer, name), who}
	}
	if scheme, _, _ := strings.Cut(base, "://"); scheme != "http" {
		return &problem{502, fmt.Sprintf("%s is at %s://…: only http://HOST:PORT can be called", peer, scheme), who}
	}
	if path == "" {
		path = "echo"
	}
	target := strings.TrimRight(base, "/") + "/" + path
	if a.query != "" {
		target += "?" + a.query
	}
	unreachable := func(err error) error {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return &problem{502, fmt.Sprintf("%s can't be reached: %v", peer, err), with(who, object{"peer": peer})}
	}
	ctx, cancel := context.WithTimeout(a.Context(), callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, a.Method, target, strings.NewReader(string(a.body)))
	if err != nil {
		return unreachable(err)
	}
	for _, header := range []string{"Traceparent", "Tracestate", "Baggage", "X-Request-Id", "Content-Type"} {
		if values := a.Header.Values(header); len(values) > 0 {
			request.Header[header] = values
		}
	}
	request.Header.Set("User-Agent", "")
	reply, err := client.Do(request)
	if err != nil {
		return unreachable(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = errors.New("its body is too long")
	}
	if err != nil {
		return unreachable(err)
	}
	var value any = string(body)
	if json.Valid(body) {
		value = json.RawMessage(body)
	}
	sendJSON(w, with(who, object{"peer_status": reply.StatusCode, "peer": value}))
	return nil
}

// Events: published to EVENTS_URL, and handled where the platform posts them

// handling is what this process handled; the oldest is forgotten first.
type handling struct {
	lock     sync.Mutex
	seen     map[string]bool
	order    []string // the keys of seen, a ring
	next     int
	types    map[string]int
	repeated int
	ids      []string
	traces   []*string
}

var events = &handling{seen: map[string]bool{}, types: map[string]int{}, ids: []string{}, traces: []*string{}}

func (h *handling) isRepeated(key string) bool {
	h.lock.Lock()
	defer h.lock.Unlock()
	if h.seen[key] {
		h.repeated++
	}
	return h.seen[key]
}

func (h *handling) add(key, id, kind string, trace *string) {
	h.lock.Lock()
	defer h.lock.Unlock()
	if !h.seen[key] {
		h.seen[key] = true
		if len(h.order) < remember {
			h.order = append(h.order, key)
		} else {
			delete(h.seen, h.order[h.next])
			h.order[h.next] = key
			h.next = (h.next + 1) % remember
		}
	}
	if _, known := h.types[kind]; !known && len(h.types) >= maxTypes {
		kind = "others"
	}
	h.types[kind]++
	h.ids, h.traces = append(h.ids, id), append(h.traces, trace)
	if len(h.ids) > shown {
		h.ids, h.traces = h.ids[1:], h.traces[1:]
	}
}

// escape gives an attribute as a header's value: what CloudEvents' HTTP binding (3.1.3.2) wants percent-encoded is,
// no more.
func escape(text string) string {
	var result strings.Builder
	for _, char := range []byte(text) {
		if char >= 0x21 && char <= 0x7e && char != '"' && char != '%' {
			result.WriteByte(char)
		} else {
			fmt.Fprintf(&result, "%%%02X", char)
		}
	}
	return result.String()
}

// post gives the status and the text of EVENTS_URL's answer; 503 and why where there was none.
func post(a *ask, attributes map[string]string, data []byte, kind string) (int, string, error) {
	address := os.Getenv("EVENTS_URL")
	if address == "" {
		return 0, "", &problem{404, "there is no EVENTS_URL: the module declares no events", who}
	}
	if scheme, _, _ := strings.Cut(address, "://"); scheme != "http" {
		return 0, "", &problem{502, fmt.Sprintf("EVENTS_URL is %s://…: only http://HOST:PORT can be called", scheme), who}
	}
	once := func() (int, string, error) {
		ctx, cancel := context.WithTimeout(a.Context(), callTimeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, "POST", address, bytes.NewReader(data))
		if err != nil {
			return 0, "", err
		}
		request.Header.Set("Ce-Specversion", "1.0")
		for name, value := range attributes {
			request.Header.Set("Ce-"+name, value)
		}
		request.Header.Set("Content-Type", kind)
		for _, header := range []string{"Traceparent", "Tracestate"} {
			if values := a.Header.Values(header); len(values) > 0 {
				request.Header[header] = values
			}
		}
		request.Header.Set("User-Agent", "")
		reply, err := client.Do(request)
		if err != nil {
			return 0, "", err
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(io.LimitReader(reply.Body, maxBody+1))
		if err == nil && len(body) > maxBody {
			err = errors.New("its body is too long")
		}
		return reply.StatusCode, string(body), err
	}
	status, text, err := once()
	if err != nil {
		status, text, err = once() // the id makes it safe to send it again
	}
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return 503, err.Error(), nil
	}
	return status, text, nil
}

// publish answers `/publish/TYPE?id=…&subject=…`, whose body is the data, with what EVENTS_URL answered.
func publish(w http.ResponseWriter, a *ask) error {
	if a.rest == "" {
		return &problem{400, "no type: /publish/TYPE publishes", who}
	}
	id := a.get("id", "")
	if id == "" {
		var chance [8]byte
		rand.Read(chance[:])
		id = hex.EncodeToString(chance[:])
	}
	attributes := map[string]string{"id": escape(id), "source": fmt.Sprint("/", who["module"]), "type": a.rest}
	if subject := a.get("subject", ""); subject != "" {
		attributes["subject"] = escape(subject)
	}
	kind := a.Header.Get("Content-Type")
	if kind == "" {
		kind = "application/json"
	}
	status, text, err := post(a, attributes, a.body, kind)
	if err != nil {
		return err
	}
	var answer any = text
	if json.Valid([]byte(text)) {
		answer = json.RawMessage(text)
	}
	value := with(who, object{"id": id, "status": status, "answer": answer})
	send(w, status, "application/json", encode(value))
	return nil
}

// failAsAsked: data such as {"fail_attempts": 2} makes the first two attempts fail.
func failAsAsked(a *ask) error {
	text := a.Header.Get("X-Idi-Attempt")
	if text == "" {
		text = "1"
	}
	attempt, err := whole(text, 1, 1_000_000)
	if err != nil {
		return wrong("x-idi-attempt: %v", err)
	}
	var data map[string]json.RawMessage
	var wanted int
	if json.Unmarshal(a.body, &data) != nil || json.Unmarshal(data["fail_attempts"], &wanted) != nil {
		return nil // any data is good, not this stand-in's alone
	}
	if attempt <= wanted {
		return &problem{503, fmt.Sprintf("attempt %d failed as asked", attempt), who}
	}
	return nil
}

func take(w http.ResponseWriter, a *ask) error {
	id, kind, subject := a.Header.Get("Ce-Id"), a.Header.Get("Ce-Type"), a.Header.Get("Ce-Subject")
	if id == "" || kind == "" {
		return &problem{400, "no event: there is no ce-id or no ce-type", who}
	}
	key := a.Header.Get("Ce-Source") + " " + id
	if len(key) > maxKey {
		return &problem{400, fmt.Sprintf("ce-source and ce-id have more than %d characters", maxKey), who}
	}
	if events.isRepeated(key) {
		sendJSON(w, with(who, object{"repeated": true}))
		return nil
	}
	if err := failAsAsked(a); err != nil {
		return err
	}
	if onEvent != "" {
		attributes := map[string]string{"id": id, "source": fmt.Sprint("/", who["module"]), "type": onEvent}
		if subject != "" {
			attributes["subject"] = subject
		}
		data := encode(object{"follows": object{"type": kind, "id": id}})
		status, text, err := post(a, attributes, data, "application/json")
		if err != nil {
			return err
		}
		if status < 200 || status >= 300 {
			return &problem{503, fmt.Sprintf("%s was not kept: %d %s", onEvent, status, strings.TrimSpace(text)), who}
		}
	}
	var trace *string
	if values := a.Header.Values("Traceparent"); len(values) > 0 {
		trace = &values[0]
	}
	events.add(key, id, kind, trace)
	sendJSON(w, with(who, object{"handled": id}))
	return nil
}

func takeOrList(w http.ResponseWriter, a *ask) error {
	if a.Method == "POST" {
		return take(w, a)
	}
	events.lock.Lock()
	value := with(who, object{"handled": events.types, "repeated": events.repeated, "last": events.ids, "traces": events.traces})
	body := encode(value)
	events.lock.Unlock()
	send(w, 200, "application/json", body)
	return nil
}

func pause(a *ask, seconds time.Duration) bool {
	timer := time.NewTimer(seconds)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.Context().Done():
		return false
	}
}

func slowly(w http.ResponseWriter, a *ask) error {
	seconds, err := duration(a.get("for", "250ms"))
	if err != nil {
		return err
	}
	if pause(a, seconds) {
		sendJSON(w, with(who, object{"slept": seconds.Seconds()}))
	}
	return nil
}

func fail(w http.ResponseWriter, a *ask) error {
	status, err := whole(a.get("status", "500"), 400, 599)
	if err != nil {
		return err
	}
	share, err := rate(a.get("rate", "1"))
	if err != nil {
		return err
	}
	if askedFailures.next(share) {
		return &problem{status, "failed as asked", who}
	}
	sendJSON(w, with(who, object{"failed": false}))
	return nil
}

func crash(w http.ResponseWriter, a *ask) error {
	code, err := whole(a.get("code", "1"), 0, 255)
	if err == nil {
		os.Exit(code)
	}
	return err
}

func memory(w http.ResponseWriter, a *ask) error {
	megabytes, err := whole(a.get("mb", "50"), 0, maxHeldMB)
	if err != nil {
		return err
	}
	seconds, err := duration(a.get("for", "10s"))
	if err != nil {
		return err
	}
	heldLock.Lock()
	total := heldMB + megabytes
	heldLock.Unlock()
	if total > maxHeldMB {
		return &problem{429, fmt.Sprintf("%d MiB at most are held at once", maxHeldMB), who}
	}
	hold(megabytes, seconds, false)
	sendJSON(w, with(who, object{"held_mb": total}))
	return nil
}

func cpu(w http.ResponseWriter, a *ask) error {
	seconds, err := duration(a.get("for", "200ms"))
	if err != nil {
		return err
	}
	seconds = min(seconds, time.Minute)
	for end := time.Now().Add(seconds); time.Now().Before(end) && a.Context().Err() == nil; {
		for slice := time.Now().Add(2 * time.Millisecond); time.Now().Before(slice); {
		}
		runtime.Gosched()
	}
	sendJSON(w, with(who, object{"burnt": seconds.Seconds()}))
	return nil
}

func sse(w http.ResponseWriter, a *ask) error {
	count, err := whole(a.get("count", "3"), 0, 100_000)
	if err != nil {
		return err
	}
	every, err := duration(a.get("every", "50ms"))
	if err != nil {
		return err
	}
	head(w, 200, "text/event-stream", -1)
	for n := 1; n <= count; n++ {
		if n > 1 && !pause(a, every) {
			return nil
		}
		fmt.Fprintf(w, "id: %d\nevent: tick\ndata: %s", n, encode(with(who, object{"n": n})))
		io.WriteString(w, "\n")
		http.NewResponseController(w).Flush()
	}
	return nil
}

func big(w http.ResponseWriter, a *ask) error {
	size, err := whole(a.get("bytes", "100000"), 0, maxBig)
	if err != nil {
		return err
	}
	head(w, 200, "application/octet-stream", size)
	block := []byte(strings.Repeat("x", min(size, piece)))
	for left := size; left > 0; left -= piece {
		if _, err := w.Write(block[:min(left, piece)]); err != nil {
			return nil
		}
	}
	return nil
}

// WebSocket echo (RFC 6455), the least of it

type webSocket struct {
	conn   net.Conn
	reader *bufio.Reader
	lock   sync.Mutex
	closed bool
}

func (s *webSocket) write(opcode byte, payload []byte) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.closed {
		return
	}
	s.closed = opcode == 8
	frame := []byte{0x80 | opcode}
	switch size := len(payload); {
	case size < 126:
		frame = append(frame, byte(size))
	case size < 65536:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(size))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(size))
	}
	s.conn.Write(append(frame, payload...))
}

func (s *webSocket) close(code uint16) {
	s.write(8, binary.BigEndian.AppendUint16(nil, code))
}

// run echoes until the end and gives the close code where the client broke the rules.
func (s *webSocket) run() uint16 {
	var message []byte
	var kind byte
	for {
		var start [2]byte
		if _, err := io.ReadFull(s.reader, start[:]); err != nil {
			return 0
		}
		final, opcode, size := start[0]&0x80 != 0, start[0]&15, uint64(start[1]&127)
		if start[0]&0x70 != 0 || start[1]&0x80 == 0 || (opcode >= 8 && (size > 125 || !final)) {
			return 1002
		}
		var more [8]byte
		if size == 126 {
			io.ReadFull(s.reader, more[:2])
			size = uint64(binary.BigEndian.Uint16(more[:2]))
		} else if size == 127 {
			io.ReadFull(s.reader, more[:])
			size = binary.BigEndian.Uint64(more[:])
		}
		if size > maxMessage || size+uint64(len(message)) > maxMessage {
			return 1009
		}
		masked := make([]byte, 4+size)
		if _, err := io.ReadFull(s.reader, masked); err != nil {
			return 0
		}
		payload := masked[4:]
		for i := range payload {
			payload[i] ^= masked[i&3]
		}
		switch {
		case opcode == 9:
			s.write(10, payload)
		case opcode == 8:
			s.write(8, payload[:min(2, len(payload))])
			return 0
		case opcode <= 2:
			if (opcode == 0) != (kind != 0) {
				return 1002
			}
			if kind == 0 {
				kind = opcode
			}
			message = append(message, payload...)
			if final {
				if kind == 1 && !utf8.Valid(message) {
					return 1007
				}
				s.write(kind, message)
				message, kind = nil, 0
			}
		case opcode != 10:
			return 1002
		}
	}
}

func upgrade(w http.ResponseWriter, a *ask) error {
	key := a.Header.Get("Sec-Websocket-Key")
	if a.Method != "GET" || !strings.EqualFold(a.Header.Get("Upgrade"), "websocket") {
		return &problem{426, "this address speaks WebSocket: ask with Upgrade: websocket", nil}
	}
	if a.Header.Get("Sec-Websocket-Version") != "13" || len(key) != 24 {
		return &problem{400, "the handshake needs sec-websocket-version 13 and a sec-websocket-key of 16 bytes", nil}
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"+
		"sec-websocket-accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	socket := &webSocket{conn: conn, reader: buffered.Reader}
	socketsLock.Lock()
	sockets[socket] = true
	socketsLock.Unlock()
	if code := socket.run(); code != 0 {
		socket.close(code)
		// What the client still sends is read and thrown away, for a while: closing on it would reset the
		// connection, and the client might never see the code.
		conn.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, io.LimitReader(socket.reader, 4*maxMessage))
	}
	socketsLock.Lock()
	delete(sockets, socket)
	socketsLock.Unlock()
	return nil
}

// Life

// connections are those that the server still has; an upgraded one is no longer its own.
type connections struct {
	lock sync.Mutex
	open map[net.Conn]http.ConnState
}

func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.open, conn)
	} else {
		c.open[conn] = state
	}
}

// count gives their number; those on which nothing was ever asked are closed where wanted, for Shutdown would wait.
func (c *connections) count(closeNew bool) int {
	c.lock.Lock()
	defer c.lock.Unlock()
	for conn, state := range c.open {
		if closeNew && state == http.StateNew {
			conn.Close()
		}
	}
	return len(c.open)
}

// recorder keeps the status for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func handle(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	record := &recorder{w, 200}
	if err := route(record, r); err != nil {
		var p *problem
		if !errors.As(err, &p) {
			p = &problem{500, err.Error(), who}
		}
		title := http.StatusText(p.status)
		if title == "" {
			title = "Error"
		}
		value := with(object{"type": "about:blank", "title": title, "status": p.status, "detail": p.detail}, p.more)
		send(record, p.status, "application/problem+json", encode(value))
	}
	if !logRequests {
		return
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	more := object{"method": r.Method, "path": path, "status": record.status,
		"ms": math.Round(float64(time.Since(began).Microseconds())/10) / 100}
	if trace := strings.Split(r.Header.Get("Traceparent"), "-"); len(trace) >= 3 {
		more["trace_id"], more["span_id"] = trace[1], trace[2]
	}
	if id := r.Header.Get("X-Request-Id"); id != "" {
		more["request_id"] = id
	}
	level := "info"
	if record.status >= 500 {
		level = "error"
	}
	logLine(level, "request", more)
}

func route(w http.ResponseWriter, r *http.Request) error {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	first, rest, slash := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	run, known := routes[first]
	if !known || path == "" || path[0] != '/' || (slash && !nested[first]) {
		return &problem{404, "this stand-in has no " + path, who}
	}
	body, err := []byte(nil), error(nil)
	if r.ContentLength <= maxBody {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	if err != nil || r.ContentLength > maxBody {
		var tooLong *http.MaxBytesError
		if err == nil || errors.As(err, &tooLong) {
			w.Header().Set("Connection", "close")
			return &problem{413, fmt.Sprintf("a body may have %d bytes at most", maxBody), nil}
		}
		return &problem{400, err.Error(), nil}
	}
	a := &ask{Request: r, path: path, query: query, rest: rest, body: body}
	if query != "" {
		a.values = r.URL.Query()
	}
	if first != "ready" && first != "unready" {
		if slow > 0 && !pause(a, slow) {
			return nil
		}
		if failures.next(failRate) {
			return &problem{failStatus, "failed as STANDIN_FAIL_RATE asks", who}
		}
	}
	return run(w, a)
}

func main() {
	name := variable("IDI_MODULE", "standin")
	who = object{"module": name, "instance": variable("IDI_INSTANCE", name), "version": variable("IDI_VERSION", "0")}
	if os.Getenv("PORT") == "" {
		fmt.Fprintln(os.Stderr, "standin: PORT is not set")
		os.Exit(2)
	}
	port := wholeOf("PORT", "", 1, 65535)
	slow = durationOf("STANDIN_SLOW", "0")
	share, err := rate(variable("STANDIN_FAIL_RATE", "0"))
	failRate = orExit("STANDIN_FAIL_RATE", share, err)
	failStatus = wholeOf("STANDIN_FAIL_STATUS", "500", 400, 599)
	seed := uint32(wholeOf("STANDIN_SEED", "1", 0, 1<<31))
	failures.count.Store(seed)
	askedFailures.count.Store(seed)
	readyAt.Store(time.Now().Add(durationOf("STANDIN_READY_AFTER", "0")).UnixNano())
	crashAfter := durationOf("STANDIN_CRASH_AFTER", "0")
	crashCode := wholeOf("STANDIN_CRASH_CODE", "1", 0, 255)
	memoryMB := wholeOf("STANDIN_MEMORY_MB", "0", 0, maxHeldMB)
	ignored := variable("STANDIN_IGNORE_TERM", "0")
	exitAtStart := wholeOf("STANDIN_EXIT_AT_START", "256", 0, 256) // 256: not set
	callTimeout = durationOf("STANDIN_CALL_TIMEOUT", "10s")
	linger := durationOf("STANDIN_LINGER", "300ms")
	grace := durationOf("STANDIN_GRACE", "8s")
	logRequests = os.Getenv("STANDIN_LOG") == "requests"
	onEvent = os.Getenv("STANDIN_ON_EVENT")
	remember = wholeOf("STANDIN_REMEMBER", "100000", 1, 1_000_000)
	for _, entry := range os.Environ() {
		key, value, _ := strings.Cut(entry, "=")
		peer := strings.TrimSuffix(key, "_URL")
		if peer != key && peer != "" && peer != "GATEWAY" && peer != "EVENTS" && strings.HasPrefix(value, "http://") {
			peers = append(peers, strings.ReplaceAll(strings.ToLower(peer), "_", "-"))
		}
	}
	sort.Strings(peers)
	if exitAtStart < 256 {
		fmt.Fprintf(os.Stderr, "standin: ends with %d as STANDIN_EXIT_AT_START asks\n", exitAtStart)
		os.Exit(exitAtStart)
	}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if memoryMB > 0 {
		hold(memoryMB, 0, true)
	}
	if crashAfter > 0 {
		time.AfterFunc(crashAfter, func() { os.Exit(crashCode) })
	}
	address := net.JoinHostPort(variable("STANDIN_BIND", "127.0.0.1"), strconv.Itoa(port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintf(os.Stderr, "standin: can't listen on %s: %v\n", address, err)
		os.Exit(1)
	}
	server := &http.Server{Handler: http.HandlerFunc(handle), MaxHeaderBytes: 64 << 10}
	all := &connections{open: map[net.Conn]http.ConnState{}}
	server.ConnState = all.changed
	go server.Serve(listener)
	logLine("info", "started", object{"port": port, "pid": os.Getpid(), "env": variable("IDI_ENV", "none")})

	for caught := range signals {
		if caught == syscall.SIGTERM && ignored != "0" && ignored != "false" {
			logLine("warning", "SIGTERM ignored as STANDIN_IGNORE_TERM asks", nil)
			continue
		}
		break
	}
	draining.Store(true)
	time.Sleep(5 * time.Millisecond) // takes in what the kernel has accepted already: closing would reset it
	listener.Close()
	socketsLock.Lock()
	for socket := range sockets {
		go socket.close(1001)
	}
	socketsLock.Unlock()
	// Shutdown would end idle connections under requests that are on their way.
	for end := time.Now().Add(linger); time.Now().Before(end) && all.count(false) > 0; {
		time.Sleep(10 * time.Millisecond)
	}
	all.count(true)
	ctx, cancel := context.WithTimeout(context.Background(), grace-linger)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		logLine("warning", "stopped", object{"cut": all.count(false)})
	} else {
		logLine("info", "stopped", object{"cut": 0})
	}
}
