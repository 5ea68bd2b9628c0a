package mqtt_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetcast-io/fleetcast/brokers"
	"github.com/fleetcast-io/fleetcast/brokers/embedded"
)

func TestPassword(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{Authenticate: func(c embedded.MQTTClient, password []byte) bool {
		return c.Username == "u" && string(password) == "s3cret"
	}})
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("file", func(t *testing.T) {
		write("s3cret\n")
		c := source
		c.Username, c.PasswordFile = "u", file
		send(t, openWith(t, b.address(""), c), someTopic, newEvent())
	})
	t.Run("URL", func(t *testing.T) {
		u := b.address("")
		u.User = url.UserPassword("u", "s3cret")
		send(t, openWith(t, u, source), someTopic, newEvent())
	})
	t.Run("wrong", func(t *testing.T) {
		log := newLog(t)
		c := source
		c.Username, c.PasswordFile, c.Log = "u", file, log.logger
		write("hunter2")
		tr := openWith(t, b.address(""), c)
		log.await(t, "check username, password file")
		err := tr.Publish(t.Context(), someTopic, newEvent())
		if !errors.Is(err, brokers.ErrUnavailable) || !strings.Contains(err.Error(), "bad user name or password (0x86)") {
			t.Errorf("publish returned %v, want ErrUnavailable with the reason", err)
		}
		if strings.Contains(log.String()+err.Error(), "hunter2") {
			t.Error("the password is in the log or in an error")
		}
	})
	t.Run("read again", func(t *testing.T) {
		b.stop(t)
		defer b.start(t)
		log := newLog(t)
		c := source
		c.Username, c.PasswordFile, c.Log = "u", file, log.logger
		write("hunter2")
		tr := openWith(t, b.address(""), c)
		log.await(t, "cannot connect to broker")
		write("s3cret")
		b.start(t)
		send(t, tr, someTopic, newEvent())
	})
}

// Two with the same identity do not take the session from each other for ever.
func TestSessionTakenOver(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{})
	log := newLog(t)
	c := source
	c.Log = log.logger
	first := openWith(t, b.address(""), c)
	send(t, first, someTopic, newEvent())
	second := openWith(t, b.address(""), source)
	send(t, second, someTopic, newEvent())
	log.await(t, "took over the session")
	if err := first.Publish(t.Context(), someTopic, newEvent()); !errors.Is(err, brokers.ErrUnavailable) {
		t.Errorf("publish on the first: %v, want ErrUnavailable", err)
	}
	if err := second.Publish(t.Context(), someTopic, newEvent()); err != nil {
		t.Errorf("publish on the second: %v", err)
	}
}

// Replicas of a source share its reports.
func TestShare(t *testing.T) {
	b := startBroker(t, embedded.MQTTOptions{})
	reports := []brokers.Filter{{Lane: brokers.ToSource, Source: "s", Cluster: brokers.Any}}
	var all []<-chan string
	for _, id := range []string{"s-1", "s-2"} {
		c := source
		c.ClientID = id
		all = append(all, listen(t, openWith(t, b.address("share=replicas"), c), reports))
	}
	tr := openWith(t, b.address(""), agent)
	const events = 50
	for range events {
		send(t, tr, brokers.Topic{Lane: brokers.ToSource, Source: "s", Cluster: "c1"}, newEvent())
	}
	got := make(map[string]int)
	for range events {
		select {
		case id := <-all[0]:
			got[id]++
		case id := <-all[1]:
			got[id]++
		case <-time.After(patience):
			t.Fatalf("waited %s for %d of %d events", patience, events-len(got), events)
		}
	}
	if len(got) != events {
		t.Errorf("%d different events came, want each of %d at one replica", len(got), events)
	}
}
