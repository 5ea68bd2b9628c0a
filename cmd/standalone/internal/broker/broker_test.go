package broker_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/broker"
	"github.com/fleetcast-io/fleetcast/cmd/standalone/internal/datadir"
)

func TestParseAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		reason  string
		address string
		wantErr string
	}{
		"NATS":            {reason: "the common case", address: "nats://127.0.0.1:4222"},
		"MQTT, free port": {reason: "the kernel may choose", address: "mqtt://127.0.0.1:0"},
		"IPv6":            {reason: "brackets are part of the URL only", address: "nats://[::1]:4222/"},
		"localhost":       {reason: "everybody writes it", address: "nats://localhost:4222"},
		"no scheme":       {reason: "the kind of broker is not to be guessed", address: "127.0.0.1:1883", wantErr: "write it like"},
		"other scheme":    {reason: "there is no such broker here", address: "kafka://127.0.0.1:9092", wantErr: `"kafka"`},
		"TLS":             {reason: "the broker has no certificate", address: "mqtts://127.0.0.1:8883", wantErr: `"mqtts"`},
		"no port":         {reason: "a default port would clash with a broker that is there", address: "nats://127.0.0.1", wantErr: "port"},
		"wrong port":      {reason: "ports have 16 bits", address: "nats://127.0.0.1:70000", wantErr: "write it like"},
		"password":        {reason: "it would be ignored, and somebody rely on it", address: "nats://me:pw@127.0.0.1:4222", wantErr: "write it like"},
		"query":           {reason: "it would be ignored", address: "nats://127.0.0.1:4222?x=y", wantErr: "write it like"},
		"name":            {reason: "a name may be many addresses", address: "nats://broker.example.com:4222", wantErr: "not an IP address"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := broker.ParseAddress(tc.address)
			if tc.wantErr == "" && err != nil {
				t.Errorf("%s: %v", tc.reason, err)
			}
			if tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)) {
				t.Errorf("%s: got %v, want an error with %q", tc.reason, err, tc.wantErr)
			}
			if err != nil && strings.Contains(err.Error(), "pw") {
				t.Errorf("the error repeats a password: %v", err)
			}
		})
	}
}

func TestBrokerKeepsItsAddress(t *testing.T) {
	dir := t.TempDir()
	urls := map[string]string{}
	for range 2 {
		for _, scheme := range []string{"nats", "mqtt"} {
			address, err := broker.ParseAddress(scheme + "://127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			b, err := broker.Start(dir, address, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(b.URL(), scheme+"://127.0.0.1:") {
				t.Errorf("URL: got %s, want one of %s", b.URL(), scheme)
			}
			if before := urls[scheme]; before != "" && before != b.URL() {
				t.Errorf("started again: got URL %s, want %s", b.URL(), before)
			}
			urls[scheme] = b.URL()
			if content, err := os.ReadFile(filepath.Join(dir, "url")); err != nil || strings.TrimSpace(string(content)) != b.URL() {
				t.Errorf("file url: got %q (%v), want %s", content, err, b.URL())
			}
			if _, err := broker.Start(dir, address, slog.New(slog.DiscardHandler)); !errors.Is(err, datadir.ErrInUse) {
				t.Errorf("a second broker on the same directory: got %v, want ErrInUse", err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
