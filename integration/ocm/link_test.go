package ocm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/google/uuid"
)

// dataType begins the type of every event here.
const dataType = "io.open-cluster-management.works.v1alpha1.manifestbundles."

// A message is an event as it is on the wire of MQTT. Properties are the user
// properties.
type message struct {
	topic       string
	contentType string
	properties  map[string]string
	payload     []byte
}

// kind is the type of the event without the data type.
func (m message) kind() string { return strings.TrimPrefix(m.properties["ce-type"], dataType) }

func (m message) id() string { return m.properties["ce-resourceid"] }

// golden reads an event that OCM's codecs made, and replaces words in its
// properties and its body: each old one is followed by the new one.
func golden(t *testing.T, name string, oldnew ...string) message {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "codec", "testdata", "ocm", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		ContentType    string            `json:"contentType"`
		UserProperties map[string]string `json:"userProperties"`
		Payload        json.RawMessage   `json:"payload"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("golden event %s: %v", name, err)
	}
	var body bytes.Buffer
	if len(file.Payload) > 0 {
		// The file is indented for its readers, the wire is not.
		if err := json.Compact(&body, file.Payload); err != nil {
			t.Fatalf("golden event %s: %v", name, err)
		}
	}
	replacer := strings.NewReplacer(oldnew...)
	m := message{contentType: file.ContentType, properties: map[string]string{}, payload: []byte(replacer.Replace(body.String()))}
	for key, value := range file.UserProperties {
		m.properties[key] = replacer.Replace(value)
	}
	m.properties["ce-id"] = uuid.NewString()
	m.properties["ce-time"] = now()
	return m
}

// now is the time of an event that is sent now.
func now() string { return timestamp(time.Now()) }

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// A link is a connection with the broker as OCM's clients have it.
type link struct {
	client *paho.Client
	queue  chan message
	closed chan struct{}
	wait   sync.WaitGroup
}

// dial connects, subscribes and hands what comes to handle, one by one. What
// cannot be read fails the test.
func dial(t *testing.T, address, clientID string, filters []string, handle func(message)) *link {
	t.Helper()
	// OCM's clients keep their ID, and wait for seconds before they connect
	// again. A peer here does so at once, when the embedded broker may still be
	// ending what it has under the ID. A clean session does not depend on it.
	clientID += "-" + uuid.NewString()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("peer %s: %v", clientID, err)
	}
	const slots = 100 // As many events wait in an OCM client.
	l := &link{queue: make(chan message, slots), closed: make(chan struct{})}
	l.client = paho.NewClient(paho.ClientConfig{
		ClientID: clientID,
		Conn:     conn,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(in paho.PublishReceived) (bool, error) {
			m, err := received(in.Packet)
			if err != nil {
				t.Errorf("peer %s: event on %s: %v", clientID, in.Packet.Topic, err)
				return true, nil
			}
			select {
			case l.queue <- m:
			case <-l.closed:
			}
			return true, nil
		}},
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const keepAlive = 60
	if _, err := l.client.Connect(ctx, &paho.Connect{ClientID: clientID, CleanStart: true, KeepAlive: keepAlive}); err != nil {
		t.Fatalf("peer %s: connect: %v", clientID, err)
	}
	l.wait.Go(func() {
		for {
			select {
			case m := <-l.queue:
				handle(m)
			case <-l.closed:
				return
			}
		}
	})
	subscribe := &paho.Subscribe{}
	for _, filter := range filters {
		subscribe.Subscriptions = append(subscribe.Subscriptions, paho.SubscribeOptions{Topic: filter, QoS: 1})
	}
	if _, err := l.client.Subscribe(ctx, subscribe); err != nil {
		t.Fatalf("peer %s: subscribe to %q: %v", clientID, filters, err)
	}
	return l
}

// close ends the connection, and with it the session. What was received and not
// handled yet is lost, as it is when a process ends.
func (l *link) close() {
	close(l.closed)
	_ = l.client.Disconnect(&paho.Disconnect{})
	<-l.client.Done()
	l.wait.Wait()
}

// publish returns when the broker has m.
func (l *link) publish(m message) error {
	p := &paho.Publish{
		Topic: m.topic, QoS: 1, Payload: m.payload,
		Properties: &paho.PublishProperties{ContentType: m.contentType},
	}
	for key, value := range m.properties {
		p.Properties.User = append(p.Properties.User, paho.UserProperty{Key: key, Value: value})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := l.client.Publish(ctx, p); err != nil {
		return fmt.Errorf("publish %s to %s: %w", m.properties["ce-type"], m.topic, err)
	}
	return nil
}

// received checks what OCM's clients expect of every event.
func received(p *paho.Publish) (message, error) {
	m := message{topic: p.Topic, contentType: p.Properties.ContentType, properties: map[string]string{}, payload: p.Payload}
	if p.QoS != 1 || p.Retain {
		return m, fmt.Errorf("it has QoS %d and retain %t, want 1 and false", p.QoS, p.Retain)
	}
	for _, property := range p.Properties.User {
		if _, twice := m.properties[property.Key]; twice {
			return m, fmt.Errorf("property %s comes twice", property.Key)
		}
		m.properties[property.Key] = property.Value
	}
	if version := m.properties["ce-specversion"]; version != "1.0" {
		return m, fmt.Errorf("ce-specversion is %q", version)
	}
	if id, err := uuid.Parse(m.properties["ce-id"]); err != nil || id.Version() != 4 {
		return m, fmt.Errorf("ce-id %q is no random UUID", m.properties["ce-id"])
	}
	at, err := time.Parse(time.RFC3339Nano, m.properties["ce-time"])
	if err != nil || at.Location() != time.UTC {
		return m, fmt.Errorf("ce-time %q is no RFC 3339 time in UTC", m.properties["ce-time"])
	}
	if !strings.HasPrefix(m.properties["ce-type"], dataType) {
		return m, fmt.Errorf("ce-type is %q", m.properties["ce-type"])
	}
	switch {
	case len(m.payload) == 0 && m.contentType != "":
		return m, fmt.Errorf("it has no body, but the content type %q", m.contentType)
	case len(m.payload) > 0 && m.contentType != "application/json":
		return m, fmt.Errorf("its content type is %q", m.contentType)
	}
	for _, required := range []string{"ce-clustername", "ce-originalsource"} {
		if _, ok := m.properties[required]; !ok {
			return m, errors.New("it has no " + required)
		}
	}
	return m, nil
}
