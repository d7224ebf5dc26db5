// A module that uses the broker by NATS's own client for Go and knows nothing else of the platform.
//
// publish SUBJECT ID: keeps one event there. take STREAM CONSUMER COUNT: takes so many, acknowledges each and prints its
// id. Both log in by BUS_URL.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	connection, err := nats.Connect(os.Getenv("BUS_URL"))
	must(err)
	defer connection.Close()
	stream, err := jetstream.New(connection)
	must(err)
	limit, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if os.Args[1] == "publish" {
		message := nats.NewMsg(os.Args[2])
		for name, value := range map[string]string{"id": os.Args[3], "source": "/go", "type": os.Args[2], "specversion": "1.0"} {
			message.Header.Set("ce-"+name, value)
		}
		message.Header.Set("content-type", "application/json")
		message.Data = []byte(`{"from": "go"}`)
		kept, err := stream.PublishMsg(limit, message)
		must(err)
		fmt.Println(kept.Stream)
		return
	}
	take(connection, os.Args[2], os.Args[3], os.Args[4])
}

// A module may ask for what is next and answer, and nothing else: to look the consumer up first is not its to do, so
// the client's older interface is used, which can be told not to.
func take(connection *nats.Conn, stream, consumer, count string) {
	context, err := connection.JetStream()
	must(err)
	taken, err := context.PullSubscribe("", consumer, nats.Bind(stream, consumer), nats.SkipConsumerLookup())
	must(err)
	most, err := strconv.Atoi(count)
	must(err)
	for got := 0; got < most; {
		messages, err := taken.Fetch(most-got, nats.MaxWait(20*time.Second))
		must(err)
		for _, message := range messages {
			fmt.Println(message.Header.Get("ce-id"), string(message.Data))
			must(message.AckSync())
			got++
		}
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
