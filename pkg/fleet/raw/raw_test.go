package raw_test

import (
	"testing"

	"github.com/fleetcast-io/fleetcast/brokers/embedded"
	"github.com/fleetcast-io/fleetcast/pkg/fleet/raw"
)

func TestMQTT(t *testing.T) {
	b, err := embedded.StartMQTT(embedded.MQTTOptions{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	got, err := raw.MQTT(t.Context(), b.Addr().String(), []string{"a/b", "a/c"}, 5000, 100)
	check(t, got, err)
	if _, err := raw.MQTT(t.Context(), "127.0.0.1:1", []string{"a"}, 1, 1); err == nil {
		t.Error("events went through a broker that is not there")
	}
}

func TestNATS(t *testing.T) {
	b, err := embedded.StartNATS(embedded.NATSOptions{DataDir: t.TempDir(), LazySync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	got, err := raw.NATS(t.Context(), b.URL(), []string{"a.b", "a.c"}, 5000, 100)
	check(t, got, err)
	if _, err := raw.NATS(t.Context(), "nats://127.0.0.1:1", []string{"a"}, 1, 1); err == nil {
		t.Error("events went through a broker that is not there")
	}
}

func check(t *testing.T, got raw.Rate, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got.Events != 5000 || got.Size != 100 || got.Published <= 0 || got.Received <= 0 || got.PerSecond() <= 0 {
		t.Errorf("measured %+v", got)
	}
}
